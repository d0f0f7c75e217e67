"""The arithmetic of model tests: figures, and confidence intervals of their differences. Free of Prefect.

Every figure but the area under the curve is a mean over rows, so that two models are compared row by row.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from prefect_mlops.blocks.entry import Outcome

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Mean = Literal["accuracy", "balanced_accuracy", "r2"]


class Interval(NamedTuple):
    """An estimate, and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float

    def against(self, margin: float) -> Outcome:
        """Whether a difference is not below `-margin`: by the whole interval, or it is inconclusive."""
        if self.low >= -margin:
            return "passed"
        return "failed" if self.high < -margin else "inconclusive"


def per_row(metric: Mean, truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Floats:
    """What each row adds to a figure, shape `(rows,)`: the figure is their mean.

    Args:
        metric: Which figure.
        truth: What was to be predicted, shape `(rows,)`.
        predicted: What was, shape `(rows,)`.
    """
    if metric == "r2":
        spread = float(np.var(truth.astype(float)))
        return 1 - (truth.astype(float) - predicted.astype(float)) ** 2 / spread
    right = (truth == predicted).astype(float)
    if metric == "accuracy":
        return right
    _, classes, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    return right * len(truth) / (len(sizes) * sizes[classes])


def mean_difference(first: Floats, second: Floats, confidence: float = 0.95) -> Interval:
    """How much higher the mean of `first` is than that of `second`, both of the same rows.

    Source: the paired t interval, Student (1908), doi:10.1093/biomet/6.1.1.
    """
    differences = first - second
    rows = len(differences)
    reach = stats.t.ppf((1 + confidence) / 2, rows - 1) * differences.std(ddof=1) / np.sqrt(rows)
    estimate = float(differences.mean())
    return Interval(estimate, estimate - float(reach), estimate + float(reach))


def auc(positive: Bools, scores: Floats) -> float:
    """Area under the ROC curve: the share of pairs in which the positive row has the higher score, ties half.

    Args:
        positive: Which rows are of the positive class, shape `(rows,)`.
        scores: What the model gives them, shape `(rows,)`.
    """
    return float(_placements(positive, scores)[0].mean())


def auc_difference(positive: Bools, first: Floats, second: Floats, confidence: float = 0.95) -> Interval:
    """How much larger the area under the curve of `first` is than that of `second`, on the same rows.

    Args:
        positive: Which rows are of the positive class, shape `(rows,)`.
        first: Scores of one model, shape `(rows,)`.
        second: Scores of the other, shape `(rows,)`.
        confidence: How sure the interval is.

    Source: DeLong, DeLong and Clarke-Pearson (1988), doi:10.2307/2531595, with the mid-ranks of Sun and Xu (2014),
    doi:10.1109/LSP.2014.2337313.
    """
    (ours_up, ours_down), (theirs_up, theirs_down) = _placements(positive, first), _placements(positive, second)
    up, down = ours_up - theirs_up, ours_down - theirs_down
    error = np.sqrt(up.var(ddof=1) / len(up) + down.var(ddof=1) / len(down))
    reach = float(stats.norm.ppf((1 + confidence) / 2) * error)
    estimate = float(up.mean())
    return Interval(estimate, estimate - reach, estimate + reach)


def _placements(positive: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """For each positive row the share of negatives below it, for each negative the share of positives above it."""
    ups, downs = scores[positive], scores[~positive]
    ranks = stats.rankdata(scores)
    below = (ranks[positive] - stats.rankdata(ups)) / len(downs)
    above = 1 - (ranks[~positive] - stats.rankdata(downs)) / len(ups)
    return below, above


def concordance(truth: Floats, scores: Floats) -> float:
    """Share of the pairs of different truth that the scores put in the right order, ties half; AUC for two classes.

    Args:
        truth: Numbers, or numbers of ordered classes, shape `(rows,)`; a few thousand rows at most.
        scores: What the model gives them, shape `(rows,)`.

    Source: the concordance index, Harrell et al. (1982), doi:10.1001/jama.1982.03320430047030.

    >>> concordance(np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.3, 0.2]))
    0.666...
    """
    higher = truth[:, None] > truth[None, :]
    order = np.sign(scores[:, None] - scores[None, :])[higher]
    return float((order + 1).mean() / 2)


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.1f} %"
