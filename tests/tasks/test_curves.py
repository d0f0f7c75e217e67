"""Curves say what a model does on new rows in a few points, and are drawn the same from them every time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc

from prefect_mlops.tasks._curves import curves
from prefect_mlops.tasks._judging import auc as area
from prefect_mlops.tasks._plots import drawings, image

RNG = np.random.default_rng(0)
SCORES = RNG.random(5_000)
TRUTH = np.where(RNG.random(5_000) < SCORES, "yes", "no")
SHARES = np.column_stack([1 - SCORES, SCORES])


def test_two_classes_have_a_roc_curve_and_a_calibration() -> None:
    found = curves(TRUTH, SHARES, ("no", "yes"))
    false_positive, true_positive = zip(*found["roc"], strict=True)
    assert (found["roc"][0], found["roc"][-1]) == ([0, 0], [1, 1])
    assert auc(false_positive, true_positive) == pytest.approx(area(TRUTH == "yes", SCORES), abs=0.01)
    assert all(abs(score - share) < 0.1 for score, share, _ in found["calibration"]), "it is calibrated"
    assert sum(rows for *_, rows in found["calibration"]) == 5_000


def test_numbers_have_residuals_in_tenths() -> None:
    truth = SCORES * 10 + np.where(SCORES > 0.9, 3, 0)
    found = curves(truth, SCORES[:, None] * 10, ())["residuals"]
    assert len(found) == 10
    assert [round(middle) for _, _, middle, _ in found] == [0] * 9 + [3]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("truth", "answers", "classes"),
    [
        (TRUTH, np.column_stack([SHARES, SCORES]), ("a", "b", "c")),
        (np.full(5_000, "no"), SHARES, ("no", "yes")),
        (TRUTH, SHARES * np.nan, ("no", "yes")),
        (SCORES[:40], SCORES[:40, None], ()),
        (SCORES, SCORES[:, None] * np.inf, ()),
    ],
)
def test_where_a_curve_says_nothing_there_is_none(truth: object, answers: object, classes: tuple[str, ...]) -> None:
    assert curves(truth, answers, classes) == {}  # type: ignore[arg-type]


def test_the_same_points_give_the_same_image() -> None:
    found = curves(TRUTH, SHARES, ("no", "yes")) | curves(SCORES, SCORES[:, None], ())
    drawn = drawings(found)
    assert list(drawn) == ["roc", "calibration", "residuals"]
    first, again = (image(list(drawings(found).values())) for _ in range(2))
    assert first == again
    assert first.startswith(b"\x89PNG")
