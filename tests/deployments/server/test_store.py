"""A server that takes its release from a store, and takes its records there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prefect_mlops.blocks.store import Store
from tests.blocks.store.servers import (
    ACCESS,
    ANSWER_503,
    BUCKET,
    DROP_ANSWER,
    PASS,
    SECRET,
    Proxy,
    free_port,
    proxied,
    s3_server,
)
from tests.deployments.server.models import census, census_model, census_rows, census_signature
from tests.deployments.server.processes import Running, refused, serving, until
from tests.deployments.server.releases import put_release, write_store_config
from tests.deployments.server.test_start import SIGNATURE, Tattler

ROWS = census_rows(3)
ASK = {"data": {"ndarray": ROWS}}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The url of a real S3-compatible server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's keys, as a pod gets them from a Secret."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of either kind."""
    if request.param == "folder":
        return Store(url=str(tmp_path / "store"))
    request.getfixturevalue("keys")
    return _bucket(request.getfixturevalue("s3"))


def _bucket(endpoint: str) -> Store:
    return Store(url=f"s3://{BUCKET}/{uuid.uuid4().hex}", endpoint=endpoint)


def _kept(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Rows of every segment in the store, by key; each key says what is in it."""
    keys = list(store._guarded.list("records/"))
    data = {key: store._guarded.get(key) or b"" for key in keys}
    assert all(hashlib.sha256(data[key]).hexdigest() in key for key in keys)
    return {key: pq.read_table(io.BytesIO(data[key])).to_pylist() for key in keys}


def _ids(store: Store) -> list[str]:
    return sorted(row["request_id"] for rows in _kept(store).values() for row in rows)


def _ask(server: Running) -> str:
    answer = server.post(ASK)
    assert answer.status_code == 200
    return answer.headers["x-request-id"]


def test_a_release_is_served_from_the_store_and_its_records_go_there(store: Store, tmp_path: Path) -> None:
    release = put_release(store, tmp_path, census_model(), census_signature())
    shutil.rmtree(tmp_path / "model")
    model = store.release(release).model
    with serving(write_store_config(tmp_path / "pod", store, release, role="shadow"), inline=True) as server:
        ready = server.client.get("/ready").json()
        answer = server.post(ASK)
        _ask(server)
        until(lambda: _kept(store))
        until(lambda: not list((tmp_path / "pod" / "spool").glob("segment-*")))
        assert server.stop() == 0
    here = {"release": release, "model": model, "instance": socket.gethostname()}
    assert ready == {"pid": server.process.pid, **here}
    assert answer.json()["data"]["ndarray"] == census_model().predict_proba(census(3, seed=1)).tolist()
    kept = _kept(store)
    assert all(key.startswith(f"records/mlops/credit/{socket.gethostname()}/segment-20") for key in kept)
    rows = [row for rows in kept.values() for row in rows]
    assert len(rows) == 2
    assert all({**row, **here, "role": "shadow", "namespace": "mlops"} == row for row in rows)
    assert list((tmp_path / "pod" / "spool").iterdir()) == []


def test_what_is_named_wrongly_is_refused(tmp_path: Path) -> None:
    store = Store(url=str(tmp_path / "store"))
    release = put_release(store, tmp_path, Tattler(str(tmp_path / "unpickled")), SIGNATURE, service="other")
    for change, sentence in [
        ({}, f"release {release} is for other, not for credit"),
        ({"folder": "/model"}, "must leave out folder where there is a store"),
        ({"release": "sha256:1"}, "release must be sha256: and 64 digits"),
        ({"store": "store"}, "store must be an absolute folder or s3://bucket/prefix, got store"),
        ({"instance": "../pod"}, "instance must be of a-z"),
        ({"role": "warm"}, "role must be null or shadow"),
        ({"release": store.put(b"{}")}, "must be a JSON object with model, service"),
    ]:
        code, words = refused(write_store_config(tmp_path, store, release, **change))
        assert (code, sentence in words) == (os.EX_CONFIG, True), words
    assert not (tmp_path / "unpickled").exists()


def _parts(store: Store, release: str) -> dict[str, str]:
    """The digest of everything that a server reads of a release."""
    model = store.release(release).model
    files = {file.path: file.digest for file in store.snapshot(model).files}
    return {"the release": release, "the model's manifest": model, **files}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes() + b"\n")])
def test_what_is_missing_or_damaged_is_named_before_anything_is_unpickled(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    mark, store = tmp_path / "unpickled", Store(url=str(tmp_path / "store"))
    release = put_release(store, tmp_path, Tattler(str(mark)), SIGNATURE)
    for name, digest in _parts(store, release).items():
        digits = digest.removeprefix("sha256:")
        path = tmp_path / "store" / "objects" / "sha256" / digits[:2] / digits[2:]
        whole = path.read_bytes()
        damage(path)
        code, words = refused(write_store_config(tmp_path, store, release))
        path.write_bytes(whole)
        assert (code, len(words.splitlines())) == (os.EX_CONFIG, 1)
        assert name in words
        assert digits[2:] in words
    assert not mark.exists()


@pytest.mark.usefixtures("keys")
def test_a_store_that_cannot_be_reached_now_is_told_from_one_that_is_wrong(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = "sha256:" + "1" * 64

    def tried(store: Store) -> tuple[int, str]:
        code, words = refused(write_store_config(tmp_path, store, release))
        assert "Traceback" not in words
        return code, words

    code, words = tried(Store(url=f"s3://{BUCKET}/x", endpoint=f"http://127.0.0.1:{free_port()}"))
    assert (code, "connection refused" in words.lower()) == (os.EX_TEMPFAIL, True), words
    code, words = tried(Store(url=str(tmp_path / "not-mounted")))
    assert (code, "there is no folder" in words) == (os.EX_TEMPFAIL, True), words
    code, words = tried(Store(url=f"s3://{BUCKET}/x", endpoint=s3))
    assert (code, "the release is missing" in words) == (os.EX_CONFIG, True), words
    code, words = tried(Store(url="s3://nobodys-bucket/x", endpoint=s3))
    assert (code, "NoSuchBucket" in words) == (os.EX_CONFIG, True), words
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, words = tried(Store(url=f"s3://{BUCKET}/x", endpoint=s3))
    assert (code, "SignatureDoesNotMatch" in words) == (os.EX_CONFIG, True), words


@pytest.fixture
def proxy(s3: str) -> Generator[Proxy]:
    """What stands between a server and its store."""
    with proxied(s3) as running:
        yield running


@pytest.mark.usefixtures("keys")
def test_records_wait_for_a_store_that_is_down_and_are_all_there_after_sigterm(proxy: Proxy, tmp_path: Path) -> None:
    store = _bucket(proxy.url)
    config = write_store_config(
        tmp_path, store, put_release(store, tmp_path, census_model(), census_signature()), instance="pod-1"
    )
    asked: list[str] = []
    with serving(config) as server:
        proxy.decide = lambda method, path: ANSWER_503 if method == "PUT" else PASS
        asked.append(_ask(server))
        until(lambda: "records stay in" in server.log.read_text())
        asked.append(_ask(server))
        server.kill()
    with serving(config) as server:
        proxy.decide = _lose_first_put_of(proxy)
        until(lambda: _ids(store) == sorted(asked))
        asked += [_ask(server) for _ in range(5)]
        assert server.stop() == 0
    assert _ids(store) == sorted(asked)
    assert list((tmp_path / "spool").iterdir()) == []


def _lose_first_put_of(proxy: Proxy) -> Callable[[str, str], str]:
    """The first segment arrives, and its sender never hears of it."""

    def decide(method: str, path: str) -> str:
        before = [action for _, _, action in proxy.seen]
        return DROP_ANSWER if method == "PUT" and DROP_ANSWER not in before else PASS

    return decide


def test_answers_are_counted_since_the_process_started(census_home: Path, tmp_path: Path) -> None:
    config = json.loads((census_home / "server.json").read_text()) | {"spool": str(tmp_path / "spool")}
    path = tmp_path / "server.json"
    path.write_text(json.dumps(config))
    with serving(path) as server:
        before = server.client.get("/counters").json()
        _ask(server)
        server.post({"data": {}})
        (tmp_path / "spool").rename(tmp_path / "gone")
        os.close(os.open(tmp_path / "spool", os.O_CREAT))
        for open_file in (tmp_path / "gone").iterdir():
            open_file.unlink()
        assert server.post(ASK).status_code == 503
        after = server.client.get("/counters").json()
    assert before == {"start": after["start"], "release": config["release"], "requests": 0, "errors": 0}
    assert (after["requests"], after["errors"]) == (3, 1)
