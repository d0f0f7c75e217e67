"""What a store needs of the place that keeps its bytes: so little that a folder and a bucket both have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

CHUNK = 1 << 20
"""How many bytes are held at a time while a file streams."""

SCRATCH = "tmp/"
"""Keys below this are unfinished work, no part of what the store holds."""


class Backend(Protocol):
    """Keys and bytes. A key is written once and never changes.

    Everything raises StoreUnreachable where it is not known what happened, and StoreRefused where
    nothing happened and nothing will until somebody changes something.
    """

    @property
    def lanes(self) -> int:
        """How many requests are worth having under way at once."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Write `data` under `key` unless something is there.

        True: this call wrote it, and it is durable. False: something is there, and it is durable
        (perhaps this call's own bytes, where an answer was lost and the request sent again).
        """
        ...

    def put_new_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> bool:
        """The same for bytes that come in pieces; if `chunks` raises, nothing is written."""
        ...

    def get(self, key: str) -> bytes | None:
        """The bytes under `key`, or None where there is nothing."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """`length` bytes under `key` from `start` on, fewer where it ends before, or None where there is nothing."""
        ...

    def stream(self, key: str) -> Iterator[bytes] | None:
        """The same in pieces."""
        ...

    def has(self, key: str) -> bool:
        """Whether something is under `key`."""
        ...

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Every key that begins with `prefix` and sorts behind `after`, sorted, without scratch.

        It may lag behind what was written.
        """
        ...

    def folders(self, prefix: str) -> tuple[str, ...]:
        """What follows `prefix`, which ends with a slash, in keys that go on after another one, up to that."""
        ...

    def delete(self, key: str) -> None:
        """Remove a scratch key."""
        ...
