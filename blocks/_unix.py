"""HTTP over Unix sockets, with a time-out on every call."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any


class Connection(http.client.HTTPConnection):
    """An HTTP connection to the program that listens on the Unix socket `path`."""

    def __init__(self, path: Path, *, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(self.timeout)
        try:
            connected.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            connected.close()
            raise NotListening(str(self._path)) from error
        except OSError:
            connected.close()
            raise
        self.sock = connected


def call(
    path: Path, method: str, target: str, body: bytes = b"", *, content_type: str = "text/plain", seconds: float = 2.0
) -> bytes:
    """The body of a 200 answer.

    Raises:
        NotListening: If nobody listens on the socket `path`.
        OSError: If the listener does not answer within `seconds`, or answers nonsense or another status.
    """
    connection = Connection(path, seconds=seconds)
    try:
        connection.request(method, target, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        data = answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{path.name} gave no HTTP answer to {target}: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise ConnectionError(f"{path.name} answered {answer.status} to {target}")
    return data


def get_json(path: Path, target: str, *, seconds: float = 2.0) -> Any:
    """The JSON document of a 200 answer; raises as `call` does."""
    try:
        return json.loads(call(path, "GET", target, seconds=seconds))
    except ValueError as error:
        raise ConnectionError(f"{path.name} gave no JSON to {target}") from error


class NotListening(ConnectionError):
    """Nobody listens on the socket: the program is down."""
