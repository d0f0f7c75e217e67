"""Locks that live exactly as long as the processes that hold them. Standard library only: it starts fast."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def open_lock(path: Path) -> int:
    """Open the lock file `path` for the holder's eyes only."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock_now(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take the lock if nobody has it; whether it is ours now."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_file(fd: int, path: Path) -> bool:
    """Whether `path` still leads to the open file `fd`: whoever stops a home unlinks its locks."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def take_lock(path: Path) -> int | None:
    """Hold the lock `path`, or None if another process does."""
    while True:
        fd = open_lock(path)
        if not lock_now(fd):
            os.close(fd)
            return None
        if is_file(fd, path):
            return fd
        os.close(fd)


def write_record(fd: int, **facts: Any) -> None:
    """Write into the lock file that this process holds it."""
    record = json.dumps({"pid": os.getpid(), "started": started(os.getpid()), **facts}).encode()
    os.pwrite(fd, record.ljust(256), 0)
    os.ftruncate(fd, max(256, len(record)))


def read_record(path: Path) -> dict[str, Any]:
    """What the last holder wrote into its lock file; empty if nothing readable."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def started(pid: int) -> str | None:
    """When the process `pid` started, in a form that differs for every later process with its number."""
    if sys.platform != "linux":
        ps = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, text=True, check=False).stdout.strip() or None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else rest[18]


def signal_holder(path: Path, number: int) -> bool:
    """Send a signal to the process group that the record of the lock `path` names; whether one was sent.

    Call it only while the lock is held by someone. A holder whose leader is gone has left
    children behind that still hold the lock: they are killed, since nobody can ask them to stop.
    """
    record = read_record(path)
    pid = record.get("pid")
    if not isinstance(pid, int) or pid <= 1:
        return False
    now = started(pid)
    if now is not None and now != record.get("started"):
        return False
    try:
        os.killpg(pid, number if now is not None else signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True
