"""Peers from PyPI, each in a throw-away environment of its own below `.tools/peers`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import Unmeasured

_PEERS = Path(__file__).resolve().parents[2] / ".tools" / "peers"


def peer_python(name: str, packages: list[str]) -> Path:
    """The Python of an environment that holds just `packages`; made anew where they are others than last time.

    Raises:
        Unmeasured: If they cannot be installed here.
    """
    place = _PEERS / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}"
    python, mark = place / "bin" / "python", place / "installed.txt"
    if mark.exists() and mark.read_text() == "\n".join(packages):
        return python
    try:
        _install(place, packages)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unmeasured(f"{name} could not be installed into {place.name}: {error}") from error
    mark.write_text("\n".join(packages))
    return python


def _install(place: Path, packages: list[str]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = str(place / "bin" / "python")
    uv = next(iter(_PEERS.parent.glob("uv/bin/uv")), None) or shutil.which("uv")
    if uv:
        subprocess.run([str(uv), "pip", "install", "--quiet", "--python", python, *packages], check=True)
        return
    subprocess.run([python, "-m", "ensurepip", "--default-pip"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
