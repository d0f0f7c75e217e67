"""A gate has four outcomes, and only what was measured and right is passed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from prefect_mlops.blocks import Counters
from prefect_mlops.tasks.probing import _compared, _counted

RELEASE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PROBES: dict[str, Any] = {"answers": [[0.25, 0.75], [0.5, 0.5]], "tolerance": 1e-9}


def answer(rows: list[list[float]], *, release: str = RELEASE, status: int = 200) -> httpx.Response:
    content = json.dumps({"data": {"ndarray": rows}})
    return httpx.Response(status, content=content, headers={"x-release": release})


@pytest.mark.parametrize(
    ("response", "outcome", "words"),
    [
        (answer([[0.25, 0.75], [0.5, 0.5]]), "passed", "2 of 2"),
        (answer([[0.25, 0.75], [0.5, 0.5 + 1e-12]]), "passed", "2 of 2"),
        (answer([[0.25, 0.75], [0.4, 0.6]]), "failed", "1 of 2 answers differ, first row 1"),
        (answer([[0.25, 0.75]]), "failed", "shape"),
        (answer([[0.25, 0.75], [0.5, 0.5]], release=OTHER), "failed", f"{OTHER} answered"),
        (answer([], status=503), "failed", "status 503"),
    ],
)
def test_probes_compare_every_answer(response: httpx.Response, outcome: str, words: str) -> None:
    found, detail = _compared(PROBES, RELEASE, response)
    assert found == outcome
    assert words in detail


@pytest.mark.parametrize(
    ("requests", "errors", "start", "outcome"),
    [
        (1000, 10, "x", "passed"),
        (1000, 11, "x", "failed"),
        (1, 1, "x", "failed"),
        (0, 0, "x", "could not be measured"),
        (1000, 0, "y", "could not be measured"),
    ],
)
def test_live_answers_are_counted_from_the_moment_of_watching(
    requests: int, errors: int, start: str, outcome: str
) -> None:
    before = Counters(start="x", requests={RELEASE: 500}, errors={RELEASE: 400})
    after = Counters(start=start, requests={RELEASE: 500 + requests}, errors={RELEASE: 400 + errors})
    assert _counted(before, after, RELEASE, permille=10)[0] == outcome
