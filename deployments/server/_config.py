"""The server's configuration: one JSON document, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from prefect_mlops.deployments.server._errors import StartRefused, shown

MAX_SOCKET_BYTES = 90
_KNOWN: dict[str, tuple[type, ...]] = {
    "service": (str,),
    "namespace": (str,),
    "release": (str,),
    "model": (str,),
    "folder": (str,),
    "files": (list,),
    "socket": (str, type(None)),
    "host": (str,),
    "port": (int, type(None)),
    "spool": (str,),
    "max_body_bytes": (int,),
    "request_seconds": (int,),
    "instance": (str,),
}
_DEFAULTS: dict[str, Any] = {
    "namespace": "default",
    "socket": None,
    "host": "127.0.0.1",
    "port": None,
    "max_body_bytes": 16 * 1024 * 1024,
    "request_seconds": 30,
    "instance": "0",
}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of the model: path inside the folder, length in bytes, digest of the bytes."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Config:
    """What is served, where, and where its records go.

    Attributes:
        service: Name of the service.
        namespace: Its namespace in Seldon's paths.
        release: Digest of the release document.
        model: Digest that names the model's files.
        folder: Folder that holds these files.
        files: The files, each with size and digest.
        socket: Path of the unix socket to listen on, or None.
        host: Address to listen on where there is no socket.
        port: Port to listen on where there is no socket; 0 lets the system choose.
        spool: Folder for the records of this process.
        max_body_bytes: Longest request body.
        request_seconds: How long a request may take to come whole, and an answer to be read.
        instance: Tells apart several processes that serve the same release.
    """

    service: str
    namespace: str
    release: str
    model: str
    folder: Path
    files: tuple[ModelFile, ...]
    socket: str | None
    host: str
    port: int | None
    spool: Path
    max_body_bytes: int
    request_seconds: int
    instance: str

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read the configuration at `path`.

        Raises:
            StartRefused: If it cannot be read, or says something that the server cannot do.
        """
        try:
            document = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise StartRefused(f"configuration {path} cannot be read: {error}") from error
        return cls.parse(document)

    @classmethod
    def parse(cls, document: Any) -> Config:
        """Check `document` and fill in what it leaves out.

        Raises:
            StartRefused: If a key is unknown, missing or of the wrong type, or a value is not possible.
        """
        _expect(isinstance(document, dict), f"must be a JSON object, got {shown(document)}")
        unknown = sorted(set(document) - set(_KNOWN))
        _expect(not unknown, f"has keys that are not known: {', '.join(unknown)}")
        values = {**_DEFAULTS, **document}
        missing = sorted(set(_KNOWN) - set(values))
        _expect(not missing, f"lacks {', '.join(missing)}")
        for key, types in _KNOWN.items():
            value = values[key]
            fits = isinstance(value, types) and not isinstance(value, bool)
            _expect(fits, f"{key} must be of type {' or '.join(t.__name__ for t in types)}, got {shown(value)}")
        for key in ("max_body_bytes", "request_seconds"):
            _expect(values[key] > 0, f"{key} must be positive, got {values[key]}")
        for key in ("release", "model"):  # they go into headers
            value = values[key]
            plain = value.isascii() and value.isprintable() and 0 < len(value) <= 200 and " " not in value
            _expect(plain, f"{key} must be a digest, got {shown(value)}")
        _check_place(values["socket"], values["port"])
        values["files"] = tuple(_file(item) for item in values["files"])
        values["folder"], values["spool"] = Path(values["folder"]), Path(values["spool"])
        return cls(**values)


def _check_place(socket: str | None, port: int | None) -> None:
    if socket is None:
        _expect(port is not None and 0 <= port < 65536, f"port must be 0 to 65535 where there is no socket, got {port}")
    else:
        length = len(socket.encode())
        _expect(length <= MAX_SOCKET_BYTES, f"socket must be at most {MAX_SOCKET_BYTES} bytes long, got {length}")


def _file(item: Any) -> ModelFile:
    _expect(isinstance(item, dict), f"files must hold objects, got {shown(item)}")
    path, size, digest = item.get("path"), item.get("size"), item.get("digest")
    inside = isinstance(path, str) and not {"", ".", ".."} & set(path.split("/")) and "\0" not in path
    _expect(inside, f"path of a file must stay inside the folder, got {shown(path)}")
    _expect(type(size) is int, f"size of {path} must be an integer, got {shown(size)}")
    _expect(isinstance(digest, str), f"digest of {path} must be a string, got {shown(digest)}")
    return ModelFile(path, size, digest)


def _expect(fact: bool, rule: str) -> None:
    if not fact:
        raise StartRefused(f"the server's configuration {rule}")
