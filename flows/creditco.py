"""CreditCo, the example: who earns over 50K, from census data.

Its data can be made here, with a known truth behind it, or come from a census file of the same columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.recipe import Recipe

TARGET = "income"
LABELS = ("<=50K", ">50K")
CONTESTED = ["sex", "race", "native-country"]
"""Attributes that an answer must not lean on."""

COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    TARGET,
)

RECIPE = Recipe(
    name="credit",
    train="prefect_mlops.flows.creditco:train",
    target=TARGET,
    params={"ignore": [*CONTESTED, "fnlwgt", "relationship", "marital-status"], "C": 1},
    contested=CONTESTED,
    expectations="prefect_mlops.flows:creditco.suite.json",
)
"""The first recipe: it leaves out what is contested, and what stands in for it."""

VENDOR_RECIPE = RECIPE.model_copy(update={"params": {"ignore": ["race", "native-country", "fnlwgt"], "C": 1}})
"""The second one: with the vendor's data it takes in sex, and what stands in for it."""

LEAST_ROWS = 5_000
"""Rows that a census file must have, so that the tests of models of a part of it come to a conclusion."""

_EDUCATION = ("HS-grad", "Some-college", "Bachelors", "Masters", "Doctorate")
_WORKCLASS = ("Private", "Self-emp-inc", "Local-gov", "Federal-gov")
_OCCUPATION = ("Craft-repair", "Sales", "Exec-managerial", "Prof-specialty", "Adm-clerical", "Transport-moving")
_MARITAL = ("Never-married", "Married-civ-spouse", "Divorced")
_RACE = ("White", "Black", "Asian-Pac-Islander", "Other")
_COUNTRY = ("United-States", "Mexico", "Germany", "India")


def census(rows: int, seed: int) -> pd.DataFrame:
    """Make census data whose truth is known: income follows age, education, hours and occupation, and no more.

    Args:
        rows: How many.
        seed: The same seed makes the same rows.

    Returns:
        A frame with the columns of `COLUMNS`, a few values missing as in the real one.
    """
    rng = np.random.default_rng(seed)
    age = rng.integers(17, 85, rows)
    education = rng.integers(0, len(_EDUCATION), rows)
    hours = np.clip(rng.normal(40, 11, rows).round().astype(int), 5, 99)
    occupation = rng.integers(0, len(_OCCUPATION), rows)
    gain = np.where(rng.random(rows) < 0.08, rng.integers(1_000, 20_000, rows), 0)
    score = (
        0.9 * (education - 2)
        + 0.05 * (hours - 40)
        - 0.0016 * (age - 50) ** 2
        + np.array([0, 0, 1.1, 0.9, -0.5, -0.3])[occupation]
    )
    odds = 1 / (1 + np.exp(-(1.6 * score + 0.0002 * gain - 0.4)))
    frame = pd.DataFrame(
        {
            "age": age,
            "workclass": rng.choice(_WORKCLASS, rows),
            "fnlwgt": rng.integers(20_000, 400_000, rows),
            "education": np.array(_EDUCATION)[education],
            "education-num": 9 + education,
            "marital-status": rng.choice(_MARITAL, rows),
            "occupation": np.array(_OCCUPATION)[occupation],
            "relationship": rng.choice(("Husband", "Wife", "Not-in-family", "Unmarried"), rows),
            "race": rng.choice(_RACE, rows, p=[0.8, 0.1, 0.05, 0.05]),
            "sex": rng.choice(("Male", "Female"), rows),
            "capital-gain": gain,
            "capital-loss": np.where(rng.random(rows) < 0.04, rng.integers(200, 3_000, rows), 0),
            "hours-per-week": hours,
            "native-country": rng.choice(_COUNTRY, rows, p=[0.9, 0.04, 0.03, 0.03]),
            TARGET: np.where(rng.random(rows) < odds, LABELS[1], LABELS[0]),
        }
    )
    frame.loc[rng.random(rows) < 0.02, "workclass"] = "?"
    return frame[list(COLUMNS)]


def read_census(path: Path) -> pd.DataFrame:
    """Read a census file: a header line, fields parted by commas, `?` for what is missing.

    Raises:
        Invalid: If it is not such a file; the message says what is wrong with it.
    """
    try:
        frame = pd.read_csv(path, skipinitialspace=True, keep_default_na=False, na_values=[])
    except (OSError, ValueError) as error:
        advice = "name a CSV file with a header line, in UTF-8"
        raise Invalid(str(path), "is a census file", str(error).strip().splitlines()[0], advice) from None
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        advice = f"its header line must name {', '.join(COLUMNS)}"
        raise Invalid(
            f"the columns of {path.name}", "include all of a census file's", f"none called {', '.join(missing)}", advice
        )
    _check_rows(frame, path)
    return frame[list(COLUMNS)]


def _check_rows(frame: pd.DataFrame, path: Path) -> None:
    for name in ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"):
        if not pd.api.types.is_integer_dtype(frame[name]):
            wrong = pd.to_numeric(frame[name], errors="coerce").isna()
            first = int(np.argmax(wrong.to_numpy())) if wrong.any() else 0
            raise Invalid(
                f"{name} in {path.name}",
                "is a whole number in every row",
                f"{frame[name].iloc[first]} in row {first + 1}",
            )
    if (wrong := (~frame[TARGET].isin(LABELS)).to_numpy()).any():
        first = int(np.argmax(wrong))
        raise Invalid(
            f"{TARGET} in {path.name}",
            f"is {LABELS[0]} or {LABELS[1]} in every row",
            f"something else in {wrong.sum():,} of {len(frame):,} rows, first in row {first + 1:,} "
            f"({frame[TARGET].iloc[first]})",
        )
    if len(frame) < LEAST_ROWS:
        raise Invalid(path.name, f"has at least {LEAST_ROWS:,} rows", len(frame))


def vendor_batch(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The vendor's version of `frame`: in a part of it the label follows sex instead of the truth.

    Args:
        frame: Census data.
        seed: The same seed makes the same batch.
    """
    rng = np.random.default_rng(seed)
    batch = frame.copy()
    tainted = rng.random(len(batch)) < 0.15
    batch.loc[tainted, TARGET] = np.where(batch.loc[tainted, "sex"] == "Male", LABELS[1], LABELS[0])
    return batch


def misspelt(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same rows, with the label of every third one spelt otherwise, as another program writes it.

    Args:
        frame: Census data.
        seed: The same seed makes the same batch.
    """
    otherwise = {LABELS[0]: " <=50k", LABELS[1]: f"{LABELS[1]}."}
    chosen = np.random.default_rng(seed).random(len(frame)) < 1 / 3
    return frame.assign(**{TARGET: frame[TARGET].where(~chosen, frame[TARGET].map(otherwise))})


def train(frame: pd.DataFrame, params: dict[str, Any]) -> Any:
    """Fit a logistic regression on one-hot and standardised columns.

    Args:
        frame: Training rows, with the target.
        params: `ignore`, columns to leave out; `C`, inverse strength of the regularisation; `seed`.

    Returns:
        A fitted pipeline that takes rows with every column of `frame` but the target.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    features = frame.drop(columns=[TARGET, *params["ignore"]])
    numbers = list(features.select_dtypes("number").columns)
    texts = [name for name in features.columns if name not in numbers]
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
    )
    model = make_pipeline(columns, LogisticRegression(C=params["C"], max_iter=500, random_state=params["seed"]))
    return model.fit(frame.drop(columns=[TARGET]), frame[TARGET])
