"""Folders for what a task needs only while it runs; what a killed process left is swept by the next one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect_mlops.blocks._locks import lock_now

_PREFIX = "mlops-scratch-"


@contextmanager
def scratch_folder() -> Generator[Path]:
    """A new folder that is removed at the end of the block, or by whoever needs one next if this process is killed.

    It is locked for as long as this process lives. Its path is short, so that a socket's in it fits.
    """
    _sweep()
    folder, descriptor = _claimed()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _claimed() -> tuple[Path, int]:
    """A new folder and what holds its lock; one that was swept before it was locked is not taken."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            if lock_now(descriptor) and folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _sweep() -> None:
    """Remove the folders that nobody holds; those of other users are closed to us, and theirs to remove."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if lock_now(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
