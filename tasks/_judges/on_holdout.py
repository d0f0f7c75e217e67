"""Judges that look at figures on the hold-out."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from prefect_mlops.blocks._functions import function_named
from prefect_mlops.blocks.model_tests import Custom, Floor, Generalises, NotTooGood, PerSlice
from prefect_mlops.tasks._judges.case import Case, Finding, Scored, Unmeasurable


def floor(test: Floor, case: Case) -> Finding:
    """Whether a figure reaches its floor."""
    figure, metric = case.scored.figure(test.metric), case.scored.metric(test.metric)
    detail = f"{metric} {figure:.4f} on {len(case.holdout):,} rows, at least {test.at_least:g} wanted"
    return Finding("passed" if figure >= test.at_least else "failed", detail)


def per_slice(test: PerSlice, case: Case) -> Finding:
    """Whether every group of rows that is large enough reaches the floor."""
    case.need_column(test.column)
    groups = {str(value): rows for value, rows in case.holdout.groupby(test.column, dropna=False)}
    large = {value: rows for value, rows in groups.items() if len(rows) >= test.min_rows}
    figures = {value: _of_group(test, case, value, rows) for value, rows in large.items()}
    small = [f"{value} ({len(rows)} rows)" for value, rows in groups.items() if value not in large]
    left_out = f"; not measured: {', '.join(small)}" if small else ""
    if not figures:
        return Finding("could not be measured", f"no group of {test.column} is large enough{left_out}")
    below = {value: figure for value, figure in figures.items() if figure < test.at_least}
    shown = below or {min(figures, key=figures.__getitem__): min(figures.values())}
    said = ", ".join(f"{value} {figure:.4f}" for value, figure in shown.items())
    wanted = f"at least {test.at_least:g} wanted in each of {len(figures)} groups"
    return Finding("failed" if below else "passed", f"{'' if below else 'lowest: '}{said}; {wanted}{left_out}")


def _of_group(test: PerSlice, case: Case, value: str, rows: pd.DataFrame) -> float:
    try:
        return Scored.of(case.model, rows, case.recipe.target).figure(test.metric)
    except Unmeasurable as error:
        raise Unmeasurable(f"{test.column} {value}: {error}") from None


def generalises(test: Generalises, case: Case) -> Finding:
    """Whether the figure on the training rows is not much better than that on the hold-out."""
    seen = Scored.of(case.model, case.training, case.recipe.target).figure(test.metric)
    unseen, metric = case.scored.figure(test.metric), case.scored.metric(test.metric)
    detail = (
        f"{metric} {seen:.4f} on training rows, {unseen:.4f} on new ones: {max(seen - unseen, 0):.4f} lost, "
        f"at most {test.gap:g} allowed"
    )
    return Finding("passed" if seen - unseen <= test.gap else "failed", detail)


def not_too_good(test: NotTooGood, case: Case) -> Finding:
    """Whether the figure can be believed; if not, which column it hangs on."""
    figure, metric = case.scored.figure(test.metric), case.scored.metric(test.metric)
    detail = f"{metric} {figure:.4f} on new rows, below {test.below:g} is believed"
    if figure < test.below:
        return Finding("passed", detail)
    column, left = _most_costly(test, case)
    return Finding("failed", f"{detail}; it hangs on {column}: with that column shuffled, {left:.4f} is left")


def _most_costly(test: NotTooGood, case: Case) -> tuple[str, float]:
    """The column that costs most when its values are shuffled, Breiman (2001), doi:10.1023/A:1010933404324."""
    order = np.random.default_rng(case.recipe.seed).permutation(len(case.holdout))
    left = {
        name: Scored.of(
            case.model,
            case.holdout.assign(**{name: case.holdout[name].iloc[order].to_numpy()}),
            case.recipe.target,
        ).figure(test.metric)
        for name in map(str, case.features.columns)
    }
    column = min(left, key=left.__getitem__)
    return column, left[column]


def custom(test: Custom, case: Case) -> Finding:
    """What a team's own function says."""
    said: Any = function_named(test.function, "function of a custom test")(
        case.model, case.holdout.copy(), dict(test.params)
    )
    passed, detail = cast("tuple[Any, Any]", said if isinstance(said, tuple) and len(said) == 2 else (said, ""))
    if not isinstance(passed, (bool, np.bool_)) or not isinstance(detail, str):
        raise Unmeasurable(f"{test.function} must return bool or (bool, str), got {said!r:.200}")
    return Finding("passed" if passed else "failed", detail or f"{test.function} says {bool(passed)}")
