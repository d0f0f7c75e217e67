"""The judge that trains anew, on made-up rows in which the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from prefect_mlops.blocks.model_tests import KnownSignal
from prefect_mlops.tasks import _judging, _learning
from prefect_mlops.tasks._judges.case import Case, Finding, Scored
from prefect_mlops.tasks._judging import Floats, percent

STRENGTH = 0.7
"""Correlation of each column with the hidden truth, before it takes the column's own values."""


def known_signal(test: KnownSignal, case: Case) -> Finding:
    """Whether the training function learns what is planted in every column."""
    rng = np.random.default_rng(case.recipe.seed)
    training, _ = planted(case, test.rows, rng)
    fresh, truth = planted(case, test.rows, rng)
    model = _learning.fitted(case.train, case.recipe, training)
    scored = Scored.of(model, fresh, case.recipe.target)
    scored.check()
    share = _judging.concordance(truth, scored.scores)
    detail = (
        f"trained on {test.rows:,} made-up rows, puts {percent(share)} of the pairs of new ones in the right order, "
        f"at least {percent(test.at_least)} wanted"
    )
    return Finding("passed" if share >= test.at_least else "failed", detail)


def planted(case: Case, rows: int, rng: np.random.Generator) -> tuple[pd.DataFrame, Floats]:
    """Made-up rows with the columns of the training rows, and the order of their targets.

    Each row has a hidden number, from which its target follows without noise. Every column has the values that it has
    in the training rows, as often, but ordered so that they lean on the hidden number: a Gaussian copula. So a
    training function that leaves columns out, or takes only a few, still finds the signal in those that it takes.
    """
    hidden = rng.standard_normal(rows)
    columns: dict[str, Any] = {}
    truth = hidden
    for name in case.training.columns:
        if name != case.recipe.target:
            noisy = STRENGTH * hidden + np.sqrt(1 - STRENGTH**2) * rng.standard_normal(rows)
            columns[name] = _taken(case.training[name], noisy, rng)
        elif case.scored.classes:
            truth = np.floor(stats.norm.cdf(hidden) * len(case.scored.classes))
            classes = pd.Series(list(case.scored.classes), dtype=case.training[name].dtype)
            columns[name] = classes.iloc[truth.astype(int)].reset_index(drop=True)
        else:
            columns[name] = _taken(case.training[name], hidden, rng)
    return pd.DataFrame(columns), truth


def _taken(column: pd.Series[Any], leaning: Floats, rng: np.random.Generator) -> pd.Series[Any]:
    """Values of `column`, as often as there, the higher the more `leaning`; as many missing as there."""
    present = column.dropna()
    ordered = present.sort_values(key=None if pd.api.types.is_numeric_dtype(column) else lambda some: some.astype(str))
    places = (stats.norm.cdf(leaning) * len(ordered)).astype(int)
    taken = ordered.iloc[places].reset_index(drop=True)
    missing = rng.random(len(taken)) < column.isna().mean()
    return taken.mask(missing) if missing.any() else taken
