"""The very server that will serve a model, started for its tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from prefect_mlops.blocks import _unix
from prefect_mlops.blocks._supervisor import clean_environment, tail
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.release import Snapshot
from prefect_mlops.tasks._scratch import scratch_folder

START_SECONDS = 60
ANSWER_SECONDS = 30
STOP_SECONDS = 10
TIED = """
import os, runpy, signal, threading

def leave():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=leave, daemon=True).start()
runpy.run_module("prefect_mlops.deployments.server", run_name="__main__", alter_sys=True)
"""
"""Runs the server, and ends it when its standard input does: it must not outlive tests that were killed."""
PREDICTIONS = "/api/v1.0/predictions"


class ServerEnded(Exception):
    """The server did not start with this model; says its last words."""


@dataclass(frozen=True)
class ModelServer:
    """A model server that is ready."""

    client: httpx.Client

    def ask(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> httpx.Response:
        """Its answer to `rows`, whose columns have `names`."""
        body = json.dumps({"data": {"names": list(names), "ndarray": rows}}, default=str)
        return self.client.post(PREDICTIONS, content=body, headers={"content-type": "application/json"})


@contextmanager
def serving(service: str, folder: Path, files: Snapshot) -> Generator[ModelServer]:
    """Serve the model whose files lie in `folder`, until the block ends.

    Raises:
        ServerEnded: If it does not start.
    """
    with scratch_folder() as home:
        process = _started(home, service, folder, files)
        try:
            _await(process, home)
            transport = httpx.HTTPTransport(uds=str(home / "s"))
            with httpx.Client(base_url="http://server", transport=transport, timeout=ANSWER_SECONDS) as client:
                yield ModelServer(client)
        finally:
            _end(process)


def _started(home: Path, service: str, folder: Path, files: Snapshot) -> subprocess.Popen[bytes]:
    configuration = {
        "service": service, "release": files.id, "model": files.id, "folder": str(folder),
        "files": files.model_dump(mode="json")["files"], "socket": str(home / "s"), "spool": str(home / "records"),
    }  # fmt: skip
    (home / "server.json").write_text(json.dumps(configuration))
    (home / "records").mkdir()
    environment = clean_environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    with (home / "log").open("wb") as log:
        command = [sys.executable, "-P", "-c", TIED, str(home / "server.json")]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)


def _await(process: subprocess.Popen[bytes], home: Path) -> None:
    wait_until(lambda: process.poll() is not None or _is_ready(home / "s"), seconds=START_SECONDS, pause=0.02)
    if process.poll() is not None:
        raise ServerEnded(f"the server ended with exit status {process.returncode}: {tail(home / 'log')}")
    if not _is_ready(home / "s"):
        raise ServerEnded(f"the server was not ready after {START_SECONDS} s: {tail(home / 'log')}")


def _is_ready(socket: Path) -> bool:
    try:
        _unix.call(socket, "GET", "/ready")
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    with process:  # closes its standard input
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
