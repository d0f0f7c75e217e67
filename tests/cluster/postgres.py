"""A PostgreSQL server of the tests' own, that pods reach."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.blocks.store.servers import free_port
from tests.cluster.api import wait_for

USER, PASSWORD = "team", "only-for-tests"
_OWNER = "nobody"
"""PostgreSQL does not run as root."""


def _program(name: str) -> str:
    """The path of one of PostgreSQL's programs, which Debian keeps out of PATH; or a skip that says how to get it."""
    newest = max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), default=None)
    found = shutil.which(name) or (newest and str(newest))
    if not found:
        pytest.skip("no PostgreSQL, so nothing is tested on it; run `apt install postgresql`")
    return found


@contextmanager
def postgres(host: str, *databases: str) -> Generator[str]:
    """Run a server with empty databases; gives what stands between `postgresql://` and a database's name."""
    initdb, server, psql = (_program(name) for name in ("initdb", "postgres", "psql"))
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        shutil.chown(home, _OWNER)
        (home / "password").write_text(PASSWORD)
        given = (f"--username={USER}", f"--pwfile={home}/password", "--auth=scram-sha-256", "--no-sync")
        subprocess.run([initdb, home / "data", *given], check=True, user=_OWNER, stdout=subprocess.DEVNULL)
        with (home / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.0.0.0/8 scram-sha-256\n")
        words = [server, "-D", home / "data", "-h", host, "-p", str(port), "-k", home, "-c", "fsync=off"]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(words, user=_OWNER, stdout=log, stderr=log)
        try:
            address = f"{USER}:{PASSWORD}@{host}:{port}"
            for name in ("postgres", *databases):
                ask = [psql, f"postgresql://{address}/postgres", "-c"]
                what = f"CREATE DATABASE {name}" if name != "postgres" else "SELECT 1"
                wait_for(lambda words=[*ask, what]: _does(words), f"PostgreSQL to {what}")
            yield f"{address}/"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def _does(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
