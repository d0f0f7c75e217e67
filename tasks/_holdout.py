"""Which rows training never sees: decided by their content, so that it is the same in every version of the data.

The hash of a row is made of its features alone, name by name: it stays the same when rows or columns are in another
order, when the label is corrected, or when the data grows. So duplicates are on one side, and a model of an earlier
version, of the same seed and percent, was not trained on a row that is held out now. A larger percent holds out the
same rows and more.

A cell counts as a number where it is one, whatever the type of its column: 36 is 36 as integer, as 36.0 because
another row lacks a value, and as text because another row holds a word. Missing is missing, however it is spelt.
"""

from __future__ import annotations

import hashlib
import math
import numbers
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.recipe import Recipe

Hashes = npt.NDArray[np.uint64]

_MISSING = np.uint64(0x9E3779B97F4A7C15)


class Parts(NamedTuple):
    """A data set in two parts, each in the order of its rows' hashes, targets included."""

    training: pd.DataFrame
    holdout: pd.DataFrame


def parted(frame: pd.DataFrame, recipe: Recipe) -> Parts:
    """Part `frame` into what the recipe trains on and what it holds out.

    Raises:
        Invalid: If one part is empty, since there are too few different rows.
    """
    hashes = row_hashes(frame.drop(columns=[recipe.target]), recipe.seed)
    order = np.argsort(hashes, kind="stable")
    cut = int((hashes < np.uint64(recipe.holdout_percent * 2**64 // 100)).sum())
    if not 0 < cut < len(frame):
        different = len(np.unique(hashes))
        advice = "give it more different rows, or change holdout_percent"
        raise Invalid("a hold-out by content", "leaves rows on both sides", f"{different} different rows", advice)
    sides = (frame.iloc[rows].reset_index(drop=True) for rows in (order[cut:], order[:cut]))
    return Parts(*sides)


def row_hashes(frame: pd.DataFrame, seed: int = 0) -> Hashes:
    """A hash of each row's content, shape `(rows,)`; evenly spread over 64 bits.

    Args:
        frame: The rows; the order of the columns does not matter.
        seed: The key: another one gives other hashes.
    """
    total = np.zeros(len(frame), dtype=np.uint64)
    for name in frame.columns:
        total += _mixed(_cells(frame[name]) ^ _digest(str(name), seed))
    return _mixed(total)


def _cells(column: pd.Series[Any]) -> Hashes:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
        return _numbers(column.to_numpy(dtype=np.float64, na_value=np.nan))
    try:
        codes, values = pd.factorize(column)
    except TypeError:  # lists and the like
        codes, values = pd.factorize(column.astype(str))
    return np.array([*map(_cell, values), _MISSING], dtype=np.uint64)[codes]  # code -1 is a missing value


def _cell(value: Any) -> np.uint64:
    try:
        number = float(value) if isinstance(value, (str, numbers.Real)) else math.nan
    except ValueError:
        number = math.nan
    return _numbers(np.array([number]))[0] if math.isfinite(number) else _digest(str(value))


def _numbers(values: npt.NDArray[np.float64]) -> Hashes:
    bits = (values + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    return np.where(np.isnan(values), _MISSING, bits)


def _digest(text: str, seed: int = 0) -> np.uint64:
    key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=seed.to_bytes(8, "big"))
    return np.uint64(int.from_bytes(key.digest(), "big"))


def _mixed(values: Hashes) -> Hashes:
    """Spread 64 bits evenly: the finaliser of SplitMix64, Steele, Lea and Flood (2014), doi:10.1145/2660193.2660195."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
