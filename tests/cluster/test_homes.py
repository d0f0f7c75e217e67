"""A node's home goes with whoever uses it, and what a killed process left goes with the next."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import homes
from tests.cluster.node import Node

KILLED = """
import os, signal
from tests.cluster.homes import home
with home() as folder:
    print(folder, flush=True)
    {}
"""


@pytest.fixture
def temporary(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files, for this process and those that it starts."""
    del node  # whose cgroups we may write to
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    homes.sweep()


def made_by(program: str) -> Path:
    """The home that a process of its own makes before it ends."""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    return Path(done.stdout.strip())


def cgroups(folder: Path) -> list[Path]:
    """The cgroups of a home that are there."""
    return [path for path in homes.CGROUPS.glob(f"*/{folder.name}") if path.exists()]


def test_a_home_is_gone_once_it_is_not_used(temporary: Path) -> None:
    with homes.home() as folder:
        assert folder.parent == temporary
        assert cgroups(folder)
    assert not folder.exists()
    assert not cgroups(folder)


def test_what_a_killed_process_left_is_swept(temporary: Path) -> None:
    folder = made_by(KILLED.format("os.kill(os.getpid(), signal.SIGKILL)"))
    (cgroups(folder)[0] / "pod").mkdir()
    (folder / "file").touch()
    with homes.home() as other:
        assert list(temporary.iterdir()) == [other]
    assert not cgroups(folder)


def test_a_home_in_use_is_left_alone(temporary: Path) -> None:
    program = KILLED.format("input()")
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as used:
        assert used.stdout
        folder = Path(used.stdout.readline().strip())
        homes.sweep()
        assert folder.exists()
        assert cgroups(folder)
        used.send_signal(signal.SIGINT)
    assert not folder.exists()
