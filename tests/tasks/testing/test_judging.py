"""The arithmetic: against scikit-learn, brute force and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from prefect_mlops.tasks import _judging
from prefect_mlops.tasks._judging import Interval


def two_models(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and the scores of two models that are wrong in part for the same reasons."""
    rng = np.random.default_rng(seed)
    positive = rng.random(rows) < 0.3
    shared = rng.standard_normal(rows)
    first = positive * 1.4 + shared + 0.4 * rng.standard_normal(rows)
    second = positive * 1.1 + shared + 0.9 * rng.standard_normal(rows)
    return positive, first.round(1), second.round(1)  # rounded, so that there are ties


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
def test_auc_and_concordance_are_what_scikit_learn_says(rows: list[tuple[bool, int]]) -> None:
    positive, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=float)
    if positive.all() or not positive.any():
        return
    expected = metrics.roc_auc_score(positive, scores)
    assert _judging.auc(positive, scores) == pytest.approx(expected)
    assert _judging.concordance(positive.astype(float), scores) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "r2"])
def test_figures_are_means_over_rows(metric: _judging.Mean) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 500)
    predicted = np.where(rng.random(500) < 0.7, truth, rng.integers(0, 3, 500))
    score = getattr(metrics, f"{metric}_score")
    assert _judging.per_row(metric, truth, predicted).mean() == pytest.approx(score(truth, predicted))


@pytest.mark.parametrize("seed", range(3))
def test_delong_is_its_definition_row_by_row(seed: int) -> None:
    """The formulas (3) to (6) of the paper with every pair written out, in place of ranks."""
    positive, first, second = two_models(200, seed)

    def kernel(scores: np.ndarray) -> np.ndarray:
        up, down = scores[positive][:, None], scores[~positive][None, :]
        return (up > down) + 0.5 * (up == down)

    both = [kernel(first), kernel(second)]
    over_negatives = np.cov([pairs.mean(axis=1) for pairs in both])
    over_positives = np.cov([pairs.mean(axis=0) for pairs in both])
    covariance = over_negatives / positive.sum() + over_positives / (~positive).sum()
    contrast = np.array([1, -1])
    error = np.sqrt(contrast @ covariance @ contrast)
    difference = _judging.auc_difference(positive, first, second)
    assert difference.estimate == pytest.approx(both[0].mean() - both[1].mean())
    assert (difference.high - difference.low) / 2 == pytest.approx(1.959964 * error, rel=1e-5)


def bootstrapped(figure: object, rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.quantile([figure(rng.integers(0, rows, rows)) for _ in range(1_000)], [0.025, 0.975])  # type: ignore[operator]


def test_the_interval_of_an_auc_difference_is_that_of_the_bootstrap() -> None:
    positive, first, second = two_models(600, 4)
    difference = _judging.auc_difference(positive, first, second)
    low, high = bootstrapped(
        lambda rows: _judging.auc(positive[rows], first[rows]) - _judging.auc(positive[rows], second[rows]), 600, 5
    )
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_the_interval_of_a_mean_difference_is_that_of_the_bootstrap() -> None:
    positive, first, second = two_models(600, 6)
    ours, theirs = (_judging.per_row("accuracy", positive, scores > 0.8) for scores in (first, second))
    difference = _judging.mean_difference(ours, theirs)
    low, high = bootstrapped(lambda rows: ours[rows].mean() - theirs[rows].mean(), 600, 7)
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=0.15 * (high - low))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_a_model_beside_itself_is_no_worse(seed: int) -> None:
    positive, scores, _ = two_models(100, seed)
    if positive.sum() > 2:
        assert _judging.auc_difference(positive, scores, scores) == Interval(0, 0, 0)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth = np.mean([_difference(20_000, seed).estimate for seed in range(5)])
    held = [(low <= truth <= high) for _, low, high in (_difference(150, seed) for seed in range(600))]
    assert 0.92 < np.mean(held) < 0.98


def _difference(rows: int, seed: int) -> Interval:
    return _judging.auc_difference(*two_models(rows, seed))


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(-0.01, 0.03, "passed"), (-0.02, 0.0, "passed"), (-0.05, 0.01, "inconclusive"), (-0.09, -0.03, "failed")],
)
def test_only_a_whole_interval_decides(low: float, high: float, outcome: str) -> None:
    assert Interval((low + high) / 2, low, high).against(0.02) == outcome
