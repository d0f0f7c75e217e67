"""Containerd's store with the images unpacked in it, made once, so that no node spends its start on that.

`python -m tests.cluster.unpacked HOME ARCHIVE...` fills the store of a home, with a containerd that ends with it.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import settings
from tests.cluster.cache import digest, kept
from tests.cluster.commands import APART, Failed, run
from tests.cluster.node import Node

STORE = "containerd"


def unpacked(programs: Path, archives: Sequence[Path]) -> Path:
    """A store that knows the images in the archives, each of which must lie in a folder of `cache.kept`.

    Raises:
        Failed: If containerd does not take one of them.
    """
    key = digest(Path(__file__), *map(str, (programs, *archives)))
    return kept("unpacked", key, lambda folder: _make(folder, programs, archives)) / STORE


def lend(store: Path, home: Path) -> None:
    """Give a home the store; only its databases are copied, since the rest is never written again."""
    try:
        run("cp", "--archive", "--link", store, home / STORE)
    except Failed:  # on another file system
        shutil.rmtree(home / STORE, ignore_errors=True)
        run("cp", "--archive", "--reflink=auto", store, home / STORE)
    for database in store.glob("*/*.db"):
        copy = home / STORE / database.relative_to(store)
        copy.unlink()
        shutil.copy(database, copy)


def _make(folder: Path, programs: Path, archives: Sequence[Path]) -> None:
    home = folder / "home"
    home.mkdir()
    (home / "programs").symlink_to(programs)
    run(*APART, sys.executable, "-m", "tests.cluster.unpacked", home, *archives)
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
