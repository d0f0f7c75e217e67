"""Running programs to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin"
"""Also where an ordinary user's PATH does not lead."""

APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Before a command: what it mounts and starts ends with it."""


class Failed(Exception):
    """A program failed: which, how, and the last it said."""


def found(name: str) -> str | None:
    """The path of a program, if it is here."""
    return shutil.which(name, path=SEARCHED)


def run(
    *command: Path | str, cwd: Path | None = None, env: Mapping[str, str] | None = None, aloud: bool = False
) -> str:
    """What a program prints; aloud, its complaints and its progress are for whoever waits.

    Raises:
        Failed: If it ends with anything but 0.
    """
    words = [str(word) for word in command]
    told = {**os.environ, "PATH": SEARCHED, **(env or {})}
    hears = None if aloud else subprocess.PIPE
    done = subprocess.run(words, cwd=cwd, env=told, stdout=subprocess.PIPE, stderr=hears, text=True, check=False)
    if done.returncode:
        last = "see above" if aloud else done.stderr[-2000:]
        raise Failed(f"`{' '.join(words)}` failed with exit code {done.returncode}: {last}")
    return done.stdout
