"""Files on a disk into packs: every byte is read once, and only what no pack has is written."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from blake3 import blake3

from prefect_mlops.blocks._backend import Backend
from prefect_mlops.blocks._chunks import chunks
from prefect_mlops.blocks._packs import INDEXES, PACKS, Packs, Piece, foot, index_of, key_of, list_of
from prefect_mlops.blocks.errors import Invalid, ObjectDamaged

PACK = 16 << 20
"""A pack is closed when it holds so many bytes."""

SMALL = 256 << 10
"""A file up to this is one piece; a larger one is cut."""

_UNDER_WAY = 3
_TOGETHER = 64
_JOINED = 512 << 10

Kept = tuple[int, str]
"""Size and digest of a file."""


def pack(backend: Backend, packs: Packs, store: str, paths: Sequence[str]) -> Iterator[Kept]:
    """Keep the content of files, and give the size and the SHA-256 of each, in their order.

    A manifest may name them only when the last one was taken: then all is durable.

    Raises:
        Invalid: If a file cannot be read, or changes while it is read.
    """
    packs.refresh()
    packs.settle()
    with ThreadPoolExecutor(2, "read") as readers, ThreadPoolExecutor(_UNDER_WAY, "pack") as writers:
        packing = _Packing(backend, packs, store, writers)
        waiting: deque[Future[list[_Read]]] = deque()
        for start in range(0, len(paths), _TOGETHER):
            waiting.append(readers.submit(_read_all, paths[start : start + _TOGETHER]))
            if len(waiting) > 4:
                yield from _taken(waiting.popleft().result(), packing, readers)
        while waiting:
            yield from _taken(waiting.popleft().result(), packing, readers)
        packing.finish()


_Read = tuple[str, bytes | None, bytes]


def _read_all(paths: Sequence[str]) -> list[_Read]:
    return [_read(path) for path in paths]


def _read(path: str) -> _Read:
    """A small file whole, with its name; a large one is left for later."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            content = os.read(descriptor, SMALL + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > SMALL:
        return path, None, b""
    return path, content, hashlib.sha256(content).digest()


def _taken(some: list[_Read], packing: _Packing, readers: ThreadPoolExecutor) -> Iterator[Kept]:
    for path, content, name in some:
        if content is None:
            size, whole = _keep_large(path, packing, readers)
            yield size, f"sha256:{whole.hex()}"
        else:
            packing.take(Piece("file", name, len(content)), content)
            yield len(content), f"sha256:{name.hex()}"


def _keep_large(path: str, packing: _Packing, hashers: ThreadPoolExecutor) -> tuple[int, bytes]:
    """Cut a file, keep the parts that are new, and the list of them under the name of the whole."""
    with _opened(path) as (descriptor, size):
        hasher = _Hasher(hashers)
        parts: list[Piece] = []

        def read_into(buffer: memoryview) -> int:
            got = os.readv(descriptor, [buffer])
            hasher.update(buffer[:got])
            return got

        for chunk in chunks(read_into):
            part = Piece("part", blake3(chunk).digest(), len(chunk))
            packing.take(part, chunk)
            parts.append(part)
        name = hasher.digest()
        _need_whole(path, size, sum(part.length for part in parts))
    content = list_of(parts)
    packing.take(Piece("list", name, len(content), blake3(content).digest()), content)
    return size, name


class _Hasher:
    """SHA-256 on another thread, one buffer behind."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool, self._sha = pool, hashlib.sha256()
        self._last: Future[None] | None = None

    def update(self, content: memoryview) -> None:
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(self._sha.update, content)

    def digest(self) -> bytes:
        if self._last is not None:
            self._last.result()
        return self._sha.digest()


class _Packing:
    """Fills packs and writes them, and in the end the index of all."""

    def __init__(self, backend: Backend, packs: Packs, store: str, writers: ThreadPoolExecutor) -> None:
        self._backend, self._packs, self._store, self._writers = backend, packs, store, writers
        self._pieces: list[Piece] = []
        self._contents: list[bytes | memoryview] = []
        self._size = 0
        self._new: set[bytes] = set()
        self._tables: list[bytes] = []
        self._writing: deque[Future[None]] = deque()

    def take(self, piece: Piece, content: bytes | memoryview) -> None:
        """Keep a piece, unless it is known or was taken already."""
        if piece.name in self._new or self._packs.knows(piece.name):
            return
        self._new.add(piece.name)
        self._pieces.append(piece)
        self._contents.append(content)
        self._size += piece.length
        if self._size >= PACK:
            self._close()

    def finish(self) -> None:
        """Have all of it durable, and then found."""
        if self._pieces:
            self._close()
        while self._writing:
            self._writing.popleft().result()
        if self._tables:
            index = index_of(self._tables)
            self._backend.put_new(key_of(INDEXES, hashlib.sha256(index).digest()), index)
            self._packs.refresh()

    def _close(self) -> None:
        table = b"".join([piece.line() for piece in self._pieces])
        self._tables.append(table)
        if len(self._writing) >= _UNDER_WAY:
            self._writing.popleft().result()
        self._writing.append(self._writers.submit(self._write, table, [*self._contents, table, foot(table)]))
        self._pieces, self._contents, self._size = [], [], 0

    def _write(self, table: bytes, contents: list[bytes | memoryview]) -> None:
        key = key_of(PACKS, hashlib.sha256(table).digest())
        if not self._backend.put_new_stream(key, _joined(contents)):
            self._same(key, contents)

    def _same(self, key: str, contents: list[bytes | memoryview]) -> None:
        """What a writer left behind that was killed before it wrote the index must be what was to be written."""
        found, expected = hashlib.sha256(), hashlib.sha256()
        for content in contents:
            expected.update(content)
        for content in self._backend.stream(key) or ():
            found.update(content)
        if found.digest() != expected.digest():
            raise ObjectDamaged(self._store, key, f"sha256:{found.hexdigest()}")


def _joined(contents: list[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in pieces that are worth a system call; large ones are not copied."""
    some: list[bytes | memoryview] = []
    size = 0
    for content in contents:
        if some and size + len(content) > _JOINED:
            yield some[0] if len(some) == 1 else b"".join(some)
            some, size = [], 0
        some.append(content)
        size += len(content)
    yield b"".join(some)


@contextmanager
def _opened(path: str) -> Generator[tuple[int, int]]:
    """A file's descriptor and size; what goes wrong is told with its name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(descriptor)
            yield descriptor, before.st_size
            if os.fstat(descriptor).st_mtime_ns != before.st_mtime_ns:
                _need_whole(path, before.st_size, -1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> Invalid:
    return Invalid(path, "can be read", (error.strerror or str(error)).lower(), "look at it")


def _need_whole(path: str, expected: int, got: int) -> None:
    if got != expected:
        raise Invalid(f"the file {path}", "stays as it is while it is added", "a change", "stop what writes to it")
