"""Prediction records of many pods in one store, as the tasks find them."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Generator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.blocks import ReleaseLog
from prefect_mlops.blocks.errors import ObjectDamaged
from prefect_mlops.blocks.records import Spools, predictions_of, records_of
from prefect_mlops.blocks.store import Store
from prefect_mlops.blocks.verify import verify
from prefect_mlops.tasks import compare_predictions
from tests.blocks.store.servers import ACCESS, BUCKET, SECRET, Proxy, proxied, s3_server
from tests.deployments.server.models import census_model, census_rows, census_signature
from tests.deployments.server.processes import Running, serving, until
from tests.deployments.server.releases import put_release, put_segment, write_store_config
from tests.tasks.moving.doubles import Gateway, MemoryTarget, memory_place

PODS = 3
BEGIN = datetime(2026, 11, 21, 10, tzinfo=UTC)
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Proxy]:
    """What stands before a real S3-compatible server, and counts what it is asked."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as url, proxied(url) as running:
        yield running


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of either kind."""
    if request.param == "folder":
        return Store(url=str(tmp_path / "store"))
    return Store(url=f"s3://{BUCKET}/{uuid.uuid4().hex}", endpoint=request.getfixturevalue("proxy").url)


def _time(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _record(request_id: str, seconds: float, release: str = ONE, role: str = "live", **more: Any) -> dict[str, Any]:
    facts = {"kind": "prediction", "request_id": request_id, "attempt": 1, "time": _time(seconds), "service": "credit"}
    answer = {"input_names": '["x"]', "inputs": "[[1.0]]", "output_names": '["y"]', "outputs": "[[0.5]]"}
    facts |= {"release": release, "model": release, "role": role, "status": 200, "latency_ms": 1.0}
    return facts | answer | more


def _keep(store: Store, scratch: Path, *records: dict[str, Any], instance: str = "pod-1") -> str:
    spool = scratch / f"open-{uuid.uuid4().hex}.jsonl"
    spool.write_text("".join(json.dumps(record) + "\n" for record in records))
    return put_segment(store, "mlops", "credit", spool, instance)


def test_every_answer_of_many_pods_is_found(proxy: Proxy, tmp_path: Path) -> None:
    store = Store(url=f"s3://{BUCKET}/{uuid.uuid4().hex}", endpoint=proxy.url)
    release = put_release(store, tmp_path, census_model(200), census_signature())
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    answered: list[str] = []
    with ExitStack() as pods:
        servers = [
            pods.enter_context(serving(write_store_config(tmp_path / name, store, release, instance=name)))
            for name in (f"pod-{number}" for number in range(PODS))
        ]
        threads = [threading.Thread(target=_ask, args=(server, answered)) for server in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = until(lambda: _all(store, release, since, len(answered)))
        assert all(server.stop() == 0 for server in servers)
    assert sorted(found) == sorted(answered)
    [record] = records_of([store.records("mlops")], answered[0])
    assert (record.release, record.role, record.inputs) == (release, "live", census_rows(1))
    assert records_of([store.records("other")], answered[0]) == []
    assert set(_instances(store)) == {f"pod-{number}" for number in range(PODS)}


def _ask(server: Running, answered: list[str]) -> None:
    for _ in range(20):
        answer = server.post({"data": {"ndarray": census_rows(1)}})
        answered.append(answer.headers["x-request-id"])


def _all(store: Store, release: str, since: str, number: int) -> list[str] | None:
    found = [record.request_id for record in predictions_of([store.records("mlops", "credit")], [release], since)]
    return found if len(found) == number else None


def _instances(store: Store) -> list[str]:
    return [key.split("/")[3] for key in store.records().names()]


def test_what_was_read_is_not_read_again(proxy: Proxy, tmp_path: Path) -> None:
    store = Store(url=f"s3://{BUCKET}/{uuid.uuid4().hex}", endpoint=proxy.url)
    for number in range(3):
        _keep(store, tmp_path, _record(f"req-{number}", number), instance=f"pod-{number}")

    def asked() -> tuple[list[str], int]:
        before = len(proxy.seen)
        found = predictions_of([store.records("mlops", "credit")], [ONE], _time(0))
        gets = [path for method, path, _ in proxy.seen[before:] if method == "GET" and "segment-" in path.split("?")[0]]
        return [record.request_id for record in found], len(gets)

    assert asked() == (["req-0", "req-1", "req-2"], 3)
    assert asked() == (["req-0", "req-1", "req-2"], 0)
    _keep(store, tmp_path, _record("req-3", 3), instance="pod-1")
    assert asked() == (["req-0", "req-1", "req-2", "req-3"], 1)


def test_what_is_too_old_is_not_read(store: Store, tmp_path: Path) -> None:
    old = _keep(store, tmp_path, _record("old", 10))
    _keep(store, tmp_path, _record("before", 5), _record("at", 11))
    for sources in ([store.records("mlops", "credit")], [store.records("mlops")]):
        assert old not in sources[0].names(_time(10.000001))
        assert old in sources[0].names(_time(10))
        assert [one.request_id for one in predictions_of(sources, [ONE], _time(11))] == ["at"]


def test_the_records_of_this_machine_and_those_in_the_store_are_one(store: Store, tmp_path: Path) -> None:
    spools = tmp_path / "spools"
    spools.mkdir()
    _keep(store, tmp_path, _record("both", 1), _record("sealed", 2))
    lines = [_record("both", 1), _record("open", 0), _record("other", 3, TWO), _record("back", 3, kind="feedback")]
    (spools / "open-1-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"half')
    sources = [Spools(spools), store.records("mlops", "credit")]
    assert [one.request_id for one in predictions_of(sources, [ONE], _time(0))] == ["open", "both", "sealed"]
    assert [one.time for one in records_of(sources, "both")] == [_time(1)]
    assert [one.kind for one in records_of(sources, "back")] == ["feedback"]


def test_a_segment_that_was_changed_is_named(tmp_path: Path) -> None:
    log = ReleaseLog(Store(url=str(tmp_path / "store")), "local")
    log.begin({})
    store = log.store
    key = _keep(store, tmp_path, _record("req-1", 1))
    assert verify(log).verified
    (tmp_path / "store" / key).write_bytes(b"forged")
    assert [fault.key for fault in verify(log).faults] == [key]
    with pytest.raises(ObjectDamaged, match=key):
        records_of([store.records()], "req-1")


def test_a_shadow_is_compared_by_what_many_pods_took_to_the_store(store: Store, tmp_path: Path) -> None:
    target = MemoryTarget(Gateway(), namespace="mlops")
    rules = {"shadow_requests": 20, "shadow_seconds": 10, "shadow_agreement_permille": 100}
    place = memory_place(store, target, **rules)
    for pod in range(4):
        release, role = (ONE, "live") if pod < 2 else (TWO, "shadow")
        ids = [f"req-{number}" for number in range(pod % 2, 20, 2)]
        records = [_record(one, 1, release, role) for one in ids]
        _keep(store, tmp_path, *records, instance=f"pod-{pod}")
    judged = compare_predictions.fn(place, "credit", ONE, TWO, _time(0))
    assert (judged.outcome, judged.release) == ("passed", TWO)
    assert "20 answers agree" in judged.detail
