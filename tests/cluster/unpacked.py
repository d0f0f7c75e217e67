"""Containerd's store with the images unpacked in it, made once, so that no node spends its start on that.

`python -m tests.cluster.unpacked HOME ARCHIVE...` fills the store of a home, with a containerd that ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.cluster import ours, settings
from tests.cluster.cache import digest, kept
from tests.cluster.commands import APART, run
from tests.cluster.node import Node

STORE = "containerd"
SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs/snapshots"
_LENT = "lent"


def unpacked(programs: Path, archives: Sequence[Path], own: Mapping[str, str]) -> Path:
    """A store that knows the images in the archives, and our own as they were when their packages last changed.

    Args:
        programs: The node's programs.
        archives: Each in a folder of `cache.kept`.
        own: Names of our own images, by kind.

    Raises:
        Failed: If containerd does not take one of them.
    """
    key = digest(Path(__file__), *map(str, (programs, *archives)), *ours.PACKAGES)
    return kept("unpacked", key, lambda folder: _make(folder, programs, archives, own)) / STORE


def lend(store: Path, home: Path) -> None:
    """Give a home all of the store but the snapshots, which `borrow` mounts where nobody else sees it."""
    shutil.copytree(store, home / STORE, ignore=_snapshots, copy_function=_linked, symlinks=True)
    (home / _LENT).symlink_to(store)


def borrow(home: Path) -> None:
    """Mount the snapshots of the store that a home was lent."""
    for snapshot in (home / _LENT / SNAPSHOTS).iterdir():
        place = home / STORE / SNAPSHOTS / snapshot.name
        place.mkdir()
        run("mount", "--bind", snapshot, place)


def _snapshots(folder: str, names: list[str]) -> Iterable[str]:
    return names if folder.endswith(SNAPSHOTS) else ()


def _linked(source: str, target: str) -> None:
    """A database is written to and so copied; nothing else ever is."""
    if not source.endswith(".db"):
        with contextlib.suppress(OSError):  # on another file system
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _make(folder: Path, programs: Path, archives: Sequence[Path], own: Mapping[str, str]) -> None:
    home = folder / "home"
    home.mkdir()
    (home / "programs").symlink_to(programs)
    saved = [home / f"{kind}.tar" for kind in own]
    for name, archive in zip(own.values(), saved, strict=True):
        ours.save(name, archive)
    run(*APART, sys.executable, "-m", "tests.cluster.unpacked", home, *archives, *saved)
    (home / STORE).rename(folder / STORE)
    shutil.rmtree(home)


def main() -> None:
    """Load each archive into the store of a home."""
    home, *archives = map(Path, sys.argv[1:])
    settings.write(home)
    node = Node(home)
    node.start("containerd")
    node.wait_for_containerd()
    for archive in archives:
        node.load(archive)
    node.stop("containerd", signal.SIGTERM)


if __name__ == "__main__":
    main()
