"""Real server processes for tests: started, waited for, asked, ended."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

PROGRAM = "prefect_mlops.deployments.server"
T = TypeVar("T")


def until(what: Callable[[], T | None], seconds: float = 30.0) -> T:
    """Ask `what` until it answers something true, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} was not true after {seconds} s")
        time.sleep(0.02)
    return answer


@dataclass
class Running:
    """A server process that is ready."""

    process: subprocess.Popen[bytes]
    config: Path
    log: Path
    url: str
    client: httpx.Client

    def post(self, document: Any, path: str = "/api/v1.0/predictions", **more: Any) -> httpx.Response:
        """Send `document` as JSON."""
        return self.client.post(path, json=document, **more)

    @property
    def port(self) -> int:
        """Port on loopback."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving(config: Path, prepare: Callable[[], None] | None = None, *, inline: bool = False) -> Generator[Running]:
    """A server process with the configuration at `config`, or in its command, until the block ends."""
    log = config.with_suffix(".log")
    with log.open("wb") as output:
        command = [sys.executable, "-m", PROGRAM, config.read_text() if inline else str(config)]
        process = subprocess.Popen(command, stderr=output, stdout=output, preexec_fn=prepare)  # noqa: PLW1509
    try:
        place = until(lambda: _place(process, log))
        with _client(place) as client:
            until(lambda: client.get("/ready").status_code == 200)
            yield Running(process, config, log, str(client.base_url).rstrip("/"), client)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def refused(config: Path) -> tuple[int, str]:
    """Exit code and last words of a server that does not start."""
    done = subprocess.run([sys.executable, "-m", PROGRAM, str(config)], capture_output=True, timeout=60, check=False)
    return done.returncode, done.stderr.decode()


def _place(process: subprocess.Popen[bytes], log: Path) -> str | None:
    words = log.read_text()
    if process.poll() is not None:
        raise AssertionError(f"the server ended with {process.returncode}: {words}")
    found = re.search(r"listens on (\S+)", words)
    return found and found.group(1)


def _client(place: str) -> httpx.Client:
    if place.startswith("/"):
        return httpx.Client(base_url="http://server", transport=httpx.HTTPTransport(uds=place), timeout=30)
    return httpx.Client(base_url=f"http://{place}", timeout=30)
