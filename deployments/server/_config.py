"""The server's configuration: one JSON document, checked before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
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
    "store": (str, type(None)),
    "endpoint": (str, type(None)),
    "region": (str, type(None)),
    "socket": (str, type(None)),
    "host": (str,),
    "port": (int, type(None)),
    "spool": (str,),
    "role": (str, type(None)),
    "max_body_bytes": (int,),
    "request_seconds": (int,),
    "instance": (str,),
}
_DEFAULTS: dict[str, Any] = {
    "namespace": "default",
    "store": None,
    "endpoint": None,
    "region": None,
    "socket": None,
    "host": "127.0.0.1",
    "port": None,
    "role": None,
    "max_body_bytes": 16 * 1024 * 1024,
    "request_seconds": 30,
}
_OF_THE_RELEASE: dict[str, Any] = {"model": "", "folder": "", "files": []}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_WORD = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")


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
        model: Digest that names the model's files; with a store, empty until its release was read.
        folder: Folder that holds these files where there is no store.
        files: The files, each with size and digest; with a store, none until its release was read.
        store: The store that holds the release and gets the records, a folder or `s3://bucket/prefix`, or None.
        endpoint: URL of the S3-compatible server of the store; None: where AWS's own variables say, else AWS.
        region: Region of the bucket; None: where AWS_REGION says, else us-east-1.
        socket: Path of the unix socket to listen on, or None.
        host: Address to listen on where there is no socket.
        port: Port to listen on where there is no socket; 0 lets the system choose.
        spool: Folder for the records of this process.
        role: As what a request is recorded that does not say its role: `shadow`, or None for `live`.
        max_body_bytes: Longest request body.
        request_seconds: How long a request may take to come whole, and an answer to be read.
        instance: Tells apart several processes that serve the same release; the host's name if not given.
    """

    service: str
    namespace: str
    release: str
    model: str
    folder: Path
    files: tuple[ModelFile, ...]
    store: str | None
    endpoint: str | None
    region: str | None
    socket: str | None
    host: str
    port: int | None
    spool: Path
    role: str | None
    max_body_bytes: int
    request_seconds: int
    instance: str

    @classmethod
    def read(cls, argument: str) -> Config:
        """Read the configuration: `argument` is the document itself where it begins with `{`, else its path.

        Raises:
            StartRefused: If it cannot be read, or says something that the server cannot do.
        """
        inline = argument.startswith("{")
        try:
            document = orjson.loads(argument if inline else Path(argument).read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise StartRefused(f"configuration {argument[:200]} cannot be read: {error}") from error
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
        values: dict[str, Any] = {"instance": gethostname(), **_DEFAULTS, **document}
        if values["store"] is not None:
            values = _with_store(values)
        missing = sorted(set(_KNOWN) - set(values))
        _expect(not missing, f"lacks {', '.join(missing)}")
        _check_types(values)
        for key in ("max_body_bytes", "request_seconds"):
            _expect(values[key] > 0, f"{key} must be positive, got {values[key]}")
        _check_names(values)
        _expect(values["role"] in (None, "shadow"), f"role must be null or shadow, got {shown(values['role'])}")
        _check_place(values["socket"], values["port"])
        values["files"] = tuple(map(model_file, values["files"]))
        values["folder"], values["spool"] = Path(values["folder"]), Path(values["spool"])
        return cls(**values)


def _with_store(values: dict[str, Any]) -> dict[str, Any]:
    said = [key for key in _OF_THE_RELEASE if key in values]
    _expect(not said, f"must leave out {', '.join(said)} where there is a store: the release says it")
    return {**values, **_OF_THE_RELEASE}


def _check_types(values: dict[str, Any]) -> None:
    for key, types in _KNOWN.items():
        value = values[key]
        fits = isinstance(value, types) and not isinstance(value, bool)
        _expect(fits, f"{key} must be of type {' or '.join(t.__name__ for t in types)}, got {shown(value)}")


def _check_names(values: dict[str, Any]) -> None:
    """They go into headers, and with a store into keys."""
    if values["store"] is None:
        for key in ("release", "model"):
            value = values[key]
            plain = value.isascii() and value.isprintable() and 0 < len(value) <= 200 and " " not in value
            _expect(plain, f"{key} must be a digest, got {shown(value)}")
        return
    release = values["release"]
    _expect(_DIGEST.fullmatch(release) is not None, f"release must be sha256: and 64 digits, got {shown(release)}")
    for key in ("namespace", "service", "instance"):
        value = values[key]
        _expect(_WORD.fullmatch(value) is not None, f"{key} must be of a-z, 0-9, dots and dashes, got {shown(value)}")


def _check_place(socket: str | None, port: int | None) -> None:
    if socket is None:
        _expect(port is not None and 0 <= port < 65536, f"port must be 0 to 65535 where there is no socket, got {port}")
    else:
        length = len(socket.encode())
        _expect(length <= MAX_SOCKET_BYTES, f"socket must be at most {MAX_SOCKET_BYTES} bytes long, got {length}")


def model_file(item: Any) -> ModelFile:
    """Check one of the model's files, as a configuration or a manifest says it.

    Raises:
        StartRefused: If it is none, or would lie outside the model's folder.
    """
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
