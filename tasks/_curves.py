"""A few points of the curves that show what a model does on rows that it has not seen. Free of Prefect."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_mlops.tasks._judging import Bools, Floats

Points = list[list[float]]

MOST_POINTS = 60
LEAST_ROWS = 5
"""With fewer rows of a class, or in a tenth of the numbers, a curve says nothing."""


def curves(truth: npt.NDArray[Any], answers: Floats, classes: tuple[Any, ...]) -> dict[str, Points]:
    """The curves that fit what is predicted; none for more than two classes, or where answers are no numbers.

    Args:
        truth: What was to be predicted, shape `(rows,)`.
        answers: The classes' probabilities, shape `(rows, classes)`, or the numbers, shape `(rows, 1)`.
        classes: The classes in the model's order; empty if it predicts numbers.
    """
    if not np.isfinite(answers).all():
        return {}
    if not classes:
        return {"residuals": _residuals(truth.astype(float), answers[:, 0])} if len(truth) >= 10 * LEAST_ROWS else {}
    positive = truth == classes[-1]
    if len(classes) != 2 or min(positive.sum(), (~positive).sum()) < LEAST_ROWS:
        return {}
    return {"roc": _roc(positive, answers[:, 1]), "calibration": _calibration(positive, answers[:, 1])}


def _roc(positive: Bools, scores: Floats) -> Points:
    from sklearn.metrics import roc_curve

    points = np.column_stack(roc_curve(positive, scores)[:2])
    chosen = np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).astype(int))
    return points[chosen].round(4).tolist()


def _calibration(positive: Bools, scores: Floats) -> Points:
    """In each tenth of the scores that has rows: the mean score, the share of positive rows, and how many rows."""
    tenth = np.minimum((scores * 10).astype(int), 9)
    parts = [tenth == at for at in np.unique(tenth)]
    return [
        [round(float(scores[part].mean()), 4), round(float(positive[part].mean()), 4), int(part.sum())]
        for part in parts
    ]


def _residuals(truth: Floats, predicted: Floats) -> Points:
    """In each tenth of the rows, by what is predicted: the mean prediction, and quantiles of what it was wrong by.

    The quantiles are 0.1, 0.5 and 0.9, so that no single row can be read off.
    """
    residuals = truth - predicted
    parts = np.array_split(np.argsort(predicted, kind="stable"), 10)
    rows = [(predicted[part].mean(), *np.quantile(residuals[part], (0.1, 0.5, 0.9))) for part in parts]
    return [[float(f"{value:.6g}") for value in row] for row in rows]
