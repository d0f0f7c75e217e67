"""A program that writes to a store and says what was acknowledged; for tests that kill it.

For each line `begin` on its input it forks a process that appends and puts, one line per acknowledgement,
until it is killed.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

from prefect_mlops.blocks._canonical import digest
from prefect_mlops.blocks.store import Store


def content(number: int) -> bytes:
    """What the entry `number` says: several pages of it, so that half of it would show."""
    return f"entry {number} ".encode() * 2000


def write(folder: Path) -> None:
    store = Store(url=str(folder))
    journal = store.journal("log/local")
    for number in count(sum(1 for _ in journal.entries())):
        name = store.put(b"object " + content(number))
        assert journal.append(number, content(number))
        os.write(1, f"ack {number} {name}\n".encode())


def main() -> None:
    os.write(1, b"ready\n")
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            write(Path(sys.argv[1]))
        os.write(1, f"pid {child}\n".encode())
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main()

__all__ = ["content", "digest"]
