"""A disk in memory whose power can be cut after any step.

It keeps two truths: what running programs see, and what is on the platter. Bytes get there by a sync of the
file, names by a sync of their folder, and nothing else is promised: what was not synced may be there or not,
each name for itself, and a file's bytes wholly, partly, as zeros or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

_T = TypeVar("_T")


class PowerLoss(BaseException):
    """The machine stops here."""


@dataclass(eq=False)
class File:
    """Bytes as seen, and as synced."""

    seen: bytes = b""
    kept: bytes = b""
    names: int = 0
    locked: bool = False


@dataclass(eq=False)
class Names:
    """A folder's names as seen, and as synced."""

    seen: dict[str, File | Names] = field(default_factory=dict)
    kept: dict[str, File | Names] = field(default_factory=dict)


@dataclass
class PowerDisk:
    """Implements the Disk protocol; stops at step `stop_at`, counted from 0."""

    root: Names = field(default_factory=Names)
    stop_at: int | None = None
    steps: int = 0
    _open: dict[int, tuple[File | Names, int]] = field(default_factory=dict)
    _descriptors: int = 2

    def create(self, path: str) -> int:
        folder, name = self._place(path)
        if name in folder.seen:
            raise FileExistsError(17, "File exists", path)
        file = folder.seen[name] = File(names=1)
        return self._stepped(self._descriptor(file))

    def claim(self, descriptor: int) -> bool:
        file, _ = self._open[descriptor]
        assert isinstance(file, File)
        free, file.locked = not file.locked, True
        return self._stepped(free and file.names > 0)

    def open(self, path: str) -> int:
        return self._descriptor(self._node(path))

    def read(self, descriptor: int, size: int) -> bytes:
        node, at = self._open[descriptor]
        if isinstance(node, Names):
            raise IsADirectoryError(21, "Is a directory")
        self._open[descriptor] = (node, at + size)
        return node.seen[at : at + size]

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        node, _ = self._open[descriptor]
        assert isinstance(node, File)
        return node.seen[offset : offset + size]

    def write(self, descriptor: int, data: memoryview) -> int:
        file, _ = self._open[descriptor]
        assert isinstance(file, File)
        half = max(1, len(data) // 2)  # a system may write less than it was given
        file.seen += bytes(data[:half])
        return self._stepped(half)

    def sync(self, descriptor: int) -> None:
        node, _ = self._open[descriptor]
        if isinstance(node, File):
            node.kept = node.seen
        else:
            node.kept = dict(node.seen)
        self._stepped(None)

    def close(self, descriptor: int) -> None:
        node, _ = self._open.pop(descriptor)
        if isinstance(node, File):
            node.locked = False

    def link(self, source: str, target: str) -> None:
        file, (folder, name) = self._node(source), self._place(target)
        assert isinstance(file, File)
        if name in folder.seen:
            raise FileExistsError(17, "File exists", target)
        folder.seen[name] = file
        file.names += 1
        self._stepped(None)

    def unlink(self, path: str) -> None:
        file, (folder, name) = self._node(path), self._place(path)
        assert isinstance(file, File)
        del folder.seen[name]
        file.names -= 1
        self._stepped(None)

    def make_folder(self, path: str) -> None:
        folder, name = self._place(path)
        if name in folder.seen:
            raise FileExistsError(17, "File exists", path)
        folder.seen[name] = Names()
        self._stepped(None)

    def is_file(self, path: str) -> bool:
        try:
            return isinstance(self._node(path), File)
        except FileNotFoundError:
            return False

    def age(self, path: str) -> float:
        return 0.0

    def scan(self, path: str) -> Iterator[tuple[str, bool]]:
        try:
            node = self._node(path)
        except FileNotFoundError:
            return iter(())
        assert isinstance(node, Names)
        return iter(sorted((name, isinstance(child, Names)) for name, child in node.seen.items()))

    def killed(self) -> PowerDisk:
        """The same disk after its only process was killed: everything written is still seen."""
        for node, _ in self._open.values():
            if isinstance(node, File):
                node.locked = False
        return PowerDisk(self.root)

    def after_power_loss(self, rng: random.Random, luck: float) -> PowerDisk:
        """A disk as the machine may find it: each thing not synced is there with probability `luck`."""
        survivors: dict[int, File | Names] = {}

        def revive(node: File | Names) -> File | Names:
            if id(node) not in survivors:
                survivors[id(node)] = self._bytes(node, rng, luck) if isinstance(node, File) else Names()
                if isinstance(node, Names):
                    self._names(node, survivors[id(node)], rng, luck, revive)
            return survivors[id(node)]

        root = revive(self.root)
        assert isinstance(root, Names)
        return PowerDisk(root)

    @staticmethod
    def _bytes(file: File, rng: random.Random, luck: float) -> File:
        if rng.random() < luck or file.seen == file.kept:
            return File(file.seen, file.seen)
        size = len(file.seen)
        found = rng.choice([file.kept, b"", file.seen[: rng.randint(0, size)], bytes(size)])
        return File(found, found)

    @staticmethod
    def _names(
        node: Names, to: File | Names, rng: random.Random, luck: float, revive: Callable[[File | Names], File | Names]
    ) -> None:
        assert isinstance(to, Names)
        for name in sorted({*node.seen, *node.kept}):
            seen, kept = node.seen.get(name), node.kept.get(name)
            survivor = seen if rng.random() < luck else kept
            if survivor is not None:
                to.seen[name] = to.kept[name] = child = revive(survivor)
                if isinstance(child, File):
                    child.names += 1

    def _stepped(self, result: _T) -> _T:
        if self.steps == self.stop_at:
            raise PowerLoss(self.steps)
        self.steps += 1
        return result

    def _descriptor(self, node: File | Names) -> int:
        self._descriptors += 1
        self._open[self._descriptors] = (node, 0)
        return self._descriptors

    def _place(self, path: str) -> tuple[Names, str]:
        pure = PurePosixPath(path)
        folder = self._node(str(pure.parent))
        assert isinstance(folder, Names)
        return folder, pure.name

    def _node(self, path: str) -> File | Names:
        node: File | Names = self.root
        for part in PurePosixPath(path).parts[1:]:
            if not isinstance(node, Names) or part not in node.seen:
                raise FileNotFoundError(2, "No such file or directory", path)
            node = node.seen[part]
        return node
