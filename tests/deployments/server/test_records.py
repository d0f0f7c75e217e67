"""Prediction records: there before the answer, whole after any death, once in the end."""

from __future__ import annotations

import hashlib
import json
import resource
import threading
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from prefect_mlops.deployments.server._records import Spool, SpoolFull
from prefect_mlops.deployments.server._segments import SCHEMA, seal
from tests.deployments.server.models import RELEASE, SNAPSHOT, census, census_rows, write_config
from tests.deployments.server.processes import Running, serving, until

ROW = census_rows(1)[0]
ASK = {"data": {"ndarray": [ROW]}}


@pytest.fixture
def config(census_home: Path, tmp_path: Path) -> Path:
    """A configuration of a server that records into `tmp_path`."""
    (tmp_path / "model").symlink_to(census_home / "model")
    return write_config(tmp_path, json.loads((census_home / "server.json").read_text())["files"])


def _sealed(spool: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(spool.glob("segment-*.parquet")) for row in pq.read_table(path).to_pylist()]


def _open(spool: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in spool.glob("open-*.jsonl") for line in path.read_text().split("\n")[:-1]]


def test_a_record_says_what_was_asked_and_answered_by_whom(config: Path, tmp_path: Path) -> None:
    headers = {
        "x-request-id": "req-1",
        "x-client-request-id": "mine",
        "x-envoy-attempt-count": "2",
        "x-mlops-role": "shadow",
    }
    before = datetime.now(UTC)
    with serving(config) as server:
        answer = server.post(ASK, headers=headers).json()
        told = {"response": {"meta": {"puid": "req-1"}}, "reward": 0.5, "truth": {"data": {"ndarray": [[">50K"]]}}}
        server.post(told, "/api/v1.0/feedback", headers={"x-request-id": "back-1"})
        in_spool = _open(tmp_path / "spool")
        assert server.stop() == 0
    prediction, feedback = _sealed(tmp_path / "spool")
    assert [record["request_id"] for record in in_spool] == ["req-1", "req-1"]
    assert list((tmp_path / "spool").glob("open-*")) == []
    assert json.loads(prediction["inputs"]) == [ROW]
    assert json.loads(prediction["outputs"]) == answer["data"]["ndarray"]
    assert json.loads(prediction["input_names"]) == list(census(1).columns)
    assert before < prediction["time"] < datetime.now(UTC)
    expected = {
        "kind": "prediction",
        "request_id": "req-1",
        "client_request_id": "mine",
        "attempt": 2,
        "namespace": "default",
        "service": "credit",
        "release": RELEASE,
        "model": SNAPSHOT,
        "role": "shadow",
        "instance": "0",
        "rows": 1,
        "status": 200,
        "error": None,
    }
    assert {key: prediction[key] for key in expected} == expected
    assert (feedback["kind"], feedback["request_id"], feedback["feedback_id"]) == ("feedback", "req-1", "back-1")
    assert (feedback["reward"], json.loads(feedback["truth"])) == (0.5, told["truth"])


def test_every_answer_survives_sigkill_under_load(config: Path, tmp_path: Path) -> None:
    answered: dict[str, list[Any]] = {}
    for _ in range(2):
        with serving(config) as server:
            _killed_under_load(server, answered)
    with serving(config) as server:
        until(lambda: {record["request_id"] for record in _sealed(tmp_path / "spool")} >= set(answered))
        assert server.stop() == 0
    records = _sealed(tmp_path / "spool")
    found = {record["request_id"]: json.loads(record["outputs"]) for record in records}
    assert len(answered) > 100
    assert len(found) == len(records)
    assert all(found[request_id] == rows for request_id, rows in answered.items())


def _killed_under_load(server: Running, answered: dict[str, list[Any]]) -> None:
    """Ask from many sides, and kill the server when a good number was answered."""
    enough = threading.Event()
    goal = len(answered) + 100

    def ask(seed: int) -> None:
        with httpx.Client(base_url=server.url) as client:
            for row in census_rows(400, seed):
                try:
                    answer = client.post("/api/v1.0/predictions", json={"data": {"ndarray": [row]}})
                except httpx.HTTPError:
                    return
                answered[answer.headers["x-request-id"]] = answer.json()["data"]["ndarray"]
                if len(answered) > goal:
                    enough.set()

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    server.kill()
    for thread in threads:
        thread.join()


def test_without_a_record_there_is_no_answer(config: Path, tmp_path: Path) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))

    with serving(config, prepare=little_room) as server:
        answers = [server.post(ASK) for _ in range(20)]
        good = [answer.headers["x-request-id"] for answer in answers if answer.status_code == 200]
        refused = answers[-1]
        assert 2 < len(good) < 10
        assert refused.status_code == 503
        assert "could not be recorded" in refused.json()["status"]["info"]
        assert [record["request_id"] for record in _open(tmp_path / "spool")] == good
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        good.append(server.post(ASK).headers["x-request-id"])
        assert server.stop() == 0
        assert server.log.read_text().count("does not take records") == 1
    assert [record["request_id"] for record in _sealed(tmp_path / "spool")] == good


def test_a_spool_that_was_deleted_is_made_again(config: Path, tmp_path: Path) -> None:
    with serving(config) as server:
        server.post(ASK)
        for path in (tmp_path / "spool").iterdir():
            path.unlink()
        (tmp_path / "spool").rmdir()
        request_id = server.post(ASK).headers["x-request-id"]
        assert [record["request_id"] for record in _open(tmp_path / "spool")] == [request_id]
        assert "was deleted with 1 records" in server.log.read_text()


# --- the spool by itself -------------------------------------------------------------------

CONSTANT = {"namespace": "default", "service": "credit", "release": RELEASE, "model": SNAPSHOT, "instance": "0"}


def _record(number: int) -> dict[str, Any]:
    return {
        "kind": "prediction",
        "request_id": f"req-{number}",
        "attempt": 1,
        "time": datetime(2026, 11, 21, 10, 0, 0, number, UTC),
        "role": "live",
        "rows": 1,
        "inputs": f"[[{number}]]",
        "outputs": "[[0.5]]",
        "latency_ms": 1.25,
        "status": 200,
        "error": "é\n\u2028",
    }


@pytest.fixture
def spool(tmp_path: Path) -> Generator[Spool]:
    """An open spool in `tmp_path`."""
    opened = Spool(tmp_path, CONSTANT)
    opened.open()
    yield opened
    opened.close()


def _left_behind(folder: Path, tail: bytes = b"") -> Path:
    """A spool file of ten records, as a killed process leaves it."""
    other = Spool(folder / "other", CONSTANT)
    other.open()
    other.append(_record(number) for number in range(10))
    (path,) = (folder / "other").glob("open-*.jsonl")
    left = folder / "open-1-1.jsonl"
    left.write_bytes(path.read_bytes() + tail)
    other.close()
    return left


def test_a_segment_holds_what_its_spool_file_held_and_is_named_by_its_bytes(tmp_path: Path) -> None:
    segment = seal(_left_behind(tmp_path))
    assert segment is not None
    digest = hashlib.sha256(segment.read_bytes()).hexdigest()
    assert segment.name == f"segment-20261121T100000000009Z-{digest}.parquet"
    table = pq.read_table(segment)
    assert table.schema.names == SCHEMA.names
    assert table.schema.types == SCHEMA.types
    assert [{**CONSTANT, **_record(n)} for n in range(10)] == [
        {key: value for key, value in row.items() if value is not None} for row in table.to_pylist()
    ]


@pytest.mark.parametrize("tail", [b'{"kind":"predic', b"\0" * 4_096, b"\xff"])
def test_a_torn_last_line_is_dropped_and_said(tmp_path: Path, tail: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    segment = seal(_left_behind(tmp_path, tail))
    assert segment is not None
    assert pq.read_table(segment).num_rows == 10
    assert f"a last line of {len(tail)} bytes" in capsys.readouterr().err


def test_a_torn_line_in_the_middle_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = _left_behind(tmp_path)
    lines = left.read_bytes().splitlines(keepends=True)
    left.write_bytes(b"".join([*lines[:5], lines[5][:40] + b"\n", *lines[6:]]))
    segment = seal(left)
    assert segment is not None
    assert pq.read_table(segment).num_rows == 9
    assert "dropped 1 of 10 lines" in capsys.readouterr().err


def test_sealing_twice_gives_one_segment(tmp_path: Path) -> None:
    left = _left_behind(tmp_path)
    copy = left.read_bytes()
    first = seal(left)
    left.write_bytes(copy)
    assert seal(left) == first
    assert len(list(tmp_path.glob("segment-*.parquet"))) == 1
    assert not left.exists()
    assert seal(left) is None


def test_a_spool_file_of_a_living_process_is_left_alone(tmp_path: Path, spool: Spool) -> None:
    spool.append([_record(1)])
    (path,) = tmp_path.glob("open-*.jsonl")
    assert seal(path) is None
    assert path.exists()


def test_what_a_killed_process_left_is_sealed_at_the_next_start(tmp_path: Path) -> None:
    _left_behind(tmp_path)
    (tmp_path / "open-2-1.jsonl").write_bytes(b"")
    spool = Spool(tmp_path, CONSTANT)
    spool.open()
    spool.close()
    assert [row["request_id"] for row in _sealed(tmp_path)] == [f"req-{number}" for number in range(10)]
    assert list(tmp_path.glob("open-*")) == []


def test_segments_are_named_in_order(tmp_path: Path, spool: Spool) -> None:
    for number in range(3):
        spool.append([_record(number)])
        spool.rotate()
    until(lambda: len(list(tmp_path.glob("segment-*.parquet"))) == 3)
    assert [row["request_id"] for row in _sealed(tmp_path)] == ["req-0", "req-1", "req-2"]


def test_a_long_spool_file_is_rotated(tmp_path: Path, spool: Spool) -> None:
    spool.append({**_record(0), "inputs": "x" * 1_000_000} for _ in range(17))
    spool.tick()
    until(lambda: list(tmp_path.glob("segment-*.parquet")))
    assert len(_sealed(tmp_path)) == 17


def test_a_segment_that_cannot_be_written_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segment = seal(_left_behind(tmp_path))
    assert segment is not None
    segment.unlink()
    segment.with_suffix(".tmp").mkdir()
    _left_behind(tmp_path)
    spool = Spool(tmp_path, CONSTANT)
    spool.open()
    until(lambda: "is tried again" in capsys.readouterr().err)
    segment.with_suffix(".tmp").rmdir()
    spool.tick()
    spool.close()
    assert len(_sealed(tmp_path)) == 10


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Spool(tmp_path / "file" / "spool", CONSTANT).open()


def test_a_write_that_fails_writes_nothing(tmp_path: Path, spool: Spool) -> None:
    spool.append([_record(1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (path,) = tmp_path.glob("open-*.jsonl")
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        with pytest.raises(SpoolFull):
            spool.append([_record(2), _record(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.append([_record(4)])
    assert [record["request_id"] for record in _open(tmp_path)] == ["req-1", "req-4"]
