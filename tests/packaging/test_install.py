"""`pip install .`, with the bounds of pyproject.toml alone, gives a Prefect whose schedules fire."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.packaging.project import copy_tracked, uv

SERVE = """
from prefect import flow

@flow
def tick() -> None: ...

if __name__ == "__main__":
    tick.serve(name="every-two-seconds", interval=2)
"""


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: IO[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """A program and its children, ended on the way out."""
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        for end in (process.terminate, lambda: os.killpg(process.pid, 9)):
            try:
                end()
                process.wait(timeout=20)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                continue


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait until `condition` holds; a refused connection counts as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"not within {seconds} s, exit code {process.poll()}:\n{log.read_text()[-4000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The `bin` of a new environment with our wheel in it, resolved today by its own bounds."""
    source = copy_tracked(tmp_path / "source")
    uv("venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    uv("pip", "install", "--quiet", "--python", str(tmp_path / "venv" / "bin" / "python"), str(source))
    return tmp_path / "venv" / "bin"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_schedule_really_fires(fresh: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{_free_port()}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
    environment |= {"PREFECT_HOME": str(tmp_path / "home"), "PREFECT_API_URL": url, "HOME": str(tmp_path)}
    (tmp_path / "tick.py").write_text(SERVE)
    port = url.removesuffix("/api").rpartition(":")[2]
    server = [str(fresh / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", port]
    log = tmp_path / "log"

    def completed() -> bool:
        wanted = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        runs = httpx.post(f"{url}/flow_runs/filter", json=wanted).json()
        return any(run["auto_scheduled"] for run in runs)

    with log.open("wb") as file, _running(server, environment, file) as process:
        _wait_for(lambda: httpx.get(f"{url}/health").is_success, process, log, 120)
        blocks = {kind["slug"] for kind in httpx.post(f"{url}/block_types/filter", json={}).json()}
        assert "mlops-store" in blocks, "our blocks register with a server that imported nothing of ours"
        command = [str(fresh / "python"), str(tmp_path / "tick.py")]
        with _running(command, environment, file) as served:
            _wait_for(completed, served, log, 180)
