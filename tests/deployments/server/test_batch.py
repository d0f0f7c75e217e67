"""Joint calls: an answer never depends on its neighbours, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from prefect_mlops.deployments.server._batch import MAX_JOINT_ROWS, Batcher, Job, Outcome, outcomes
from prefect_mlops.deployments.server._errors import ModelFailed
from tests.deployments.server.models import census, census_model, census_rows, write_config, write_model
from tests.deployments.server.processes import Running, serving, until

SIGNATURE: dict[str, Any] = {
    "format": 1,
    "inputs": [{"name": "x", "type": "number", "nullable": True, "example": 1.5}],
    "output": {"kind": "values", "names": ["y"]},
}


class Touchy:
    """Doubles numbers; some numbers make it fail in the ways in which models fail."""

    def predict(self, frame: pd.DataFrame) -> Any:
        x = frame["x"].to_numpy()
        if (x == 13).any():
            raise ValueError("thirteen\nTraceback (most recent call last)")
        if (x == 14).any():
            return x[:-1]
        if (x == 15).any():
            raise SystemExit(3)
        if (x == 16).any():
            raise ValueError("\ud800")
        return x * 2


class Model:
    """Counts its calls, and holds the first back until it is told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.called = threading.Event()

    def __call__(self, rows: Sequence[list[Any]]) -> list[list[Any]]:
        self.sizes.append(len(rows))
        self.called.set()
        assert self.go.wait(10)
        if any(row[0] < 0 for row in rows):
            raise ModelFailed("does not like it")
        return [[row[0] * 10] for row in rows]


async def _asked(model: Model, waves: list[list[list[Any]]]) -> dict[int, Outcome]:
    """Put the waves of requests in, the later ones while the first call runs; returns outcomes by request."""
    got: dict[int, Outcome] = {}
    total = sum(map(len, waves))
    finished = asyncio.Event()

    def deliver(jobs: list[Job[int]], results: list[Outcome]) -> None:
        got.update({job.about: result for job, result in zip(jobs, results, strict=True)})
        if len(got) == total:
            finished.set()

    batcher = Batcher[int](model, deliver)
    number = 0
    for wave in waves:
        for rows in wave:
            batcher.put(Job([rows], number))
            number += 1
        await asyncio.to_thread(model.called.wait, 10)
    model.go.set()
    await asyncio.wait_for(finished.wait(), 10)
    batcher.close()
    return got


def test_what_waits_while_the_model_runs_is_joined_to_one_call() -> None:
    model = Model()
    got = asyncio.run(_asked(model, [[[0]], [[n] for n in range(1, 31)]]))
    assert model.sizes == [1, 30]
    assert got == {n: [[n * 10]] for n in range(31)}


def test_a_call_has_a_most_of_rows() -> None:
    model = Model()
    asyncio.run(_asked(model, [[[0]], [[n] for n in range(MAX_JOINT_ROWS + 10)]]))
    assert model.sizes == [1, MAX_JOINT_ROWS, 10]


def test_a_request_that_fails_does_not_fail_its_neighbours() -> None:
    model = Model()
    got = asyncio.run(_asked(model, [[[0]], [[1], [-1], [2]]]))
    assert isinstance(got[2], ModelFailed)
    assert (got[1], got[3]) == ([[10]], [[20]])


def test_requests_of_several_rows_get_their_own_rows() -> None:
    model = Model()
    model.go.set()
    assert outcomes(model, [[[1], [2]], [[3]], [[4], [5], [6]]]) == [[[10], [20]], [[30]], [[40], [50], [60]]]


def test_an_answer_does_not_depend_on_its_batch(server: Running) -> None:
    rows = census_rows(60, seed=5)
    alone = [server.post({"data": {"ndarray": [row]}}).json()["data"]["ndarray"][0] for row in rows]

    async def together() -> list[list[float]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            posts = [client.post("/api/v1.0/predictions", json={"data": {"ndarray": [row]}}) for row in rows]
            return [answer.json()["data"]["ndarray"][0] for answer in await asyncio.gather(*posts)]

    assert asyncio.run(together()) == alone
    assert np.array_equal(alone, census_model().predict_proba(census(60, 5)))


def _written(home: Path, fitted: Any, signature: dict[str, Any]) -> list[dict[str, Any]]:
    this = sys.modules[__name__]  # the server's process has no tests to import
    cloudpickle.register_pickle_by_value(this)
    try:
        return write_model(home / "model", fitted, signature)
    finally:
        cloudpickle.unregister_pickle_by_value(this)


def test_a_model_that_fails_is_said_and_nobody_else_is_hurt(tmp_path: Path) -> None:
    files = _written(tmp_path, Touchy(), SIGNATURE)

    async def all_at_once(url: str, values: list[float | None]) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            posts = [client.post("/api/v1.0/predictions", json={"jsonData": {"x": value}}) for value in values]
            return await asyncio.gather(*posts)

    values: list[float | None] = [1, 13, 2, None, 3, 14, 4, 15, 5, 16, 6]
    with serving(write_config(tmp_path, files)) as server:
        for _ in range(5):
            answers = asyncio.run(all_at_once(server.url, values))
            for value, answer in zip(values, answers, strict=True):
                if value in (None, 13, 14, 15, 16):
                    assert answer.status_code == 500
                    info = answer.json()["status"]["info"]
                    assert info.startswith("the model of release sha256:111")
                    assert "\n" not in info
                else:
                    assert answer.json()["data"]["tensor"]["values"] == [value * 2 if value else None]
        assert server.stop() == 0
        log = server.log.read_text()
        assert "ValueError: thirteen" in log
        assert "signature says (1, 1)" in log
        assert "NaN or infinity" in log
        assert "SystemExit: 3" in log
        assert all(line.startswith("model server: ") for line in log.splitlines())


class Slow:
    """Takes its time, and says when it starts."""

    def predict(self, frame: pd.DataFrame) -> Any:
        for mark in frame["mark"]:
            if mark:
                Path(mark).touch()
                time.sleep(1)
        return np.zeros(len(frame))


def test_what_is_in_flight_at_sigterm_is_answered_and_recorded(tmp_path: Path) -> None:
    field = {"name": "mark", "type": "string", "nullable": False, "example": ""}
    files = _written(tmp_path, Slow(), {**SIGNATURE, "inputs": [field]})
    answers: list[httpx.Response] = []
    body = {"jsonData": {"mark": str(tmp_path / "started")}}
    with serving(write_config(tmp_path, files)) as server:
        asking = threading.Thread(target=lambda: answers.append(server.post(body)))
        asking.start()
        until((tmp_path / "started").exists)
        assert server.client.get("/ready").status_code == 200
        assert server.stop() == 0
        asking.join()
    assert answers[0].status_code == 200
    (segment,) = (tmp_path / "spool").glob("segment-*.parquet")
    assert pq.read_table(segment)["request_id"].to_pylist() == [answers[0].headers["x-request-id"]]


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_columns_have_the_same_types_whatever_is_in_them(size: int) -> None:
    from prefect_mlops.deployments.server._model import Model as Served
    from prefect_mlops.deployments.server._signature import Field, Signature

    fields = [
        Field(f"{kind}{nullable}", kind, nullable, None)
        for kind in ("integer", "number", "string", "boolean")
        for nullable in (False, True)
    ]
    values: dict[str, Any] = {"integer": 3, "number": 2.5, "string": "a", "boolean": True}
    model = Served(_Anything(), Signature(tuple(fields), "values", ("y",)))
    full = [values[field.type] for field in fields]
    empty = [None if field.nullable else values[field.type] for field in fields]
    types = [str(kind) for kind in model.frame([full] * size).dtypes]
    assert types == ["int64", "float64", "float64", "float64", "str", "str", "bool", "object"]
    assert [str(kind) for kind in model.frame([empty] * size).dtypes] == types
    assert model.frame([empty] * size).iloc[:, 1::2].isna().all().all()


class _Anything:
    def predict(self, frame: pd.DataFrame) -> Any:
        return np.zeros(len(frame))
