"""The tests' ingress as a process of its own: started, waited for, and ended."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.settings import NODE_IP


@dataclass(frozen=True)
class Ingress:
    """A running gateway: where it answers, and where it keeps its files (`access.log` among them)."""

    url: str
    folder: Path


@contextmanager
def running(kubeconfig: Path, folder: Path) -> Generator[Ingress]:
    """A gateway that follows the VirtualServices of a cluster, on a port that the system chooses."""
    with socket.create_server((NODE_IP, 0)) as chosen:
        port = chosen.getsockname()[1]
    options = (f"--kubeconfig={kubeconfig}", f"--address={NODE_IP}", f"--port={port}", f"--folder={folder}")
    command = [sys.executable, "-m", "tests.cluster.gateway", *options]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said == "ready\n", (folder / "gateway.log").read_text()
        yield Ingress(f"http://{NODE_IP}:{port}", folder)
    finally:
        process.terminate()
        process.communicate(timeout=20)
