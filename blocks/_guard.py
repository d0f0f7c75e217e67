"""What stands between a store and its backend: proof that writes are create-only, and the store's identity."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from prefect_mlops.blocks._backend import SCRATCH, Backend
from prefect_mlops.blocks._canonical import canonical, digest
from prefect_mlops.blocks.errors import ObjectDamaged, StoreError, StoreRefused, StoreUnreachable

IDENTITY = "store.json"
"""The key of the one document that says which store this is."""

_ID = re.compile(r"[0-9a-f]{32}")


class Guard:
    """A backend that must prove itself before its first write."""

    def __init__(self, backend: Backend, store: str) -> None:
        self._backend, self._store = backend, store
        self._id: str | None = None
        self._proven = False
        self._lock = threading.RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        return self

    @property
    def lanes(self) -> int:
        return self._backend.lanes

    def put_new(self, key: str, data: bytes) -> bool:
        self._get_ready()
        return self._backend.put_new(key, data)

    def put_new_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> bool:
        self._get_ready()
        return self._backend.put_new_stream(key, chunks)

    def get(self, key: str) -> bytes | None:
        return self._backend.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        return self._backend.get_range(key, start, length)

    def stream(self, key: str) -> Iterator[bytes] | None:
        return self._backend.stream(key)

    def has(self, key: str) -> bool:
        return self._backend.has(key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        return self._backend.list(prefix, after)

    def folders(self, prefix: str) -> tuple[str, ...]:
        return self._backend.folders(prefix)

    def delete(self, key: str) -> None:
        self._backend.delete(key)

    def identity(self) -> str:
        """The store's id; an empty place becomes a store.

        Raises:
            StoreRefused: If the place overwrites what is there, or holds things but no identity.
            ObjectDamaged: If the identity's bytes are not what was written.
        """
        with self._lock:  # the threads of one process must not race each other to be first
            if self._id is None:
                self._id = self._read() or self._create()
            return self._id

    def _get_ready(self) -> None:
        """Read first: the proof's puts then make durable what was read, whoever wrote it."""
        with self._lock:
            self.identity()
            self._prove()

    def _prove(self) -> None:
        """Nothing here is safe on a server that answers "created" and overwrites; some do."""
        if self._proven:
            return
        key = f"{SCRATCH}proof-{secrets.token_hex(8)}"
        self._backend.put_new(key, b"first")
        kept = self._backend.get(key) == b"first"
        refused = not self._backend.put_new(key, b"second")
        unchanged = self._backend.get(key) == b"first"
        with suppress(StoreError):  # keys that may not delete are a good idea, and leave a scratch key behind
            self._backend.delete(key)
        if not (kept and refused and unchanged):
            raise StoreRefused(
                self._store,
                "it overwrites what is there, although asked to create only",
                "use a folder, or a server that honours If-None-Match (versitygw does with --sidecar)",
            )
        self._proven = True

    def _read(self) -> str | None:
        data = self._backend.get(IDENTITY)
        if data is None:
            return None
        line, _, rest = data.partition(b"\n")
        if rest != hashlib.sha256(line).hexdigest().encode() + b"\n":
            raise ObjectDamaged(self._store, IDENTITY, digest(line))
        document = json.loads(line)
        match document:
            case {"format": 1, "hash": "sha256", "id": str(identity)} if _ID.fullmatch(identity):
                return identity
            case _:
                advice = "use the version of this library that wrote it"
                raise StoreRefused(self._store, f"{IDENTITY} says {line.decode()}", advice)

    def _create(self) -> str:
        if next(self._backend.list(""), None) is not None and self._read() is None:
            raise StoreRefused(
                self._store,
                f"it holds things but no {IDENTITY}",
                f"restore {IDENTITY} from a copy, or use an empty place for a new store",
            )
        self._prove()
        line = canonical({"format": 1, "hash": "sha256", "id": secrets.token_hex(16)})
        self._backend.put_new(IDENTITY, line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n")
        identity = self._read()  # ours, or that of whoever was first
        if identity is None:
            raise StoreUnreachable(self._store, f"it accepted {IDENTITY} and does not have it")
        return identity
