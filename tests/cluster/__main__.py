"""`python -m tests.cluster COMMAND...`: run a command beside a Kubernetes node, and leave nothing behind.

The node is made for this command: programs and images are built once and kept in `.tools/cluster`; processes, network,
mounts and containers live in namespaces that end with it. Where `KUBECONFIG` names a cluster, the command just runs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.cluster.cache import TOOLS
from tests.cluster.commands import APART, Failed
from tests.cluster.homes import home
from tests.cluster.images import images
from tests.cluster.needs import missing
from tests.cluster.ours import ours
from tests.cluster.programs import programs
from tests.cluster.unpacked import lend, unpacked

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


def main() -> int:
    """Run the command, and give its exit code; 0 where no node can run here, with the reason."""
    command = sys.argv[1:]
    if os.environ.get("KUBECONFIG"):
        os.execvp(command[0], command)
    why = missing()
    if why:
        print(f"skipped: {why}", file=sys.stderr)
        return 0
    try:
        built = programs()
        archives = images(built)
        own = ours(next(archive for archive in archives if archive.stem == "python"))
        store = unpacked(built, archives, own)
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    signal.signal(signal.SIGINT, _leave_it_to_the_command)
    signal.signal(signal.SIGTERM, _stop)
    with home() as folder:
        (folder / "programs").symlink_to(built)
        (folder / "ours.json").write_text(json.dumps(own))
        lend(store, folder)
        code = _inside(folder, command)
        if code:
            _keep_logs(folder)
        return code


def _inside(folder: Path, command: list[str]) -> int:
    start = (sys.executable, "-m", "tests.cluster.inside", str(folder))
    process = subprocess.Popen([*DIES_WITH_US, *APART, "--net", *start, *command])
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def _keep_logs(folder: Path) -> None:
    kept = TOOLS / "logs"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for log in folder.glob("*.log"):
        shutil.copy(log, kept)
    print(f"the node's logs are in {kept}", file=sys.stderr)


def _leave_it_to_the_command(_number: int, _frame: FrameType | None) -> None: ...


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
