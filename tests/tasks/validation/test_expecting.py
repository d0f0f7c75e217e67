"""Measured batch by batch, every expectation comes to what Great Expectations says of the whole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prefect_mlops.tasks._expecting import Measured, measure
from prefect_mlops.tasks._suites import read_suite
from prefect_mlops.tasks._tables import Table, open_table
from tests.tasks.validation.suites import expect, suite

MEN: dict[str, Any] = {"type": "comparison", "column": {"name": "sex"}, "operator": "==", "parameter": "m"}
QUERY = {"condition_parser": "pandas"}
HALF = {"quantiles": [0.5], "value_ranges": [[0, 9]]}
BY_ROW = [
    expect("column_values_to_be_between", column="n", min_value=10, max_value=90),
    expect("column_values_to_be_between", column="n", min_value=10, strict_min=True, mostly=0.9),
    expect("column_values_to_be_in_set", column="text", value_set=["ab", "abc", "b"]),
    expect("column_values_to_not_be_in_set", column="text", value_set=["ab"], mostly=0.5),
    expect("column_values_to_not_be_null", column="n"),
    expect("column_values_to_not_be_null", column="text", mostly=0.5),
    expect("column_values_to_be_null", column="text"),
    expect("column_values_to_match_regex", column="text", regex="^a"),
    expect("column_values_to_not_match_regex", column="text", regex="c$"),
    expect("column_value_lengths_to_be_between", column="text", min_value=2),
    expect("column_value_lengths_to_equal", column="text", value=2),
    expect("column_pair_values_a_to_be_greater_than_b", column_A="n", column_B="m"),
    expect("column_pair_values_to_be_equal", column_A="n", column_B="m", ignore_row_if="either_value_is_missing"),
    expect("column_values_to_be_between", column="n", min_value=50, row_condition=MEN),
    expect("column_values_to_not_be_null", column="n", row_condition=MEN),
    expect("select_column_values_to_be_unique_within_record", column_list=["n", "m"]),
    expect("multicolumn_sum_to_equal", column_list=["n", "m"], sum_total=100),
]
ACROSS_ROWS = [
    expect("column_values_to_be_unique", column="m"),
    expect("column_values_to_be_unique", column="text", mostly=0.1),
    expect("compound_columns_to_be_unique", column_list=["n", "sex"]),
    expect("column_values_to_be_increasing", column="m"),
    expect("column_value_z_scores_to_be_less_than", column="m", threshold=1.5, double_sided=True),
    expect("column_values_to_be_between", column="m", min_value=50, row_condition="m > m.mean()", **QUERY),
]  # fmt: skip
FIGURES = [
    expect("column_mean_to_be_between", column="n", min_value=0, max_value=40),
    expect("column_median_to_be_between", column="n", min_value=0, max_value=60),
    expect("column_stdev_to_be_between", column="m", max_value=1),
    expect("column_max_to_be_between", column="m", max_value=99),
    expect("column_sum_to_be_between", column="m", min_value=0),
    expect("column_unique_value_count_to_be_between", column="text", max_value=3),
    expect("column_proportion_of_unique_values_to_be_between", column="m", min_value=0.9),
    expect("column_distinct_values_to_be_in_set", column="text", value_set=["ab"]),
    expect("column_distinct_values_to_contain_set", column="text", value_set=["zz"]),
    expect("column_most_common_value_to_be_in_set", column="sex", value_set=["f", "m"]),
    expect("column_quantile_values_to_be_between", column="m", quantile_ranges=HALF),
    expect("column_values_to_be_of_type", column="m", type_="int64"),
    expect("column_values_to_be_in_type_list", column="m", type_list=["str"]),
    expect("column_to_exist", column="n"),
    expect("column_to_exist", column="nowhere"),
    expect("table_row_count_to_equal", value=200),
    expect("table_row_count_to_be_between", max_value=20),
    expect("table_column_count_to_equal", value=3),
    expect("table_columns_to_match_set", column_set=["n", "m", "sex", "text"]),
    expect("table_columns_to_match_ordered_list", column_list=["m", "n", "sex", "text"]),
]  # fmt: skip


def rows(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "n": rng.integers(0, 100, 200).astype(float),
            "m": rng.integers(0, 100, 200),
            "sex": rng.choice(["m", "f"], 200),
            "text": rng.choice(["a", "ab", "abc", "bc", "b"], 200),
        }
    )
    frame.loc[rng.random(200) < 0.1, "n"] = None
    frame.loc[rng.random(200) < 0.3, "text"] = None
    frame.loc[:40, "n"] = None
    return frame


def table(frame: pd.DataFrame, folder: Path, batch: int = 17) -> Table:
    frame.to_parquet(folder / "a.parquet", index=False)
    return open_table(folder / "a.parquet", folder / "parts", batch=batch)


def plain(frame: pd.DataFrame, expectations: list[dict[str, Any]]) -> list[Any]:
    """What Great Expectations says, used as its manual has it."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    made = read_suite(suite(*expectations)).expectations
    return [batch.validate(one.gx, result_format="COMPLETE") for one in made]


@pytest.mark.parametrize("seed", [1, 2])
def test_batches_come_to_what_the_whole_does(seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frame, expectations = rows(seed), [*BY_ROW, *ACROSS_ROWS, *FIGURES]
    found = measure(table(frame, tmp_path), read_suite(suite(*expectations)).expectations)
    assert capfd.readouterr() == ("", ""), "neither bars nor warnings"
    for one, mine, theirs in zip(
        expectations, found, plain(pd.read_parquet(tmp_path / "a.parquet"), expectations), strict=True
    ):
        assert not mine.trouble, one
        assert mine.success is bool(theirs.success), one
        if mine.by_row:
            assert mine.bad.tolist() == theirs.result["unexpected_index_list"], one
            assert mine.success or mine.bad.size, one
        elif "observed_value" in theirs.result and "distinct" not in one["type"]:
            assert mine.result["observed_value"] == theirs.result["observed_value"], one


def test_how_many_rows_it_is_about(tmp_path: Path) -> None:
    frame = rows(3)
    wanted = [
        expect("column_values_to_be_in_set", column="text", value_set=["ab"]),
        expect("column_values_to_not_be_null", column="text"),
        expect("column_values_to_be_between", column="n", min_value=0, row_condition=MEN),
        expect("column_pair_values_to_be_equal", column_A="n", column_B="m", ignore_row_if="either_value_is_missing"),
    ]
    found = measure(table(frame, tmp_path), read_suite(suite(*wanted)).expectations)
    men = frame[frame["sex"] == "m"]
    counts = [frame["text"].notna().sum(), 200, men["n"].notna().sum(), frame["n"].notna().sum()]
    assert [one.looked_at for one in found] == counts


def one(frame: pd.DataFrame, expectation: dict[str, Any], folder: Path) -> Measured:
    return measure(table(frame, folder), read_suite(suite(expectation)).expectations)[0]


def test_an_example_is_what_stands_in_the_first_bad_row(tmp_path: Path) -> None:
    frame = rows(4)
    frame.loc[[60, 180], "n"] = 500
    found = one(frame, expect("column_values_to_be_between", column="n", max_value=100), tmp_path)
    assert (found.bad.tolist(), found.example) == ([60, 180], "500")
    pair = expect("column_pair_values_a_to_be_greater_than_b", column_A="sex", column_B="text", row_condition=MEN)
    frame.loc[0, ["sex", "text"]] = ["m", "z"]
    assert one(frame, pair, tmp_path).example == "sex 'm', text 'z'"


def test_text_among_numbers_is_found_and_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": ["1", "2", None, "forty", "5", "?"]})
    found = one(frame, expect("column_values_to_be_between", column="n", min_value=0), tmp_path)
    assert (found.success, found.bad.tolist()) == (None, [3, 5])
    assert found.trouble == "2 of 6 rows hold no number, first at row 4 ('forty')"


def test_what_cannot_be_measured_says_why_and_hinders_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [
        expect("column_values_to_be_unique", column="nowhere"),
        expect("column_mean_to_be_between", column="text", min_value=1),
        expect("column_values_to_match_like_pattern", column="text", like_pattern="a%"),
        expect("column_values_to_be_between", column="m", min_value=1, row_condition="no such thing", **QUERY),
        expect("column_values_to_be_between", column="m", min_value=0),
    ]  # fmt: skip
    with caplog.at_level(logging.DEBUG):
        found = measure(table(rows(5), tmp_path), read_suite(suite(*wanted)).expectations)
    assert [one.success for one in found] == [None, None, None, None, True]
    assert found[0].trouble == "there is no such column"
    assert all(0 < len(one.trouble) <= 200 for one in found[:4])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
