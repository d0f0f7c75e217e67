"""Things that take minutes to make, kept in `.tools/cluster` under a digest of what they are made of."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "cluster"


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
