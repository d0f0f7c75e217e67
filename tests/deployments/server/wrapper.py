"""Seldon's own Python wrapper around `ReleasedModel`, for tests and benchmarks."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

CLASS = "prefect_mlops.deployments.server.seldon.ReleasedModel"


def command(config: Path, port: int) -> list[str]:
    """What starts the wrapper on `port`; without gRPC, with which it ignores SIGTERM."""
    parameters = json.dumps([{"name": "config", "value": str(config), "type": "STRING"}])
    program = str(Path(sys.executable).with_name("seldon-core-microservice"))
    options = ["--service-type", "MODEL", "--http-port", str(port), "--grpc-workers", "0", "--metrics-port", "0"]
    return [program, CLASS, *options, "--parameters", parameters]


def environment(home: Path) -> dict[str, str]:
    """What its process needs in its environment beside ours; gunicorn keeps a socket in the home folder."""
    return {
        "HOME": str(home),
        "GUNICORN_ACCESS_LOG": "false",
        "GUNICORN_THREADS": "1",
        "SELDON_LOG_LEVEL": "WARNING",
    }


def free_port() -> int:
    """A port of this machine that was free just now: the wrapper cannot let the system choose."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
