"""The page of a validation says the verdict first, and nothing in a data file can break it."""

from __future__ import annotations

import pytest

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.errors import DataRefused
from prefect_mlops.flows._pages.data import data_page, spark
from prefect_mlops.flows._pages.markdown import plain
from prefect_mlops.flows.creditco import census
from prefect_mlops.tasks import validate_data
from tests.tasks.validation.conftest import Keep
from tests.tasks.validation.suites import expect, suite

FRAME = census(500, seed=7)
HOSTILE = "<img src=x onerror=alert(1)>|`code`|\n# title\n[a](javascript:b)\\|" + "x" * 10_000


def cells(row: str) -> int:
    return row.replace("\\\\", "").replace("\\|", "").count("|") - 1


def test_the_page_of_data_that_goes_on(store: Store, keep: Keep) -> None:
    frame = FRAME.copy()
    frame.loc[[43, 44], "age"] = 200
    age = expect("column_values_to_be_between", "warning", column="age", min_value=16, max_value=120)
    validated = validate_data.fn(store, keep(frame), suite(age, expect("column_to_exist", column="sex")))
    page = data_page(store, validated.evidence)
    assert page.startswith("# vendor.csv is as expected\n")
    assert "**1 of 2** expectations of test met; **2** rows set aside (0.4 %); 498 rows go on." in page
    row = "| age | between 16 and 120 | warning | **failed** | 2 (0.4 %) | █▁▁▁▁▁▁▁▁▁ |"
    assert row in page
    assert "- age: 2 of 500 rows not between 16 and 120; first at row 44 (200)\n" in page
    assert page.index(row) < page.index("| sex | is there | critical | passed |  |  |")
    assert f".checkout('{validated.quarantine}', 'quarantine')" in page
    assert "read_parquet('quarantine/vendor.quarantine.parquet')" in page
    assert "## What stops it" not in page


def test_the_page_of_data_that_is_refused_survives_what_is_in_it(store: Store, keep: Keep) -> None:
    frame = FRAME.copy()
    frame.loc[7, "income"] = HOSTILE
    frame = frame.rename(columns={"sex": HOSTILE})
    expectations = suite(
        expect("column_values_to_be_in_set", column="income", value_set=["<=50K", ">50K"]),
        expect("column_values_to_be_in_set", column=HOSTILE, value_set=[HOSTILE]),
        expect("column_to_exist", column=HOSTILE + "2"),
    )
    with pytest.raises(DataRefused) as caught:
        validate_data.fn(store, keep(frame, "a|b.csv"), expectations)
    page = data_page(store, caught.value.evidence)
    assert page.startswith("# a|b.csv is refused\n")
    assert page.index("## What stops it") < page.index("## What was expected")
    assert "\n# title" not in page
    for mark in ("<img", "`code", "[a]("):
        assert mark not in page.replace("\\" + mark[0], "")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert {cells(row) for row in rows} == {6}
    assert len(page) < 6_000


def test_bars_show_a_single_row_and_none_apart() -> None:
    assert spark([0, 1, 1000, 500]) == "▁▂█▅"
    assert spark([]) == ""


def test_text_is_one_short_line() -> None:
    assert plain("a\x00b\n\tc\u202e") == "a b c"
    assert len(plain("x" * 1000, 100)) == 100
