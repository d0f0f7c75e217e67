"""Locks that live exactly as long as the processes that hold them."""

from __future__ import annotations

import fcntl


def lock_now(descriptor: int) -> bool:
    """Lock the open file, or folder, until it is closed; False if another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
