"""Judges that look at the model where it will be: as files, and in its server."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import httpx
import numpy as np

from prefect_mlops.blocks.model_tests import Answers, NoLargerThan, NoSlowerThan
from prefect_mlops.tasks import _learning
from prefect_mlops.tasks._judges.case import Case, Finding, Unmeasurable
from prefect_mlops.tasks._judges.server import ModelServer, ServerEnded

SINGLE_ROWS = 10
"""How many rows are also asked one by one."""

WARMING_REQUESTS = 5
LATENCY_ROUNDS = 3
LATENCY_REQUESTS = 100
"""A busy machine can only slow a model down, so the best round counts; 5 of its 100 requests may be slower."""


def answers(test: Answers, case: Case) -> Finding:
    """Whether it loads, and answers finite numbers, the same whatever way it is asked."""
    try:
        server = case.server
    except ServerEnded as error:
        return Finding("failed", str(error))
    rows = case.features.isna().any(axis=1).sort_values(ascending=False, kind="stable").index[: test.rows]
    asked = case.features.loc[rows]  # those with something missing first
    expected = _learning.answers(case.model, asked).tolist()
    wrong = next(_wrong(server, list(map(str, asked)), _learning.rows_of(asked), expected), "")
    detail = wrong or f"{len(rows)} rows are answered, the same again, alone, and with the columns in another order"
    return Finding("failed" if wrong else "passed", detail)


def _wrong(server: ModelServer, names: list[str], rows: list[list[Any]], expected: list[list[float]]) -> Generator[str]:
    """What is wrong with the server's answers, one sentence each."""
    ways = [
        (f"{len(rows)} rows", names, rows, expected),
        (f"{len(rows)} rows asked again", names, rows, expected),
        ("rows with the columns the other way round", names[::-1], [row[::-1] for row in rows], expected),
        *(
            (f"row {at} alone", names, [row], [answer])
            for at, (row, answer) in enumerate(zip(rows[:SINGLE_ROWS], expected, strict=False))
        ),
    ]
    for what, columns, values, wanted in ways:
        if (sentence := _compared(server.ask(columns, values), wanted)) is not None:
            yield f"{what}: {sentence}"
    for at, name in enumerate(names):
        answer = server.ask(names, [[*rows[0][:at], None, *rows[0][at + 1 :]]])
        if answer.status_code >= 500:
            yield f"a row without {name}: {_refusal(answer)}"


def _compared(answer: httpx.Response, expected: list[list[float]]) -> str | None:
    if answer.status_code != 200:
        return _refusal(answer)
    data = answer.json()["data"]
    got, wanted = np.array(data["ndarray"], dtype=float), np.array(expected)
    if got.shape != wanted.shape:
        return f"answers of shape {got.shape}, in training they had {wanted.shape}"
    same = np.isclose(got, wanted, rtol=_learning.TOLERANCE, atol=_learning.TOLERANCE).all(axis=1)
    if same.all():
        return None
    at = int(np.argmin(same))
    return f"{(~same).sum()} answers differ from those in training, first {got[at].tolist()}, not {wanted[at].tolist()}"


def _refusal(answer: httpx.Response) -> str:
    try:
        return f"status {answer.status_code}: {answer.json()['status']['info']}"
    except (ValueError, KeyError):
        return f"status {answer.status_code}: {answer.text:.200}"


def no_slower_than(test: NoSlowerThan, case: Case) -> Finding:
    """Whether single rows are answered in time, asked one after the other."""
    names, rows = list(map(str, case.features)), _learning.rows_of(case.features.head(LATENCY_REQUESTS))
    for row in rows[:WARMING_REQUESTS]:
        _seconds(case.server, names, row)
    best = (LATENCY_REQUESTS, 0.0, 0)
    for _ in range(LATENCY_ROUNDS):
        best = min(best, _round(case.server, names, rows, test.p95_ms))
        if best[0] <= LATENCY_REQUESTS // 20:
            break
    slow, p95, asked = best
    if slow <= LATENCY_REQUESTS // 20:
        return Finding("passed", f"95 % of {asked} rows answered within {p95:.1f} ms, {test.p95_ms:g} ms allowed")
    detail = f"{slow} of {asked} rows took more than {test.p95_ms:g} ms, {p95:.1f} ms and less; 5 % may"
    return Finding("failed", detail)


def _round(server: ModelServer, names: list[str], rows: list[list[Any]], p95_ms: float) -> tuple[int, float, int]:
    """How many answers came too late, the 95th percentile in ms, and how many were asked: no more than need be."""
    took: list[float] = []
    slow = 0
    while len(took) < LATENCY_REQUESTS and slow <= LATENCY_REQUESTS // 20:
        took.append(_seconds(server, names, rows[len(took) % len(rows)]) * 1000)
        slow += took[-1] > p95_ms
    return slow, float(np.quantile(took, 0.95)), len(took)


def _seconds(server: ModelServer, names: list[str], row: list[Any]) -> float:
    start = time.perf_counter()
    answer = server.ask(names, [row])
    seconds = time.perf_counter() - start
    if answer.status_code != 200:
        raise Unmeasurable(_refusal(answer))
    return seconds


def no_larger_than(test: NoLargerThan, case: Case) -> Finding:
    """Whether the model's files are small enough."""
    megabytes = sum(file.size for file in case.files.files) / 1e6
    detail = f"{megabytes:.1f} MB, at most {test.mb:g} MB allowed"
    return Finding("passed" if megabytes <= test.mb else "failed", detail)
