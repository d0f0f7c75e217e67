"""A server of the census model that a module's tests share."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.deployments.server.models import census_model, census_signature, write_config, write_model
from tests.deployments.server.processes import Running, serving


@pytest.fixture(scope="session")
def census_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the census model in `model`, and a configuration that serves it."""
    home = tmp_path_factory.mktemp("census")
    write_config(home, write_model(home / "model", census_model(), census_signature()))
    return home


@pytest.fixture(scope="module")
def server(census_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """A server of the census model, with limits that a test can reach."""
    home = tmp_path_factory.mktemp("server")
    (home / "model").symlink_to(census_home / "model")
    files = json.loads((census_home / "server.json").read_text())["files"]
    with serving(write_config(home, files, max_body_bytes=100_000, request_seconds=2)) as running:
        yield running


@pytest.fixture
def short_path() -> Generator[Path]:
    """A folder whose path is short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as name:
        yield Path(name)
