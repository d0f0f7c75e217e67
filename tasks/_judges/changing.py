"""Judges that change a column and look at what that does to the answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from prefect_mlops.blocks.model_tests import Direction, Invariant
from prefect_mlops.tasks._judges.case import Case, Finding, Scored, Unmeasurable
from prefect_mlops.tasks._judging import percent

MOST_VALUES = 20
"""How many other values a column is given; the most frequent ones, or numbers spread over all that there are."""

SAME_NUMBER = 0.01
"""Two numbers are the same answer up to this share of the target's standard deviation."""


def invariant(test: Invariant, case: Case) -> Finding:
    """Whether answers stay as they are when a column gets each other value that training has seen."""
    values = _values(case.need_column(test.column))
    changed = np.zeros(len(case.holdout), dtype=bool)
    worst = (0, "")
    for value in values:
        moved = _changed(case, _with(case.holdout, test.column, value))
        worst = max(worst, (int(moved.sum()), str(value)))
        changed |= moved
    share = float(changed.mean())
    detail = f"{test.name} changes {percent(share)} of answers, at most {percent(test.at_most)} allowed"
    detail += f"; most of all as {worst[1]}, {worst[0]:,} of {len(changed):,}" if worst[0] else ""
    return Finding("passed" if share <= test.at_most else "failed", detail)


def _values(column: pd.Series[Any]) -> list[Any]:
    counts = column.value_counts()
    if len(counts) < 2:
        raise Unmeasurable(f"{column.name} has {len(counts)} values in the training rows, there is no other one to try")
    if len(counts) <= MOST_VALUES or not pd.api.types.is_numeric_dtype(column):
        return list(counts.index[:MOST_VALUES])
    return list(np.unique(column.dropna().quantile(np.linspace(0, 1, MOST_VALUES), interpolation="nearest")))


def _with(rows: pd.DataFrame, name: str, value: Any) -> pd.DataFrame:
    return rows.assign(**{name: pd.Series([value] * len(rows), index=rows.index, dtype=rows[name].dtype)})


def _changed(case: Case, rows: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    before, after = case.scored.predicted, Scored.of(case.model, rows, case.recipe.target).predicted
    if case.scored.classes:
        return before != after
    least = SAME_NUMBER * float(case.training[case.recipe.target].std())
    return np.abs(before.astype(float) - after.astype(float)) > least


def direction(test: Direction, case: Case) -> Finding:
    """Whether the score goes no other way than it may when a column is raised."""
    column = case.need_column(test.column)
    if not pd.api.types.is_numeric_dtype(column):
        raise Unmeasurable(f"{test.column} holds no numbers that could be raised")
    raised = case.holdout.assign(**{test.column: case.holdout[test.column] + _step(column, test.by)})
    moved = Scored.of(case.model, raised, case.recipe.target).scores - case.scored.scores
    wrong = moved < -1e-9 if test.score == "up" else moved > 1e-9
    share = float(wrong.mean())
    detail = (
        f"raising {test.column} by {test.by:g} moves the score the wrong way in {percent(share)} of rows, "
        f"at most {percent(test.at_most)} allowed"
    )
    return Finding("passed" if share <= test.at_most else "failed", detail)


def _step(column: pd.Series[Any], by: float) -> float | int:
    """A whole number where the column has whole numbers, so that it keeps its type."""
    return int(by) if pd.api.types.is_integer_dtype(column) and float(by).is_integer() else by
