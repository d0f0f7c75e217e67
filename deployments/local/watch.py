"""Succeeds the supervisor of a home when it is killed: `python -m prefect_mlops.deployments.local.watch ROOT`."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from prefect_mlops.deployments.local import _process as process

DAEMON = "prefect_mlops.deployments.local.daemon"


def succeed(root: Path) -> int:
    """Wait until the running daemon is gone; unless a stop was meant, start the next one."""
    path = root / "lock"
    while True:
        fd = process.open_lock(path)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if (root / "down").exists() or not root.exists():
            return 0
        if process.is_file(fd, path):
            break
        os.close(fd)
    with (root / "daemon.log").open("ab") as log:
        command = [sys.executable, "-P", "-m", DAEMON, str(root), "--lock", str(fd)]
        subprocess.run(
            command,
            pass_fds=[fd],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        )
    return 0


if __name__ == "__main__":
    sys.exit(succeed(Path(sys.argv[1]).absolute()))
