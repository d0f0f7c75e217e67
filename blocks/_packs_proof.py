"""Proof that packs and indexes are what their names say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from prefect_mlops.blocks._backend import Backend
from prefect_mlops.blocks._packs import FOOT, INDEXES, PACKS, Packs, Piece, key_of, name_of, pieces, tables_of
from prefect_mlops.blocks.errors import ObjectDamaged, ObjectMissing


@dataclass
class Proof:
    """Reads every byte of every pack and index, and says which are not as they were written.

    Attributes:
        files: Digests of the files that are whole and found through an index, or are in a pack that was named.
        keys: How many packs and indexes were read.
    """

    backend: Backend
    store: str
    files: set[str] = field(default_factory=set[str])
    keys: int = 0
    _sound: set[str] = field(default_factory=set[str])
    _lost: set[bytes] = field(default_factory=set[bytes])

    def faults(self) -> Iterator[tuple[str, str]]:
        """Each key that is damaged or missing, and what is wrong with it."""
        for key in self.backend.list(PACKS):
            if name_of(key) is not None:
                yield from self._pack(key)
        packs = Packs(self.backend, self.store)
        found: dict[str, list[Piece]] = {}
        for key in self.backend.list(INDEXES):
            if name_of(key) is not None:
                yield from self._index(key, packs, found)
        yield from self._files(packs, found)

    def _pack(self, key: str) -> Iterator[tuple[str, str]]:
        self.keys += 1
        try:
            _check(*_parted(key, self.backend.get(key) or b""))
        except ValueError as error:
            yield key, str(error)
        else:
            self._sound.add(key)

    def _index(self, key: str, packs: Packs, found: dict[str, list[Piece]]) -> Iterator[tuple[str, str]]:
        self.keys += 1
        data = self.backend.get(key) or b""
        if hashlib.sha256(data).digest() != name_of(key):
            yield key, "its bytes do not have its digest"
            return
        try:
            tables = list(tables_of(data))
        except ValueError as error:
            yield key, str(error)
            return
        for name, table in tables:
            pack = key_of(PACKS, name)
            found[pack] = pieces(table)
            if pack in self._sound:
                packs.enter(pack, found[pack])
                continue
            self._lost.update(piece.name for piece in found[pack])
            if not self.backend.has(pack):
                yield pack, f"missing, though it is named by {key}"

    def _files(self, packs: Packs, found: dict[str, list[Piece]]) -> Iterator[tuple[str, str]]:
        """Each file that cannot be put together for another reason than a pack that was named already."""
        for pack, there in found.items():
            for piece in there:
                digest = f"sha256:{piece.name.hex()}"
                try:
                    if piece.kind == "list" and pack in self._sound and not self._is_lost(packs, digest):
                        for _ in packs.stream(digest):
                            pass
                except (ObjectDamaged, ObjectMissing) as error:
                    yield pack, f"the file {digest} cannot be put together: {error}"
                    continue
                if piece.kind != "part":
                    self.files.add(digest)

    def _is_lost(self, packs: Packs, digest: str) -> bool:
        return any(part.name in self._lost for part in packs.parts(digest))


def _parted(key: str, data: bytes) -> tuple[bytes, bytes]:
    """The table of a pack, and the bytes before it."""
    foot = data[-FOOT:]
    if len(foot) != FOOT or not foot[:-1].isdigit() or foot[-1:] != b"\n":
        raise ValueError("it does not end with the length of its table")
    end = len(data) - FOOT
    table = data[max(0, end - int(foot)) : end]
    if hashlib.sha256(table).digest() != name_of(key):
        raise ValueError("its table does not have its digest")
    return table, data[: end - len(table)]


def _check(table: bytes, content: bytes) -> None:
    """Whether `content` is what `table` says, piece by piece."""
    at = 0
    for piece in pieces(table):
        if not piece.is_right(content[at : at + piece.length]):
            raise ValueError(f"its piece at {at} is not {piece.line().decode().strip()}")
        at += piece.length
    if at != len(content):
        raise ValueError(f"its pieces have {at} bytes, and it has {len(content)}")
