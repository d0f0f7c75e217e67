"""Suites of expectations: read and checked before any data is, and what each needs to be measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from prefect_mlops.blocks.errors import Invalid

Severity: TypeAlias = Literal["critical", "warning", "info"]
Scope: TypeAlias = Literal["rows", "columns", "schema"]

# Whether one row meets these can be told from that row alone. Whatever is not named here sees all rows at once.
_BY_ROW = {
    "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_column_pair_values_to_be_equal",
    "expect_column_pair_values_to_be_in_set",
    "expect_column_value_lengths_to_be_between",
    "expect_column_value_lengths_to_equal",
    "expect_column_values_to_be_between",
    "expect_column_values_to_be_dateutil_parseable",
    "expect_column_values_to_be_in_set",
    "expect_column_values_to_be_json_parseable",
    "expect_column_values_to_be_null",
    "expect_column_values_to_match_json_schema",
    "expect_column_values_to_match_regex",
    "expect_column_values_to_match_regex_list",
    "expect_column_values_to_match_strftime_format",
    "expect_column_values_to_not_be_in_set",
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_not_match_regex",
    "expect_column_values_to_not_match_regex_list",
    "expect_multicolumn_sum_to_equal",
    "expect_multicolumn_values_to_be_equal",
    "expect_select_column_values_to_be_unique_within_record",
}
_SCHEMA = {
    "expect_column_to_exist",
    "expect_table_column_count_to_be_between",
    "expect_table_column_count_to_equal",
    "expect_table_columns_to_match_ordered_list",
    "expect_table_columns_to_match_set",
}
_COUNTS = {"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"}
_OF_DATABASES = {
    "expect_query_results_to_match_comparison",
    "expect_table_row_count_to_equal_other_table",
    "unexpected_rows_expectation",
}


@dataclass(frozen=True, eq=False)
class Expectation:
    """One expectation of a suite.

    Attributes:
        gx: The expectation itself, an object of Great Expectations.
        severity: What its failure means.
        scope: Whether it is measured row by row, on whole columns, or on the schema alone.
        about: The columns that it says something of; empty if that is the table.
        columns: The columns that it needs, those of its row condition too; None for all of them.
    """

    gx: Any
    severity: Severity
    scope: Scope
    about: tuple[str, ...]
    columns: tuple[str, ...] | None

    @property
    def type(self) -> str:
        """Its type, such as `expect_column_values_to_be_between`."""
        return self.gx.expectation_type

    @property
    def conditional(self) -> bool:
        """Whether it says something only of rows that meet a condition."""
        return getattr(self.gx, "row_condition", None) is not None

    @property
    def arguments(self) -> dict[str, Any]:
        """What the suite says of it, and nothing more."""
        return self.gx.configuration.kwargs


@dataclass(frozen=True)
class Suite:
    """Expectations, and the bytes that stand for them: the same suite has the same bytes."""

    name: str
    expectations: tuple[Expectation, ...]
    document: bytes


def read_suite(source: Path | str | Mapping[str, Any] | Any) -> Suite:
    """Read a suite, and check each of its expectations as far as that goes without data.

    Args:
        source: A JSON file of Great Expectations 1.x, which may lie in a package as `package:file`, what it holds,
            or an `ExpectationSuite`.

    Raises:
        Invalid: If there is no such file, it is no suite, or an expectation in it is wrong.
    """
    document = source if isinstance(source, Mapping) else _document(source)
    name = str(document.get("name") or "the suite")
    listed = document.get("expectations")
    if not isinstance(listed, list) or not listed:
        raise Invalid(name, "lists at least one expectation under `expectations`", listed, _LIKE)
    expectations = tuple(_expectation(name, number, one) for number, one in enumerate(listed, start=1))
    plain = [
        {"type": one.type, "severity": one.severity, "kwargs": one.gx.configuration.to_json_dict()["kwargs"]}
        for one in expectations
    ]
    return Suite(name, expectations, json.dumps({"name": name, "expectations": plain}, sort_keys=True).encode())


_LIKE = 'write {"name": "...", "expectations": [{"type": "expect_...", "kwargs": {...}, "severity": "critical"}]}'


def _document(source: Any) -> Mapping[str, Any]:
    if not isinstance(source, (str, Path)):
        if hasattr(source, "to_json_dict") and hasattr(source, "expectations"):
            return source.to_json_dict()
        raise Invalid("a suite", "is a JSON file, what it holds, or an ExpectationSuite", type(source).__name__)
    try:
        document = json.loads(_located(str(source)).read_bytes())
    except (OSError, ModuleNotFoundError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise Invalid("the suite", f"is a file that can be read ({reason})", str(source), "check its path") from error
    except ValueError as error:
        raise Invalid(f"the suite {source}", "is JSON in UTF-8", str(error), _LIKE) from error
    if not isinstance(document, dict):
        raise Invalid(f"the suite {source}", "is a JSON object", type(document).__name__, _LIKE)
    return cast("dict[str, Any]", document)


def _located(source: str) -> Traversable:
    """The file, which lies in a package where it is named as `package:file`."""
    package, colon, name = source.partition(":")
    return resources.files(package) / name if colon and not Path(source).exists() else Path(source)


def _expectation(suite: str, number: int, entry: Any) -> Expectation:
    """Have Great Expectations make the expectation that an entry describes."""
    thing = f"expectation {number} of {suite}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
        raise Invalid(thing, 'has a "type", such as "expect_column_values_to_be_between"', entry)
    kind, kwargs = entry["type"], entry.get("kwargs", {})
    thing = f"{thing}, {kind},"
    if kind not in _known():
        near = get_close_matches(kind, _known(), 1, 0.8)
        rule = "is one that Great Expectations has for tables"
        raise Invalid(thing, rule, kind, f"did you mean {near[0]}?" if near else "look it up in its gallery")
    if not isinstance(kwargs, Mapping):
        raise Invalid(thing, "has an object as its kwargs", kwargs)
    for name, value in kwargs.items():
        if isinstance(value, Mapping) and "$PARAMETER" in value:
            raise Invalid(f"{name} of {thing}", "is a value", value, "nobody gives parameters here: write the value")
    gx = _made(thing, kind, kwargs, entry)
    about = _about(kwargs)
    return Expectation(gx, gx.severity.value, _scope(gx), about, _columns(gx, about))


def _made(thing: str, kind: str, kwargs: Mapping[str, Any], entry: Mapping[str, Any]) -> Any:
    from great_expectations.exceptions.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    severity: Any = entry.get("severity") or "critical"
    try:
        configuration = ExpectationConfiguration(type=kind, kwargs=dict(kwargs), severity=severity)
        return configuration.to_domain_obj()
    except (ValueError, TypeError, GreatExpectationsError) as error:
        raise Invalid(thing, _rule(error), dict(kwargs), "mend the suite; no data was read") from error


def _known() -> set[str]:
    import great_expectations.expectations  # registers them
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    assert great_expectations.expectations
    return set(list_registered_expectation_implementations()) - _OF_DATABASES


def _rule(error: Exception) -> str:
    """What pydantic, or Great Expectations, has against it, in one line."""
    found = getattr(error, "errors", None)
    if not callable(found):
        return "is well formed (" + str(error).strip().splitlines()[0] + ")"
    told = cast("list[dict[str, Any]]", found())
    words = [": ".join([*(str(part) for part in one["loc"] if part != "__root__"), one["msg"]]) for one in told]
    return f"is well formed ({'; '.join(dict.fromkeys(words))})"


def _scope(gx: Any) -> Scope:
    if gx.expectation_type in _SCHEMA:
        return "schema"
    return "rows" if gx.expectation_type in _BY_ROW and _condition(gx) is not None else "columns"


def _about(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    one = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    return tuple(dict.fromkeys([*one, *kwargs.get("column_list", ())]))


def _columns(gx: Any, about: tuple[str, ...]) -> tuple[str, ...] | None:
    """The columns that it looks at; None if that is unknown."""
    condition = _condition(gx)
    if condition is None or (not about and gx.expectation_type not in _COUNTS):
        return None
    return tuple(dict.fromkeys([*about, *condition]))


def _condition(gx: Any) -> list[str] | None:
    """The columns that its row condition names; None if that is a text which only pandas understands."""
    condition = getattr(gx, "row_condition", None)
    return None if hasattr(condition, "pass_through_filter") else list(_named(condition))


def _named(condition: Any) -> Iterator[str]:
    if hasattr(condition, "column"):
        yield condition.column.name
    for child in getattr(condition, "conditions", ()):
        yield from _named(child)
