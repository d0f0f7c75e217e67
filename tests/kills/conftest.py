"""A folder of temporary files of which a test knows that only those have any there whom it kills."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kills-"))  # a short path: model servers have sockets in it
    yield folder
    shutil.rmtree(folder)
