"""Stores of both kinds, each test with one of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from prefect_mlops.blocks.store import Store
from tests.blocks.store.servers import ACCESS, BUCKET, SECRET, s3_server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The url of a real S3-compatible server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server's keys, where boto3 looks first, and nothing of the user's own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture
def bucket_url() -> str:
    """A place in the bucket that no other test uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/store"


@pytest.fixture(params=["folder", "bucket"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store again and again, as other processes would."""
    if request.param == "folder":
        return lambda: Store(url=str(tmp_path / "store"))
    request.getfixturevalue("keys")
    server, url = request.getfixturevalue("s3"), request.getfixturevalue("bucket_url")
    return lambda: Store(url=url, endpoint=server)


@pytest.fixture
def store(connect: Callable[[], Store]) -> Store:
    """An empty store."""
    return connect()
