"""Which rows are held out is decided by their content alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.flows.creditco import LABELS, RECIPE, TARGET, census
from prefect_mlops.tasks._holdout import parted, row_hashes

FRAME = census(3_000, seed=11).replace("?", None)
FEATURES = FRAME.drop(columns=[TARGET])


def sides(frame: pd.DataFrame, **recipe: int) -> tuple[set[int], set[int]]:
    """The numbers in `fnlwgt` of the rows on either side; each row of the census here has its own."""
    parts = parted(frame, RECIPE.model_copy(update=recipe))
    return set(parts.training["fnlwgt"].astype(int)), set(parts.holdout["fnlwgt"].astype(int))


@pytest.fixture(autouse=True)
def _every_row_has_its_own_number() -> None:
    FRAME["fnlwgt"] = np.arange(len(FRAME))


@pytest.mark.parametrize("percent", [1, 20, 50, 90])
def test_about_as_many_rows_are_held_out_as_asked(percent: int) -> None:
    training, holdout = sides(FRAME, holdout_percent=percent)
    assert training | holdout == set(range(len(FRAME)))
    expected = len(FRAME) * percent / 100
    assert abs(len(holdout) - expected) < 4 * np.sqrt(expected * (1 - percent / 100))


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.sample(frac=1, random_state=0),
        lambda frame: frame[frame.columns[::-1]],
        lambda frame: frame.assign(**{TARGET: LABELS[0]}),
        lambda frame: frame.assign(age=frame["age"].astype(float)),
        lambda frame: frame.assign(age=frame["age"].astype("Int32")),
        lambda frame: frame.assign(age=frame["age"].astype(str)),
        lambda frame: frame.assign(age=frame["age"].astype(object)),
        lambda frame: frame.assign(workclass=frame["workclass"].astype("category")),
        lambda frame: frame.assign(workclass=frame["workclass"].astype(object)),
        lambda frame: pd.concat([frame, census(500, seed=12).assign(fnlwgt=np.arange(10_000, 10_500))]),
    ],
)
def test_a_row_stays_on_its_side_in_every_version(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    training, holdout = sides(FRAME)
    now_training, now_holdout = sides(change(FRAME))
    assert training <= now_training
    assert holdout <= now_holdout


def test_a_missing_value_in_one_row_moves_no_other_row() -> None:
    other = FRAME.copy()
    other["age"] = other["age"].astype(float)
    other.loc[0, "age"] = np.nan
    assert (row_hashes(other) != row_hashes(FRAME)).tolist() == [True] + [False] * (len(FRAME) - 1)


def test_a_larger_percent_holds_out_the_same_rows_and_more() -> None:
    assert sides(FRAME, holdout_percent=10)[1] < sides(FRAME, holdout_percent=30)[1]


def test_another_seed_holds_out_other_rows() -> None:
    both = sides(FRAME, seed=0)[1] & sides(FRAME, seed=1)[1]
    assert 0.02 * len(FRAME) < len(both) < 0.06 * len(FRAME)


def test_duplicates_are_on_one_side() -> None:
    parts = parted(pd.concat([FRAME, FRAME.assign(**{TARGET: LABELS[1]})]), RECIPE)
    assert not set(parts.training["fnlwgt"]) & set(parts.holdout["fnlwgt"])


def test_the_order_of_both_parts_is_that_of_their_content() -> None:
    one, other = parted(FRAME, RECIPE), parted(FRAME.iloc[::-1], RECIPE)
    pd.testing.assert_frame_equal(one.training, other.training)
    pd.testing.assert_frame_equal(one.holdout, other.holdout)


def test_rows_that_are_all_the_same_cannot_be_held_out() -> None:
    with pytest.raises(Invalid, match="leaves rows on both sides, got '1 different rows'"):
        parted(pd.concat([FRAME.head(1)] * 100), RECIPE)


def test_the_hashes_are_these_for_ever() -> None:
    """Another rule would hold out rows that a champion was trained on: it needs another name in the evidence."""
    frame = pd.DataFrame({"n": [1, 2.5, None, -0.0], "t": ["a", "ä", None, "2.5"], "b": [True, False, True, False]})
    assert [f"{value:016x}" for value in row_hashes(frame, seed=3)] == [
        "c1a3fdcd9f335218",
        "59d8a398f17d916e",
        "31bd9a5fe36abff1",
        "3bca8d00d4b2d2a0",
    ]


def plainly(rows: pd.DataFrame, seed: int) -> list[int]:
    """The rule as docs/format.md has it, cell by cell."""

    def digest(text: str, key: int) -> int:
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key.to_bytes(8, "big")).digest(), "big")

    def mixed(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
        return value ^ (value >> 31)

    def cell(value: Any) -> int:
        if pd.isna(value):
            return 0x9E3779B97F4A7C15
        try:
            return struct.unpack("<Q", struct.pack("<d", float(value) + 0.0))[0]
        except ValueError:
            return digest(str(value), 0)

    keys = [digest(name, seed) for name in rows.columns]
    cells = rows.astype(object).itertuples(index=False)
    return [mixed(sum(mixed(cell(value) ^ key) for value, key in zip(row, keys, strict=True)) % 2**64) for row in cells]


def test_the_rule_is_the_one_that_the_format_describes() -> None:
    rows = FEATURES.head(200).assign(share=np.linspace(-1, 1, 200), known=[True, False] * 100)
    assert row_hashes(rows, seed=9).tolist() == plainly(rows, seed=9)


def test_hashes_spread_evenly_whatever_the_rows_are_like() -> None:
    frame = pd.DataFrame({"a": np.arange(20_000) // 100, "b": np.arange(20_000) % 100})
    counts = np.bincount((row_hashes(frame) >> np.uint64(60)).astype(int), minlength=16)
    assert ((counts - 1_250) ** 2 / 1_250).sum() < 37.7  # chi-square of 15 degrees of freedom, 0.1 %
