"""Whatever two writers, a store, a target and their clocks do: the log stays legal and tells the truth."""

from __future__ import annotations

import logging

import pytest

from tests.tasks.moving.choices import Choices, shortest
from tests.tasks.moving.histories import failure_of


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="prefect_mlops")


def run_histories(first: int, last: int) -> None:
    for seed in range(first, last):
        choices = Choices(seed)
        if failure_of(choices) is not None:
            tell(seed, choices.made)


def tell(seed: int, record: list[int]) -> None:
    """Fail with the shortest history that fails."""
    record = shortest(record, lambda attempt: failure_of(Choices(record=attempt)) is not None)
    found = failure_of(Choices(record=record), story=True)
    assert found is not None
    what, story = found
    lines = "\n".join(story)
    pytest.fail(f"seed {seed}: {what}\n{lines}\nreplay with failure_of(Choices(record={record}))", pytrace=False)


@pytest.mark.parametrize("part", range(3))
def test_random_histories(part: int) -> None:
    run_histories(part * 500, part * 500 + 500)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_random_histories(part: int) -> None:
    run_histories(10_000 + part * 1000, 10_000 + part * 1000 + 1000)
