"""A node's home: a folder and a cgroup of one name, all that can outlive the node's processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

PREFIX = "mlops-node-"
CGROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def home() -> Generator[Path]:
    """A new home, locked as long as it is in use, and removed with all that is in it."""
    sweep()
    final = Path(tempfile.gettempdir()).resolve() / f"{PREFIX}{secrets.token_hex(4)}"
    folder = final.with_name(f".{final.name}")
    folder.mkdir(mode=0o755)
    with _locked(folder):
        folder.rename(final)  # under this name others find it, and find it locked
        try:
            _make_cgroups(final.name)
            yield final
        finally:
            _remove(final)


def sweep() -> None:
    """Remove the homes that killed processes left."""
    for folder in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(folder):
            _remove(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    for hierarchy in hierarchies():
        _remove_cgroups(hierarchy / folder.name)
    shutil.rmtree(folder)


def hierarchies() -> list[Path]:
    """The root of each cgroup hierarchy: one in version 2, one a controller in version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted({path.resolve() for path in CGROUPS.iterdir() if path.is_dir()})


def _make_cgroups(name: str) -> None:
    """Kubelet keeps its pods' cgroups below one that must be there already."""
    for hierarchy in hierarchies():
        (hierarchy / name).mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / file).exists():
                (hierarchy / name / file).write_text((hierarchy / file).read_text())
        if (hierarchy / "cgroup.controllers").exists():
            _delegate(hierarchy)


def _delegate(hierarchy: Path) -> None:
    for controller in (hierarchy / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")


def _remove_cgroups(top: Path, seconds: float = 10) -> None:
    """Remove a cgroup and those below it; the kernel takes a moment to let go of processes that were killed."""
    deadline = time.monotonic() + seconds
    while top.exists():
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{top} still holds processes after {seconds} s")
        time.sleep(0.02)
