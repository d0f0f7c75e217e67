"""Starts one program so that it outlives its supervisor: `python -m prefect_mlops.deployments.local.keep SPEC`.

The keeper takes a lock, writes its process id into it and becomes the program (exec), which
inherits the lock. If the lock is held, the program already runs, left behind by a supervisor
that was killed: then the keeper stands in for it. It waits for the lock, passes SIGTERM on,
and becomes the program itself should the running one die. So a new supervisor adopts what
runs, and no request is lost.

The program's output goes to a file, never to a pipe of the supervisor, which would break with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from prefect_mlops.deployments.local import _process as process

CONFIGURATION_ERROR = 78
MOST_FILES = 65536


def main(arguments: list[str]) -> None:
    """Become the program that the file SPEC describes, or stand in for it."""
    path = Path(arguments[0]).absolute()
    spec: dict[str, Any] = json.loads(path.read_bytes())
    _log_to(Path(spec["log"]))
    lock = path.with_suffix(".lock")
    fd = process.open_lock(lock)
    if not process.lock_now(fd):
        _StandIn(lock, spec).wait(fd)
    if not process.is_file(fd, lock):
        sys.exit("this program's lock was removed: its home was stopped")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if spec.get("claim"):
        _claim(Path(spec["claim"]["file"]), spec["claim"]["owner"])
    process.write_record(fd)
    os.set_inheritable(fd, True)
    _become(spec)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)


def _become(spec: dict[str, Any]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    os.chdir(spec["cwd"])
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


class _StandIn:
    """Waits for a program that runs already, and passes on what its supervisor says."""

    def __init__(self, lock: Path, spec: dict[str, Any]) -> None:
        self._lock = lock
        self._stop_seconds = float(spec["stop_seconds"])
        self._deadline: float | None = None
        self._told = False
        self._stopping = False
        self._replace = not spec["keep"]

    def wait(self, fd: int) -> None:
        """Return once the program is gone and the lock is ours; exit if a stop was asked for."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGALRM, self._tick)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.5)
        if self._replace:
            self._end()
        fcntl.flock(fd, fcntl.LOCK_EX)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._stopping or not self._supervised():
            sys.exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    @staticmethod
    def _supervised() -> bool:
        """Whether the supervisor still lives that started this keeper; the next one starts its own."""
        return os.environ.get("PREFECT_MLOPS_SUPERVISOR") == str(os.getppid())

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._end()

    def _end(self) -> None:
        self._deadline = time.monotonic() + self._stop_seconds
        self._told = False
        self._tick()

    def _tick(self, *_: object) -> None:
        if not self._stopping and not self._supervised():
            sys.exit(0)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            process.signal_holder(self._lock, signal.SIGKILL)
        elif self._deadline is not None and not self._told:
            self._told = process.signal_holder(self._lock, signal.SIGTERM)
        else:
            process.signal_holder(self._lock, 0)


def _claim(path: Path, owner: str) -> None:
    """Hold `path` together with other programs of `owner`, or refuse to start."""
    fd = process.open_lock(path)
    if process.lock_now(fd):
        os.ftruncate(fd, 0)
        os.pwrite(fd, owner.encode(), 0)
    fcntl.flock(fd, fcntl.LOCK_SH)
    found = os.pread(fd, 4096, 0).decode(errors="replace")
    if found != owner or not process.is_file(fd, path):
        sys.stderr.write(f"{path.name} is taken by {found}, wanted by {owner}; stop that or choose another\n")
        sys.exit(CONFIGURATION_ERROR)
    os.set_inheritable(fd, True)


if __name__ == "__main__":
    main(sys.argv[1:])
