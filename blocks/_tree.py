"""Files on a disk into a snapshot, and back."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path

from prefect_mlops.blocks import _packing
from prefect_mlops.blocks._backend import CHUNK, Backend
from prefect_mlops.blocks._contents import Contents
from prefect_mlops.blocks._locks import lock_now
from prefect_mlops.blocks._objects import Objects
from prefect_mlops.blocks._packs import Packs
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.release import File, Snapshot

_MANY = 64


def add(objects: Objects, lanes: int, path: Path) -> Snapshot:
    """Keep the file, or all files of the folder, `path`, and the manifest that names them."""
    found = _files(path)
    with ThreadPoolExecutor(lanes, thread_name_prefix="add") as pool:
        return _manifest(objects, found, pool.map(lambda item: _add_file(objects, item[1]), found))


def pack(backend: Backend, packs: Packs, store: str, objects: Objects, path: Path) -> Snapshot:
    """Keep the same in packs, so that only what is new takes space."""
    found = _files(path)
    return _manifest(objects, found, _packing.pack(backend, packs, store, [place for _, place in found]))


def _manifest(objects: Objects, found: list[tuple[str, str]], kept: Iterable[tuple[int, str]]) -> Snapshot:
    """Keep the manifest of files whose content, of that size and digest, is kept."""
    files = [
        {"path": name, "size": size, "digest": digest} for (name, _), (size, digest) in zip(found, kept, strict=True)
    ]
    snapshot = Snapshot.model_validate({"files": sorted(files, key=itemgetter("path"))})
    objects.put(snapshot.canonical())
    return snapshot


def checkout(contents: Contents, snapshot: Snapshot, folder: Path) -> None:
    """Write the files of `snapshot` to the new folder `folder`, which appears whole or not at all."""
    try:
        if _appear(contents, snapshot, folder):
            return
        same = _hashed(folder) == {file.path: file.digest for file in snapshot.files}
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise Invalid(f"the folder {folder}", "can be written", said, "name another, or mend that") from error
    if not same:
        rule = "is new, empty, or holds just this snapshot"
        raise Invalid(f"the folder {folder}", rule, "other files", "name another")


def _appear(contents: Contents, snapshot: Snapshot, folder: Path) -> bool:
    """Write beside `folder`, then rename; False if there is something already, or first."""
    if folder.is_dir() and any(folder.iterdir()):
        return False
    _sweep(folder)
    with _draft(folder) as draft:
        _write(contents, snapshot, draft)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            return False
        _sync(folder.parent)
        return True


def content(contents: Contents, file: File) -> Iterator[bytes]:
    """The bytes of one file of a snapshot; digest and size are checked after the last."""
    size = 0
    for chunk in contents.stream(file.digest):
        size += len(chunk)
        yield chunk
    if size != file.size:
        raise Invalid(f"the size of {file.path} in its snapshot", f"is that of its bytes, {size}", file.size)


def _files(path: Path) -> list[tuple[str, str]]:
    """Path inside the snapshot, and on the disk, of each file."""
    try:
        if not path.is_dir():
            found = [(path.name, str(_plain(path, path.parent)))]
        else:
            found = [(entry.path[len(str(path)) + 1 :], _place(entry, path)) for entry in _walk(path)]
    except OSError as error:
        raise _unreadable(path, error) from error
    if not found:
        raise Invalid(f"the folder {path}", "holds at least one file", "none", "name another")
    for name, place in found:
        _check_name(name, place)
    return found


def _check_name(name: str, place: str) -> None:
    try:
        name.encode()
        plain = "\\" not in name
    except UnicodeEncodeError:
        plain = False
    if not plain:
        rule = "is text in UTF-8 without a backslash"
        raise Invalid(f"the name of the file {os.fsencode(place)!r}", rule, os.fsencode(name), "rename it")


def _walk(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as children:
        for child in sorted(children, key=lambda entry: entry.name):
            if child.is_dir(follow_symlinks=False):
                yield from _walk(child.path)
            else:
                yield child


def _place(entry: os.DirEntry[str], inside: Path) -> str:
    return entry.path if entry.is_file(follow_symlinks=False) else str(_plain(Path(entry.path), inside))


def _plain(path: Path, inside: Path) -> Path:
    """`path` with its links followed, if it is a plain file inside `inside`."""
    real = path.resolve(strict=True)
    if not real.is_relative_to(inside.resolve()):
        raise Invalid(f"the link {path}", f"stays inside {inside}", str(real), "copy the file there")
    if not stat.S_ISREG(real.stat().st_mode):
        raise Invalid(str(path), "is a plain file", _kind(real), "leave it out")
    return real


def _kind(path: Path) -> str:
    mode = path.stat().st_mode
    kinds = {"folder": stat.S_ISDIR, "socket": stat.S_ISSOCK, "pipe": stat.S_ISFIFO}
    return next((name for name, test in kinds.items() if test(mode)), "device")


def _add_file(objects: Objects, path: str) -> tuple[int, str]:
    """Hash first, for the name; then stream under that name what still must have that hash."""
    size, hasher = 0, hashlib.sha256()
    for chunk in _read(path):
        size += len(chunk)
        hasher.update(chunk)
    digest = f"sha256:{hasher.hexdigest()}"
    objects.put_stream(digest, lambda: _unchanged(path, digest))
    return size, digest


def _unchanged(path: str, digest: str) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    for chunk in _read(path):
        hasher.update(chunk)
        yield chunk
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise Invalid(f"the file {path}", "stays as it is while it is added", "a change", "stop what writes to it")


def _read(path: str) -> Iterator[bytes]:
    try:
        with Path(path).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> Invalid:
    return Invalid(str(error.filename or path), "can be read", (error.strerror or str(error)).lower(), "look at it")


@contextmanager
def _draft(folder: Path) -> Generator[Path]:
    """A locked folder beside `folder`, removed in the end unless it was renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = _new_draft(folder)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(descriptor)


def _new_draft(folder: Path) -> tuple[int, Path]:
    while True:
        draft = folder.with_name(f".{folder.name}.draft-{secrets.token_hex(8)}")
        draft.mkdir()
        descriptor = _lock(draft)
        if descriptor is not None and draft.exists():
            return descriptor, draft
        if descriptor is not None:
            os.close(descriptor)  # swept between its creation and its lock


def _sweep(folder: Path) -> None:
    """Remove drafts whose writers were killed."""
    for draft in folder.parent.glob(f".{folder.name}.draft-*"):
        descriptor = _lock(draft)
        if descriptor is not None:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Lock `folder` as a living writer does, until it is closed; None if another has it, or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if lock_now(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _write(contents: Contents, snapshot: Snapshot, draft: Path) -> None:
    for file in snapshot.files:
        target = draft / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            out.writelines(content(contents, file))
    if len(snapshot.files) > _MANY and sys.platform == "linux":
        os.sync()  # it waits there, and is a hundred times as fast as a sync of each
        return
    for folder, _, names in os.walk(draft):
        for path in (*(Path(folder, name) for name in names), Path(folder)):
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hashed(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in _walk(folder):
        with Path(entry.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[Path(entry.path).relative_to(folder).as_posix()] = f"sha256:{digest}"
    return found
