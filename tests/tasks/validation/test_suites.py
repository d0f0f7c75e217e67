"""A wrong suite is refused before anything is read, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.tasks import validate_data
from prefect_mlops.tasks._suites import read_suite
from tests.tasks.validation.suites import expect, suite

AGE = expect("column_values_to_be_between", column="age", min_value=16)


def test_a_file_what_it_holds_and_an_object_are_the_same_suite(tmp_path: Path) -> None:
    import great_expectations as gx

    document = suite(AGE, expect("column_values_to_not_be_null", "warning", column="income", mostly=0.9))
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    read = [read_suite(one) for one in (document, path, str(path), gx.ExpectationSuite(**document))]
    assert len({one.document for one in read}) == 1
    assert [one.severity for one in read[0].expectations] == ["critical", "warning"]


WRONG: dict[str, tuple[Any, str]] = {
    "no list": ({"name": "s"}, "s lists at least one expectation under `expectations`, got None"),
    "empty": (suite(), "test lists at least one expectation"),
    "another thing": (7, "a suite is a JSON file, what it holds, or an ExpectationSuite, got 'int'"),
    "no type": (suite(AGE, {"kwargs": {}}), 'expectation 2 of test has a "type"'),
    "misspelt": (suite(expect("column_value_to_be_between", column="a")), "did you mean expect_column_values_to_be_"),
    "for databases": (suite({"type": "unexpected_rows_expectation"}), "is one that Great Expectations has for tables"),
    "no column": (suite(expect("column_values_to_be_unique")), r"well formed \(column: field required\), got \{\}"),
    "column no text": (suite(expect("column_values_to_be_unique", column=3)), "column: str type expected"),
    "unknown argument": (suite(expect("column_to_exist", column="a", colour=1)), "colour: extra fields not permitted"),
    "no bounds": (suite(expect("column_values_to_be_between", column="a")), "min_value and max_value cannot both be"),
    "mostly": (suite(expect("column_values_to_be_unique", column="a", mostly=3)), "mostly: .* less than or equal to 1"),
    "severity": (suite({**AGE, "severity": "error"}), "Must be one of: critical, warning, info"),
    "kwargs": (suite({**AGE, "kwargs": ["age"]}), "has an object as its kwargs"),
    "parameter": (
        suite(expect("column_to_exist", column={"$PARAMETER": "c"})),
        "column of expectation 1 of test, .*, is a value, .* write the value",
    ),
}


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_suite_is_said(wrong: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=said):
        validate_data.fn(Store(url=str(tmp_path / "none")), "sha256:" + "0" * 64, wrong)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"the suite is a file that can be read \(no such file or directory\), got '.*s.json'; check its path"),
        (b"{", "s.json is JSON in UTF-8, got 'Expecting property name"),
        (b"\xff{}", "s.json is JSON in UTF-8"),
        (b"[]", "s.json is a JSON object, got 'list'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Invalid, match=said):
        read_suite(path)
