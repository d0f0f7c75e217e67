"""Expectations and what came of them, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prefect_mlops.tasks._expecting import NO_COLUMN, Measured, plain
from prefect_mlops.tasks._suites import Expectation

SHOWN = 6
"""How many values of a set are spelt out."""


def expected(one: Expectation) -> str:
    """What is expected, without the column: `between 16 and 120`, `mean at least 38`."""
    kind, arguments = one.type, one.arguments
    if kind in _RULES:
        return _RULES[kind](arguments) + _when(one)
    if kind in _FIGURES:
        return f"{_FIGURES[kind]} {_bounds(arguments)}" + _when(one)
    words = kind.removeprefix("expect_").replace("column_", "", 1).replace("_", " ")
    others = {name: value for name, value in arguments.items() if name not in _PLACES}
    told = ", ".join(f"{name} {short(value)}" for name, value in others.items())
    return words + f" ({told})" * bool(told) + _when(one)


def about(one: Expectation) -> str:
    """The column, the columns, or the table."""
    return " and ".join(one.about) or "the table"


def sentence(one: Expectation, found: Measured, rows: int) -> str:
    """What came of an expectation: where, how many, what."""
    if found.success is None:
        missing = found.trouble == NO_COLUMN
        return f"{about(one)}: " + (NO_COLUMN if missing else f"{expected(one)} could not be measured: {found.trouble}")
    if one.type == "expect_column_to_exist":
        return f"{about(one)}: " + ("is there" if found.success else NO_COLUMN)
    if one.scope == "schema" and (words := _differences(found)):
        return f"{about(one)}: columns {words}"
    if not found.by_row:
        return f"{about(one)}: {expected(one)}; {_figure(found)}"
    if not found.looked_at:
        return f"{about(one)}: {expected(one)}; there is nothing to look at"
    if not found.bad.size:
        return f"{about(one)}: all {found.looked_at:,} rows {expected(one)}"
    return f"{about(one)}: {found.bad.size:,} of {rows:,} rows {_not(one)}{_tolerance(one, found)}; {first(found)}"


def first(found: Measured) -> str:
    """Where the first bad row is, counted from 1, and what stands there."""
    return f"first at row {int(found.bad[0]) + 1:,} ({found.example})"


def short(value: Any) -> str:
    """A value of a suite, a few words long."""
    if isinstance(value, (list, tuple, set)):
        shown = [short(one) for one in list(value)[:SHOWN]]
        return "{" + ", ".join([*shown, *([f"… {len(value) - SHOWN} more"] if len(value) > SHOWN else [])]) + "}"
    text = value if isinstance(value, str) else plain(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _not(one: Expectation) -> str:
    """What is said of the rows that do not meet it."""
    if one.type == "expect_column_values_to_not_be_null":
        return "without a value" + _when(one)
    if one.type == "expect_column_values_to_be_null":
        return "with a value" + _when(one)
    return expected(one)[4:] if expected(one).startswith("not ") else f"not {expected(one)}"


def _tolerance(one: Expectation, found: Measured) -> str:
    mostly = float(one.arguments.get("mostly", 1))
    if mostly == 1:
        return ""
    share = 100 * found.bad.size / found.looked_at
    return f" ({share:.3g} %, at most {100 * (1 - mostly):.3g} % allowed)"


def _figure(found: Measured) -> str:
    """What was found of a figure, or of a set."""
    if words := _differences(found):
        return words
    observed = found.result.get("observed_value")
    return "found nothing to measure" if observed is None else f"found {short(observed)}"


def _differences(found: Measured) -> str:
    """What is missing in a set, and what should not be there; empty if nothing, or it is about no set."""
    result = found.result
    told = {
        "not expected": result.get("partial_unexpected_list") or _mismatched(result, "unexpected"),
        "missing": result.get("partial_missing_list") or _mismatched(result, "missing"),
    }
    return ", ".join(f"{name} {short(values)}" for name, values in told.items() if values)


def _mismatched(result: dict[str, Any], which: str) -> Iterable[Any]:
    mismatched = (result.get("details") or {}).get("mismatched")
    return mismatched.get(which, ()) if isinstance(mismatched, dict) else ()


def _when(one: Expectation) -> str:
    condition = getattr(one.gx, "row_condition", None)
    if condition is None:
        return ""
    return f" where {short(getattr(condition, 'pass_through_filter', None) or repr(condition))}"


def _bounds(arguments: dict[str, Any], unit: str = "") -> str:
    low, high = arguments.get("min_value"), arguments.get("max_value")
    above, below = arguments.get("strict_min"), arguments.get("strict_max")
    if low is not None and high is not None and not above and not below:
        return f"between {plain_number(low)} and {plain_number(high)}{unit}"
    parts = [
        f"{'above' if above else 'at least'} {plain_number(low)}" if low is not None else "",
        f"{'below' if below else 'at most'} {plain_number(high)}" if high is not None else "",
    ]
    return " and ".join(filter(None, parts)) + unit


def plain_number(value: Any) -> str:
    """A bound as a person writes it."""
    return value if isinstance(value, str) else plain(value)


_PLACES = {"column", "column_A", "column_B", "column_list", "mostly", "row_condition", "condition_parser"}

_RULES: dict[str, Callable[[dict[str, Any]], str]] = {
    "expect_column_distinct_values_to_be_in_set": lambda of: f"only values in {short(of['value_set'])}",
    "expect_column_distinct_values_to_contain_set": lambda of: f"each value in {short(of['value_set'])} there",
    "expect_column_distinct_values_to_equal_set": lambda of: f"just the values in {short(of['value_set'])}",
    "expect_column_most_common_value_to_be_in_set": lambda of: f"most common value in {short(of['value_set'])}",
    "expect_column_pair_values_a_to_be_greater_than_b": lambda of: (
        f"in order, {of['column_A']} {'at least' if of.get('or_equal') else 'above'} {of['column_B']}"
    ),
    "expect_column_pair_values_to_be_equal": lambda of: "equal",
    "expect_column_to_exist": lambda of: "is there",
    "expect_column_value_lengths_to_be_between": lambda of: f"of a length {_bounds(of)}",
    "expect_column_value_lengths_to_equal": lambda of: f"of length {of['value']}",
    "expect_column_values_to_be_between": _bounds,
    "expect_column_values_to_be_in_set": lambda of: f"in {short(of['value_set'])}",
    "expect_column_values_to_be_in_type_list": lambda of: f"of a type in {short(of['type_list'])}",
    "expect_column_values_to_be_null": lambda of: "without a value",
    "expect_column_values_to_be_of_type": lambda of: f"of type {of['type_']}",
    "expect_column_values_to_be_unique": lambda of: "unique",
    "expect_column_values_to_match_regex": lambda of: f"matching {short(of['regex'])}",
    "expect_column_values_to_not_be_in_set": lambda of: f"not in {short(of['value_set'])}",
    "expect_column_values_to_not_be_null": lambda of: "with a value",
    "expect_column_values_to_not_match_regex": lambda of: f"not matching {short(of['regex'])}",
    "expect_compound_columns_to_be_unique": lambda of: "unique together",
    "expect_table_column_count_to_equal": lambda of: f"number of columns {of['value']}",
    "expect_table_columns_to_match_ordered_list": lambda of: f"columns in the order {short(of['column_list'])}",
    "expect_table_columns_to_match_set": lambda of: f"columns {short(of['column_set'])}",
    "expect_table_row_count_to_equal": lambda of: f"number of rows {of['value']:,}",
}

_FIGURES = {
    "expect_column_max_to_be_between": "largest value",
    "expect_column_mean_to_be_between": "mean",
    "expect_column_median_to_be_between": "median",
    "expect_column_min_to_be_between": "smallest value",
    "expect_column_proportion_of_non_null_values_to_be_between": "share of rows with a value",
    "expect_column_proportion_of_unique_values_to_be_between": "share of distinct values",
    "expect_column_stdev_to_be_between": "standard deviation",
    "expect_column_sum_to_be_between": "sum",
    "expect_column_unique_value_count_to_be_between": "number of distinct values",
    "expect_table_column_count_to_be_between": "number of columns",
    "expect_table_row_count_to_be_between": "number of rows",
}
