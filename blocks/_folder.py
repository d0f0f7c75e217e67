"""A store's bytes in a folder: durable before they are acknowledged, and never half-written under their name."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from posixpath import dirname

from prefect_mlops.blocks._backend import CHUNK, SCRATCH
from prefect_mlops.blocks._disk import Disk, RealDisk
from prefect_mlops.blocks.errors import StoreRefused, StoreUnreachable

_A_DAY = 86_400.0
_PART = "part-"
_LOCAL = "use a folder on a file system that has hard links and locks, such as ext4, xfs, btrfs, apfs or nfs"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_ADVICE = {
    errno.ENOSPC: "free some space on that disk, then run this again",
    errno.EDQUOT: "free some space in that quota, then run this again",
    errno.EACCES: "give this user the right to read and write there",
    errno.EPERM: "give this user the right to read and write there",
    errno.EROFS: "mount it for writing, or use another folder",
    errno.ENOTDIR: "name a folder",
    errno.EISDIR: "a folder is where a file belongs, move it away",
    errno.ENOTSUP: _LOCAL,
    errno.ENOSYS: _LOCAL,
    errno.ENOLCK: _LOCAL,
    errno.ENAMETOOLONG: "use a shorter path",
}


class Folder:
    """Keys are paths below `root`.

    A new key is written to a file in `tmp/`, synced, and linked to its name, which fails where the
    name is taken; then the folder that holds the name is synced. So a name has all of its bytes or
    is not there, and an acknowledged one survives a power loss.
    """

    lanes = 1

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = str(root)
        self.disk: Disk = disk or RealDisk()
        self._swept = False
        self._durable: set[str] = set()
        self._writer = _boot()

    def put_new(self, key: str, data: bytes) -> bool:
        return self.put_new_stream(key, (data,))

    def put_new_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> bool:
        target = self._path(key)
        with self._told(key):
            self._sweep()
            self._make_durable(dirname(target))
            if self.disk.is_file(target):
                self._sync_folder(dirname(target))  # its writer may have died before it did so
                return False
            return self._link_new(target, chunks)

    def get(self, key: str) -> bytes | None:
        chunks = self.stream(key)
        return None if chunks is None else b"".join(chunks)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        with self._told(key):
            try:
                descriptor = self.disk.open(self._path(key))
            except FileNotFoundError:
                return None
            try:
                return self.disk.read_at(descriptor, length, start)
            finally:
                self.disk.close(descriptor)

    def stream(self, key: str) -> Iterator[bytes] | None:
        with self._told(key):
            try:
                descriptor = self.disk.open(self._path(key))
            except FileNotFoundError:
                return None
        return self._chunks(key, descriptor)

    def has(self, key: str) -> bool:
        with self._told(key):
            return self.disk.is_file(self._path(key))

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        with self._told(prefix or "the folder"):
            for key in self._walk(folder):
                if key.startswith(prefix) and key > after and not key.startswith(SCRATCH):
                    yield os.fsencode(key).decode("utf-8", "backslashreplace")  # strays may have names that are no text

    def folders(self, prefix: str) -> tuple[str, ...]:
        with self._told(prefix):
            return tuple(name for name, is_folder in self.disk.scan(self._path(prefix)) if is_folder)

    def delete(self, key: str) -> None:
        with self._told(key), suppress(FileNotFoundError):
            self.disk.unlink(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def _walk(self, folder: str) -> Iterator[str]:
        for name, is_folder in self.disk.scan(self._path(folder) if folder else self.root):
            key = f"{folder}/{name}" if folder else name
            if is_folder:
                yield from self._walk(key)
            else:
                yield key

    def _chunks(self, key: str, descriptor: int) -> Iterator[bytes]:
        try:
            with self._told(key):
                while chunk := self.disk.read(descriptor, CHUNK):
                    yield chunk
        finally:
            self.disk.close(descriptor)

    def _link_new(self, target: str, chunks: Iterable[bytes | memoryview]) -> bool:
        descriptor, part = self._part()
        try:
            for chunk in chunks:
                self._write(descriptor, memoryview(chunk))
            self.disk.sync(descriptor)
            new = self._link(part, target)
            self._sync_folder(dirname(target))
            return new
        finally:
            with suppress(FileNotFoundError):
                self.disk.unlink(part)
            self.disk.close(descriptor)

    def _link(self, part: str, target: str) -> bool:
        try:
            self.disk.link(part, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise StoreRefused(self.root, "its file system has no hard links", _LOCAL) from error
            raise
        return True

    def _part(self) -> tuple[int, str]:
        """A new file in `tmp/`, locked, so that a sweeper can tell a living writer from a dead one."""
        while True:
            part = self._path(f"{SCRATCH}{_PART}{self._writer}-{secrets.token_hex(8)}")
            descriptor = self.disk.create(part)
            try:
                claimed = self.disk.claim(descriptor)
            except OSError:
                self.disk.unlink(part)
                self.disk.close(descriptor)
                raise
            if claimed:
                return descriptor, part
            self.disk.close(descriptor)  # swept between its creation and its lock

    def _write(self, descriptor: int, data: memoryview) -> None:
        while data:
            data = data[self.disk.write(descriptor, data) :]

    def _make_durable(self, folder: str) -> None:
        """Make `folder` and what leads to it, such that a power loss cannot take it away.

        What another process made is synced too: it may have died before it got so far.
        """
        if folder in self._durable or folder == "/":
            return
        above = dirname(folder)
        self._make_durable(above)
        with suppress(FileExistsError):
            self.disk.make_folder(folder)
        if folder.startswith(f"{self.root}/"):
            self._sync_folder(above)
        else:
            with suppress(OSError):  # a folder above the store may be closed to us, and then nobody just made it
                self._sync_folder(above)
        self._durable.add(folder)

    def _sync_folder(self, folder: str) -> None:
        descriptor = self.disk.open(folder)
        try:
            self.disk.sync(descriptor)
        finally:
            self.disk.close(descriptor)

    def _sweep(self) -> None:
        """Once per process, remove what killed writers left in `tmp/`."""
        if self._swept:
            return
        scratch = self._path(SCRATCH.rstrip("/"))
        self._make_durable(scratch)
        for name, is_folder in self.disk.scan(scratch):
            with suppress(FileNotFoundError):
                if not is_folder:
                    self._sweep_one(name, f"{scratch}/{name}")
        self._swept = True

    def _sweep_one(self, name: str, path: str) -> None:
        """Locks tell the living from the dead on one machine; between machines they may not, so wait a day."""
        if not name.startswith(f"{_PART}{self._writer}-") and self.disk.age(path) < _A_DAY:
            return
        descriptor = self.disk.open(path)
        try:
            if self.disk.claim(descriptor):
                self.disk.unlink(path)
        finally:
            self.disk.close(descriptor)

    @contextmanager
    def _told(self, key: str) -> Generator[None]:
        """Say in one sentence what the operating system said."""
        try:
            yield
        except OSError as error:
            reason = f"{(error.strerror or str(error)).lower()} at {error.filename or key}"
            if error.errno in _ADVICE:
                raise StoreRefused(self.root, reason, _ADVICE[error.errno]) from error
            raise StoreUnreachable(self.root, reason) from error


def _boot() -> str:
    """Names this machine since it started: all processes in which locks on one file exclude each other."""
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        identity = socket.gethostname()
    return identity.replace("-", "").strip()[:12] or "host"
