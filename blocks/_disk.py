# ruff: noqa: PTH102, PTH113
"""The few system calls that a folder store is made of, behind a protocol, so that tests can cut the power."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from typing import Protocol

from prefect_mlops.blocks._locks import lock_now


class Disk(Protocol):
    """A file system. Every method is one step after which a machine can lose power."""

    def create(self, path: str) -> int:
        """Open a new file for writing; FileExistsError if something is there."""
        ...

    def claim(self, descriptor: int) -> bool:
        """Lock the open file for as long as this process lives and has it open; False if another has it.

        False too if its name is gone: then nobody can find it any more.
        """
        ...

    def open(self, path: str) -> int:
        """Open a file or a folder for reading."""
        ...

    def read(self, descriptor: int, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        ...

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """The bytes from `offset` on, at most `size`."""
        ...

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of `data`, and say how much."""
        ...

    def sync(self, descriptor: int) -> None:
        """Return when the file's bytes, or the folder's names, would survive a power loss."""
        ...

    def close(self, descriptor: int) -> None:
        """Close it, which also gives up its lock."""
        ...

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; FileExistsError if that name is taken."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a name."""
        ...

    def make_folder(self, path: str) -> None:
        """Make one folder; FileExistsError if something is there."""
        ...

    def is_file(self, path: str) -> bool:
        """Whether a plain file has this name."""
        ...

    def age(self, path: str) -> float:
        """Seconds since the file was last written."""
        ...

    def scan(self, path: str) -> Iterator[tuple[str, bool]]:
        """Each name in a folder, sorted, and whether it is a folder; nothing where there is no such folder."""
        ...


class RealDisk:
    """The operating system's own."""

    def create(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def claim(self, descriptor: int) -> bool:
        return lock_now(descriptor) and os.fstat(descriptor).st_nlink > 0

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe must not stop us

    def read(self, descriptor: int, size: int) -> bytes:
        return os.read(descriptor, size)

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        return os.pread(descriptor, size, offset)

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        if hasattr(fcntl, "F_FULLFSYNC"):  # on macOS fsync stops at the drive's own cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        os.mkdir(path)

    def is_file(self, path: str) -> bool:
        return os.path.isfile(path)

    def age(self, path: str) -> float:
        return time.time() - os.stat(path).st_mtime

    def scan(self, path: str) -> Iterator[tuple[str, bool]]:
        try:
            with os.scandir(path) as found:
                names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
        except FileNotFoundError:
            return iter(())
        return iter(names)
