"""Objects: bytes under the digest of their content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

from prefect_mlops.blocks._backend import Backend
from prefect_mlops.blocks._canonical import digest
from prefect_mlops.blocks.errors import Invalid, ObjectDamaged, ObjectMissing, StoreUnreachable

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_KEY = re.compile(r"objects/sha256/([0-9a-f]{2})/([0-9a-f]{62})")
PREFIX = "objects/"


def key_of(name: str) -> str:
    """Where the object with the digest `name` is."""
    if not _DIGEST.fullmatch(name):
        raise Invalid("a digest", "is sha256: and 64 lower-case hexadecimal digits", name)
    digits = name.removeprefix("sha256:")
    return f"{PREFIX}sha256/{digits[:2]}/{digits[2:]}"


def digest_of(key: str) -> str | None:
    """The digest that `key` stands for, or None where it is no object's key."""
    match = _KEY.fullmatch(key)
    return f"sha256:{match[1]}{match[2]}" if match else None


class Objects:
    """The objects of one store. What is read is checked against its name."""

    def __init__(self, backend: Backend, store: str) -> None:
        self._backend, self._store = backend, store

    def put(self, data: bytes) -> str:
        """Keep `data`, and return its digest."""
        name = digest(data)
        key = key_of(name)
        if not self._backend.put_new(key, data):
            self._same(key, name)
        return name

    def put_stream(self, name: str, read: Callable[[], Iterable[bytes]]) -> None:
        """Keep the bytes that `read` gives, which must have the digest `name` or raise."""
        key = key_of(name)
        if not self._backend.put_new_stream(key, read()):
            self._same(key, name)

    def get(self, name: str) -> bytes:
        """The bytes with the digest `name`."""
        key = key_of(name)
        data = self._backend.get(key)
        if data is None:
            raise ObjectMissing(self._store, key)
        if digest(data) != name:
            raise ObjectDamaged(self._store, key, digest(data))
        return data

    def stream(self, name: str) -> Iterator[bytes]:
        """The same in pieces; damage is known, and raised, only after the last. Missing ones raise at once."""
        key = key_of(name)
        chunks = self._backend.stream(key)
        if chunks is None:
            raise ObjectMissing(self._store, key)
        return self._checked(name, key, chunks)

    def _checked(self, name: str, key: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        hasher = hashlib.sha256()
        for chunk in chunks:
            hasher.update(chunk)
            yield chunk
        found = f"sha256:{hasher.hexdigest()}"
        if found != name:
            raise ObjectDamaged(self._store, key, found)

    def has(self, name: str) -> bool:
        """Whether there is an object with that name; its bytes are not looked at."""
        return self._backend.has(key_of(name))

    def digests(self) -> Iterator[str]:
        """Every object that a listing shows."""
        return (name for key in self._backend.list(PREFIX) if (name := digest_of(key)))

    def _same(self, key: str, name: str) -> None:
        """What is there already must be what was to be written."""
        try:
            for _ in self.stream(name):
                pass
        except ObjectMissing:
            raise StoreUnreachable(self._store, f"it refuses {key} as taken and has nothing there") from None
