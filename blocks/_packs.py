"""Packs: many small things, or the parts of a large one, in one object of the store; and the indexes that find them."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from blake3 import blake3

from prefect_mlops.blocks._backend import Backend
from prefect_mlops.blocks.errors import ObjectDamaged, ObjectMissing

PACKS, INDEXES = "packs/", "indexes/"
FOOT = 13
"""Bytes of the last line of a pack: the length of its table in 12 digits, and a line end."""

RUN = 8 << 20
"""How many bytes of a pack are read at a time."""

Kind = Literal["file", "part", "list"]

_LINE = re.compile(
    rb"(?:(file) sha256|(part) blake3|(list) sha256):([0-9a-f]{64}) (0|[1-9][0-9]{0,11})(?(3) blake3:([0-9a-f]{64}))\n"
)
_PART = re.compile(rb"blake3:([0-9a-f]{64}) ([1-9][0-9]{0,11})\n")
_PACK = re.compile(rb"pack sha256:([0-9a-f]{64}) ([1-9][0-9]{0,11})\n")
_KEY = re.compile(r"(?:packs|indexes)/sha256/([0-9a-f]{2})/([0-9a-f]{62})")


@dataclass(frozen=True, slots=True)
class Piece:
    """What a line of a pack's table says.

    Attributes:
        kind: A whole file, a part of one, or the list of the parts of one.
        name: SHA-256 of the file, or BLAKE3 of the part.
        length: How many bytes of the pack it takes.
        seal: BLAKE3 of a list's own bytes; empty for others, whose name says it.
    """

    kind: Kind
    name: bytes
    length: int
    seal: bytes = b""

    def line(self) -> bytes:
        """The line of the table."""
        algorithm = "blake3" if self.kind == "part" else "sha256"
        seal = f" blake3:{self.seal.hex()}" if self.seal else ""
        return f"{self.kind} {algorithm}:{self.name.hex()} {self.length}{seal}\n".encode()

    def is_right(self, content: bytes | memoryview) -> bool:
        """Whether these are its bytes."""
        if self.kind == "file":
            return hashlib.sha256(content).digest() == self.name
        return blake3(content).digest() == (self.seal or self.name)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece is."""

    pack: str
    offset: int
    piece: Piece


def key_of(room: str, name: bytes) -> str:
    """The key of a pack or an index."""
    digits = name.hex()
    return f"{room}sha256/{digits[:2]}/{digits[2:]}"


def name_of(key: str) -> bytes | None:
    """The digest that a key of a pack or an index stands for; None where it is neither's."""
    match = _KEY.fullmatch(key)
    return bytes.fromhex(match[1] + match[2]) if match else None


def foot(table: bytes) -> bytes:
    """What ends a pack."""
    return f"{len(table):012d}\n".encode()


def pieces(table: bytes) -> list[Piece]:
    """What a table says.

    Raises:
        ValueError: If it is none.
    """
    found = [
        Piece(
            cast("Kind", (match[1] or match[2] or match[3]).decode()),
            bytes.fromhex(match[4].decode()),
            int(match[5]),
            bytes.fromhex((match[6] or b"").decode()),
        )
        for match in _LINE.finditer(table)
    ]
    if not found or b"".join(piece.line() for piece in found) != table:
        raise ValueError("a line of its table is none")
    return found


def list_of(parts: Iterable[Piece]) -> bytes:
    """The bytes of a list of parts."""
    return b"".join(b"blake3:%s %d\n" % (part.name.hex().encode(), part.length) for part in parts)


def parts_of(content: bytes) -> list[Piece]:
    """The parts that a list names.

    Raises:
        ValueError: If it is none.
    """
    found = [Piece("part", bytes.fromhex(match[1].decode()), int(match[2])) for match in _PART.finditer(content)]
    if list_of(found) != content:
        raise ValueError("a line of its list is none")
    return found


def index_of(tables: Iterable[bytes]) -> bytes:
    """The bytes of an index: each table, below a line that names its pack."""
    return b"".join(
        b"pack sha256:%s %d\n%s" % (hashlib.sha256(table).hexdigest().encode(), len(table), table) for table in tables
    )


def tables_of(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name of each pack in an index, and its table.

    Raises:
        ValueError: If it is none.
    """
    at = 0
    while at < len(index):
        match = _PACK.match(index, at)
        table = index[match.end() : match.end() + int(match[2])] if match else b""
        if match is None or hashlib.sha256(table).hexdigest().encode() != match[1]:
            raise ValueError("a table of it does not have its name")
        yield bytes.fromhex(match[1].decode()), table
        at = match.end() + len(table)


class Packs:
    """The packs of one store, as far as its indexes name them. What is read is checked against its name."""

    def __init__(self, backend: Backend, store: str) -> None:
        self._backend, self._store = backend, store
        self._files: dict[bytes, Place] = {}
        self._parts: dict[bytes, Place] = {}
        self._read: set[str] = set()
        self._unsettled: set[str] = set()
        self._lock = threading.RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Packs:
        return self

    def refresh(self) -> None:
        """Read the indexes that were written since."""
        for key in self._backend.list(INDEXES):
            if key not in self._read and name_of(key) is not None:
                self._learn(key)

    def _learn(self, key: str) -> None:
        data = self._backend.get(key)
        if data is None:
            return  # swept since it was listed
        if hashlib.sha256(data).digest() != name_of(key):
            raise ObjectDamaged(self._store, key, f"sha256:{hashlib.sha256(data).hexdigest()}")
        with self._lock:
            for name, table in tables_of(data):
                self.enter(key_of(PACKS, name), pieces(table))
            self._read.add(key)
            self._unsettled.add(key)

    def settle(self) -> None:
        """Make durable the indexes that were read: whoever wrote one may have been killed before it was."""
        with self._lock:
            for key in self._unsettled:
                self._backend.put_new_stream(key, self._again(key))
            self._unsettled.clear()

    def _again(self, key: str) -> Iterator[bytes]:
        yield from self._backend.stream(key) or ()

    def enter(self, pack: str, found: Iterable[Piece]) -> None:
        """Know what is in a pack."""
        offset = 0
        for piece in found:
            (self._parts if piece.kind == "part" else self._files).setdefault(piece.name, Place(pack, offset, piece))
            offset += piece.length

    def has(self, digest: str) -> bool:
        """Whether the file with that digest is in packs; its bytes are not looked at."""
        if not self.has_read(digest):
            self.refresh()
        return self.has_read(digest)

    def has_read(self, digest: str) -> bool:
        """The same, going by the indexes that were read so far."""
        return _bytes(digest) in self._files

    def knows(self, name: bytes) -> bool:
        """Whether an index that was read names a part, or a file, of that name."""
        return name in self._parts or name in self._files

    def stream(self, digest: str) -> Iterator[bytes]:
        """The bytes of a file that is there, in pieces; the whole is checked after the last."""
        place = self._files[_bytes(digest)]
        if place.piece.kind == "file":
            yield from self._pieces([place])
            return
        hasher = hashlib.sha256()
        for part in self._pieces(self._places(digest)):
            hasher.update(part)
            yield part
        if (found := f"sha256:{hasher.hexdigest()}") != digest:
            raise ObjectDamaged(self._store, place.pack, found)

    def parts(self, digest: str) -> list[Piece]:
        """What a large file that is there is made of."""
        place = self._files[_bytes(digest)]
        (content,) = self._pieces([place])
        try:
            return parts_of(content)
        except ValueError as error:
            raise ObjectDamaged(self._store, place.pack, str(error)) from error

    def _places(self, digest: str) -> list[Place]:
        parts = self.parts(digest)
        if not all(part.name in self._parts for part in parts):
            self.refresh()
        for part in parts:
            if part.name not in self._parts:
                raise ObjectMissing(self._store, f"a part of {digest} in any pack (blake3:{part.name.hex()})")
        return [self._parts[part.name] for part in parts]

    def _pieces(self, places: list[Place]) -> Iterator[bytes]:
        """Their bytes, each checked; what lies side by side is read at once."""
        for run in _runs(places):
            data = self._range(run)
            at = 0
            for place in run:
                content = data[at : at + place.piece.length]
                at += place.piece.length
                if not place.piece.is_right(content):
                    raise ObjectDamaged(self._store, place.pack, f"another piece at {place.offset}")
                yield content

    def _range(self, run: list[Place]) -> bytes:
        length = sum(place.piece.length for place in run)
        data = self._backend.get_range(run[0].pack, run[0].offset, length) if length else b""
        if data is None:
            raise ObjectMissing(self._store, run[0].pack)
        if len(data) != length:
            raise ObjectDamaged(self._store, run[0].pack, "fewer bytes than its table says")
        return data


def _bytes(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))


def _runs(places: list[Place]) -> Iterator[list[Place]]:
    run: list[Place] = []
    size = 0
    for place in places:
        joins = run and (place.pack, place.offset) == (run[-1].pack, run[-1].offset + run[-1].piece.length)
        if run and not (joins and size + place.piece.length <= RUN):
            yield run
            run, size = [], 0
        run.append(place)
        size += place.piece.length
    if run:
        yield run
