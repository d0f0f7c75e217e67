"""How far two models agree on the same requests. Free of Prefect."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW_VALUES = 8
"""A column of at most so many values is one to slice by."""

FEW_ROWS = 30
"""A slice of fewer rows says nothing."""


def wilson(agreed: int, rows: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % confidence interval of a share.

    Args:
        agreed: How many rows had the property.
        rows: Of how many, at least 1.
        z: Quantile of the normal distribution for the wanted confidence.

    Source: Wilson (1927), "Probable inference", doi:10.1080/01621459.1927.10502953.

    >>> low, high = wilson(95, 100)
    >>> round(low, 4), round(high, 4)
    (0.8882, 0.9785)
    """
    share, weight = agreed / rows, z * z / rows
    centre, half = share + weight / 2, z * sqrt(share * (1 - share) / rows + weight / rows / 4)
    return max(0.0, (centre - half) / (1 + weight)), min(1.0, (centre + half) / (1 + weight))


def agrees(champion: NDArray[np.float64], challenger: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For each row, whether both decide the same.

    Args:
        champion: Answers, shape `(rows, outputs)`; with two or more outputs the largest decides.
        challenger: Answers to the same rows, of the same shape. Numbers agree when they differ by at most a
            tenth of the standard deviation of the champion's.
    """
    if champion.shape[1] > 1:
        return champion.argmax(axis=1) == challenger.argmax(axis=1)
    return np.abs(champion[:, 0] - challenger[:, 0]) <= 0.1 * champion[:, 0].std() + 1e-12


def histograms(champion: NDArray[np.float64], challenger: NDArray[np.float64], bins: int = 20) -> dict[str, list[int]]:
    """How often each model's last output fell into each of equal bins, from the least to the greatest seen.

    Args:
        champion: Answers, shape `(rows, outputs)`.
        challenger: Answers to the same rows, of the same shape.
        bins: How many.
    """
    scores = [answers[:, -1] for answers in (champion, challenger)]
    probabilities = champion.shape[1] > 1
    edges = (0.0, 1.0) if probabilities else (float(np.min(scores)), float(np.max(scores)))
    return {
        name: np.histogram(score, bins, edges)[0].tolist()
        for name, score in zip(("champion", "challenger"), scores, strict=True)
    }


def slices(
    names: Sequence[str], inputs: Sequence[Sequence[Any]], agreed: Iterable[bool]
) -> list[tuple[str, str, int, int]]:
    """Agreement within each value of each column that has few, as (column, value, rows, agreed), the least first.

    Args:
        names: The columns.
        inputs: The rows that were asked about.
        agreed: For each row, whether both models decided the same.
    """
    same = list(agreed)
    found: list[tuple[str, str, int, int]] = []
    for place, name in enumerate(names):
        counts: dict[Hashable, list[int]] = {}
        for row, one in zip(inputs, same, strict=True):
            count = counts.setdefault(row[place], [0, 0])
            count[0] += 1
            count[1] += one
        if 1 < len(counts) <= FEW_VALUES:
            found += [(name, str(value), rows, both) for value, (rows, both) in counts.items() if rows >= FEW_ROWS]
    return sorted(found, key=lambda one: (one[3] / one[2], one[0], one[1]))
