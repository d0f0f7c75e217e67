"""Things that take minutes to make, kept in `.tools/cluster` under a digest of what they are made of."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from tests.cluster.needs import SEARCHED

TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "cluster"


class NotMade(Exception):
    """A program that makes something failed: which, and the last it said."""


def digest(*inputs: Path | str) -> str:
    """Twelve hex digits that change with any text, or any byte of any file, in the order given."""
    parts = (part.encode() if isinstance(part, str) else part.read_bytes() for part in inputs)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]


def kept(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder `NAME-KEY`, which `make` fills if it is not there yet; those of other keys are removed then."""
    folder = TOOLS / f"{name}-{key}"
    TOOLS.mkdir(parents=True, exist_ok=True)
    with FileLock(TOOLS / f"{name}.lock"):
        if not folder.exists():
            print(f"making the node's {name}, once", file=sys.stderr, flush=True)
            for old in TOOLS.glob(f"{name}-*"):
                shutil.rmtree(old)
            partial = TOOLS / f"{name}-partial"
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder


def run(*command: Path | str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What a program prints.

    Raises:
        NotMade: If it fails.
    """
    words = [str(word) for word in command]
    environment = {**os.environ, "PATH": SEARCHED, **(env or {})}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMade(f"`{' '.join(words)}` failed with exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
