"""The store as a model server needs it: objects are read by digest, and segments of records are added.

Where its keys are is in docs/format.md. A server only ever creates keys that are named by their content,
so it need not prove, as other writers must, that the place refuses to overwrite.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import orjson

from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._errors import StartRefused, StoreUnavailable

_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/?(.*)")


class Store(Protocol):
    """Keys and bytes."""

    @property
    def url(self) -> str:
        """How people call it."""
        ...

    def get(self, key: str) -> bytes | None:
        """The bytes under `key`, or None where there is nothing.

        Raises:
            StartRefused: If the place is wrong, or does not let this server read.
            StoreUnavailable: If it does not answer now.
        """
        ...

    def create(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, which is named by its content: what is there already is the same.

        Raises:
            StoreUnavailable: If it is not sure that it is kept.
        """
        ...


def connect(config: Config) -> Store | None:
    """The store that `config` names, if it names one; nothing is asked of it yet.

    Raises:
        StartRefused: If that is no place for one.
    """
    if config.store is None:
        return None
    if config.store.startswith("/"):
        return Folder(config.store)
    bucket = _S3.fullmatch(config.store)
    if bucket is None:
        raise StartRefused(f"store must be an absolute folder or s3://bucket/prefix, got {config.store[:200]}")
    from prefect_mlops.deployments.server._bucket import Bucket  # a server with a folder does without obstore

    return Bucket(config.store, bucket[1], bucket[2].strip("/"), config.endpoint, config.region)


def verified(store: Store, digest: str, what: str) -> bytes:
    """The object with `digest`.

    Raises:
        StartRefused: If it is not there, or its bytes have another digest; `what` is how it is called.
        StoreUnavailable: If the store does not answer.
    """
    digits = digest.removeprefix("sha256:")
    key = f"objects/sha256/{digits[:2]}/{digits[2:]}"
    data = store.get(key)
    if data is None:
        raise StartRefused(f"{what} is missing in {store.url}: there is no {key}; nothing was loaded, restore it")
    found = hashlib.sha256(data).hexdigest()
    if found != digits:
        advice = "nothing was loaded, restore the right bytes"
        raise StartRefused(f"{what} is damaged in {store.url}: {key} has the digest sha256:{found}; {advice}")
    return data


def document(store: Store, digest: str, what: str, members: frozenset[str]) -> dict[str, Any]:
    """The JSON object with `digest`, which has at least `members`.

    Raises:
        StartRefused: If it is not there, damaged, or no such document.
        StoreUnavailable: If the store does not answer.
    """
    try:
        found = orjson.loads(verified(store, digest, what))
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not members <= found.keys():
        raise StartRefused(f"{what} {digest} in {store.url} must be a JSON object with {', '.join(sorted(members))}")
    return found


class Folder:
    """A store in a folder, such as a mounted volume.

    Args:
        root: The folder.
    """

    def __init__(self, root: str) -> None:
        self.url, self._root = root, Path(root)

    def get(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError as error:
            if self._root.is_dir():
                return None
            raise StoreUnavailable(f"there is no folder {self.url}") from error
        except OSError as error:
            raise StartRefused(f"{key} in {self.url} cannot be read: {error.strerror}") from error

    def create(self, key: str, data: bytes) -> None:
        """A name appears with all of its bytes, and both are on disk."""
        target, part = self._root / key, self._root / "tmp" / f"part-{uuid4().hex}"
        try:
            _make_durable(part.parent)
            _make_durable(target.parent)
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(part, target)
            _sync(target.parent)
        except OSError as error:
            raise StoreUnavailable(f"{self.url} does not take it: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)


def _make_durable(folder: Path) -> None:
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        _sync(one.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
