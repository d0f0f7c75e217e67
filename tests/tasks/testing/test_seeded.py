"""The default tests stop every model with a known fault, for that fault, and let good ones through.

A good one is released twice, first with nothing live and then, trained on more data, against itself: whether one
family is worse than another is for `BeatsChampion` to say, and is no fault of a first release.
"""

from __future__ import annotations

import pandas as pd
import pytest

from prefect_mlops.blocks import Recipe
from prefect_mlops.flows.creditco import census, vendor_batch
from tests.tasks.testing import seeded
from tests.tasks.testing.conftest import ROWS, Bench, outcomes, servers

SEEDS = (1, 2, 3)
BAD = {
    "leaky": "too good to be true",
    "biased": "flip(sex)",
    "label_flipped": "against baseline",
    "overfitted": "overfitting",
    "stale": "against champion",
    "wrong_order": "against baseline",
    "nan_happy": "answers in the server",
    "slow": "latency",
    "huge": "size",
    "constant": "known signal",
}
GOOD_ROWS = 3_000
GOOD_HOLDOUT = 33
"""A thousand rows held out, so that two models that differ a little can be told from two that differ a lot."""


def some(everything: object, default: tuple[str, ...]) -> list[object]:
    """Each with each seed; only a few of them by default."""
    return [
        pytest.param(name, seed, marks=[] if seed == SEEDS[0] and name in default else pytest.mark.slow)
        for name in everything  # type: ignore[attr-defined]
        for seed in SEEDS
    ]


def bad(name: str, seed: int) -> tuple[pd.DataFrame, Recipe]:
    """What a bad model is trained on, and by what."""
    frame = census(ROWS, seed)
    if name == "leaky":
        return seeded.leak(frame), seeded.recipe("plain", seed)
    if name == "biased":
        return vendor_batch(frame, seed), seeded.recipe("plain", seed, ignore=["fnlwgt"])
    return frame, seeded.recipe(name, seed)


@pytest.mark.parametrize(("name", "seed"), some(BAD, ("leaky", "nan_happy", "stale")))
def test_a_bad_model_is_stopped_for_what_is_wrong_with_it(bench: Bench, champion: str, name: str, seed: int) -> None:
    tested = bench.test(*bad(name, seed), champion)
    verdict = next(verdict for verdict in tested.verdicts if verdict.test == BAD[name])
    assert verdict.outcome == "failed", verdict.detail
    if name == "leaky":
        assert "it hangs on tax-class" in verdict.detail


@pytest.mark.parametrize(("name", "seed"), some(seeded.GOOD, ("linear discriminant",)))
def test_a_good_model_is_let_through_at_first_and_again_with_more_data(bench: Bench, name: str, seed: int) -> None:
    recipe = seeded.recipe("good", seed, family=name).model_copy(update={"holdout_percent": GOOD_HOLDOUT})
    frame = census(GOOD_ROWS, seed)
    first = bench.test(frame.head(GOOD_ROWS * 3 // 4), recipe)
    assert set(outcomes(first).values()) == {"passed"}, first.not_passed
    live = bench.store.put_release(first.need_passed().release())
    again = bench.test(frame, recipe, live)
    assert set(outcomes(again).values()) == {"passed"}, again.not_passed
    assert servers() == []
