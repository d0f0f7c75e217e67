"""Ends what still runs of a home: `python -m prefect_mlops.deployments.local.sweep ROOT`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from prefect_mlops.deployments.local import _process as process

STOP_SECONDS = 30.0


def stop(root: Path) -> int:
    """End whatever of `root` still runs, supervised or left behind, and remove its locks and sockets."""
    (root / "down").touch()
    deadline = time.monotonic() + STOP_SECONDS
    programs = sorted((root / "programs").glob("*.lock"))
    stopped = [_end(path, deadline) for path in [root / "lock", *programs]]
    if not all(stopped):
        return 1
    for path in [*(root / "programs").iterdir(), root / "supervisord.conf", root / "lock"]:
        path.unlink(missing_ok=True)
    return 0


def _end(lock: Path, deadline: float) -> bool:
    """SIGTERM the holder of `lock`, SIGKILL it later; whether nobody holds it any more."""
    told, patience = False, min(deadline, time.monotonic() + STOP_SECONDS / 2)
    while (fd := process.take_lock(lock)) is None:
        now = time.monotonic()
        if now > deadline:
            return False
        if now > patience:
            process.signal_holder(lock, signal.SIGKILL)
        elif not told:
            told = process.signal_holder(lock, signal.SIGTERM)
        time.sleep(0.02)
    os.close(fd)
    return True


if __name__ == "__main__":
    sys.exit(stop(Path(sys.argv[1]).absolute()))
