"""What each judge finds, on either side of its threshold, and where nothing can be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from prefect_mlops.blocks import (
    BeatsBaseline,
    Custom,
    Direction,
    Floor,
    Generalises,
    Invariant,
    KnownSignal,
    ModelTest,
    NotTooGood,
    PerSlice,
)
from prefect_mlops.tasks._judges import Case, judged

NUMBERS = np.random.default_rng(0).standard_normal((2_000, 3))
Make = Callable[..., Case]


def frame(target: np.ndarray) -> pd.DataFrame:
    numbers = pd.DataFrame(NUMBERS.round(3), columns=["a", "b", "whole"])
    return numbers.assign(
        whole=(numbers["whole"] * 5).astype(int), group=np.where(NUMBERS[:, 1] > 1.2, "few", "many"), income=target
    )


LABELS = np.where(NUMBERS[:, 0] + 0.5 * np.random.default_rng(1).standard_normal(2_000) > 0, "yes", "no")


class Rule:
    """A model that is a formula."""

    classes_ = np.array(["no", "yes"])

    def __init__(self, formula: Callable[[pd.DataFrame], Any]) -> None:
        self.formula = formula

    def predict_proba(self, rows: pd.DataFrame) -> Any:
        up = 1 / (1 + np.exp(-np.asarray(self.formula(rows), dtype=float)))
        return np.column_stack([1 - up, up])

    def predict(self, rows: pd.DataFrame) -> Any:
        return self.classes_[(np.asarray(self.formula(rows)) > 0).astype(int)]


class Number(Rule):
    """A model that predicts numbers."""

    predict_proba = property()  # type: ignore[assignment]

    def predict(self, rows: pd.DataFrame) -> Any:
        return np.asarray(self.formula(rows), dtype=float)


def by(formula: Callable[[pd.DataFrame], Any], kind: type[Rule] = Rule) -> Callable[..., Any]:
    return lambda frame, params: kind(formula)


RIGHT = by(lambda rows: rows["a"])


@pytest.mark.parametrize(
    ("test", "train", "outcome", "words"),
    [
        (Floor("accuracy", 0.8), RIGHT, "passed", "accuracy 0.8"),
        (Floor("accuracy", 0.99), RIGHT, "failed", "at least 0.99 wanted"),
        (Floor("r2", 0.1), RIGHT, "could not be measured", "r2 is no figure of a model that predicts two classes"),
        (PerSlice("group", "accuracy", 0.7, 30), RIGHT, "passed", "lowest: "),
        (PerSlice("group", "accuracy", 0.99, 100), RIGHT, "failed", "not measured: few ("),
        (
            PerSlice("group", "accuracy", 0.7, 5_000),
            RIGHT,
            "could not be measured",
            "no group of group is large enough",
        ),
        (
            PerSlice("groop", "accuracy", 0.7),
            RIGHT,
            "could not be measured",
            "there is no column 'groop', there are a, b",
        ),
        (Invariant("b"), RIGHT, "passed", "flip(b) changes 0.0 % of answers, at most 1.0 % allowed"),
        (Invariant("a", 0.5), RIGHT, "failed", "flip(a) changes 100.0 % of answers, at most 50.0 % allowed"),
        (Invariant("group", 0.05), by(lambda rows: rows["a"] + 0.3 * (rows["group"] == "few")), "failed", "as few"),
        (Direction("a", "up"), RIGHT, "passed", "wrong way in 0.0 % of rows"),
        (Direction("a", "down"), RIGHT, "failed", "wrong way in 100.0 % of rows"),
        (Direction("whole", "up"), by(lambda rows: -rows["whole"]), "failed", "raising whole by 1"),
        (Direction("group", "up"), RIGHT, "could not be measured", "group holds no numbers"),
        (Generalises(gap=0.1), RIGHT, "passed", "lost, at most 0.1 allowed"),
        (NotTooGood(below=0.9), RIGHT, "failed", "it hangs on a: with that column shuffled, 0."),
        (NotTooGood(), by(lambda rows: rows["b"]), "passed", "below 0.995 is believed"),
        (BeatsBaseline(), RIGHT, "passed", "linear baseline 0."),
        (BeatsBaseline(), by(lambda rows: rows["a"] * 0), "failed", "roc_auc 0.5000"),
        (BeatsBaseline(margin=0), by(lambda rows: rows["a"] + 0.02 * rows["b"]), "inconclusive", "at most 0 worse"),
        (Floor("auto", 0.1), by(lambda rows: rows["a"] * np.nan), "could not be measured", "answers are no numbers"),
        (KnownSignal(), RIGHT, "passed", "made-up rows"),
        (KnownSignal(0.99), RIGHT, "failed", "at least 99.0 % wanted"),
        (KnownSignal(), by(lambda rows: -rows["a"]), "failed", "made-up rows"),
    ],
)
def test_two_classes(case: Make, test: ModelTest, train: Any, outcome: str, words: str) -> None:
    finding = judged(test, case(frame(LABELS), train))
    assert (finding.outcome, words in finding.detail) == (outcome, True), finding.detail


@pytest.mark.parametrize(
    ("test", "formula", "outcome", "words"),
    [
        (Floor("auto", 0.8), lambda rows: 3 * rows["a"], "passed", "r2 0.9"),
        (Floor("roc_auc", 0.8), lambda rows: 3 * rows["a"], "could not be measured", "predicts numbers; name r2"),
        (Invariant("b"), lambda rows: 3 * rows["a"] + 1e-6 * rows["b"], "passed", "0.0 %"),
        (Invariant("b"), lambda rows: 3 * rows["a"] + rows["b"], "failed", "100.0 %"),
        (Direction("a", "up"), lambda rows: -rows["a"], "failed", "100.0 %"),
        (BeatsBaseline(), lambda rows: 3 * rows["a"], "passed", "r2 0.9"),
        (BeatsBaseline(), lambda rows: 1.5 * rows["a"], "failed", "r2 0.7"),
        (Generalises(), lambda rows: 3 * rows["a"], "passed", "r2 0.9"),
        (NotTooGood(), lambda rows: 3 * rows["a"], "passed", "r2 0.9"),
        (KnownSignal(0.7), lambda rows: rows["a"], "passed", "made-up rows"),
    ],
)
def test_numbers(case: Make, test: ModelTest, formula: Any, outcome: str, words: str) -> None:
    target = 3 * NUMBERS[:, 0] + 0.6 * np.random.default_rng(2).standard_normal(2_000)
    finding = judged(test, case(frame(target), by(formula, Number)))
    assert (finding.outcome, words in finding.detail) == (outcome, True), finding.detail


@pytest.mark.parametrize(
    "test", [Floor("auto", 0.6), Invariant("b", 0.2), BeatsBaseline(), Generalises(), KnownSignal()]
)
def test_three_classes(case: Make, test: ModelTest) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def train(rows: pd.DataFrame, params: dict[str, Any]) -> Any:
        numbers = FunctionTransformer(lambda some: some[["a", "b", "whole"]].to_numpy())
        return make_pipeline(numbers, LogisticRegression()).fit(rows.drop(columns=["income"]), rows["income"])

    finding = judged(test, case(frame(np.digitize(NUMBERS[:, 0], [-0.5, 0.5])), train))
    assert finding.outcome == "passed", finding.detail


def agrees(model: Any, holdout: pd.DataFrame, params: dict[str, Any]) -> tuple[bool, str]:
    share = float((model.predict(holdout.drop(columns=["income"])) == holdout["income"]).mean())
    return share >= params["share"], f"agrees in {share:.2f}"


def breaks(model: Any, holdout: pd.DataFrame, params: dict[str, Any]) -> bool:
    raise KeyError("no such thing")


def shrugs(model: Any, holdout: pd.DataFrame, params: dict[str, Any]) -> Any:
    return 0.93


def is_fitted(model: Any, holdout: pd.DataFrame, params: dict[str, Any]) -> Any:
    return np.bool_(hasattr(model, "predict"))


@pytest.mark.parametrize(
    ("test", "outcome", "words"),
    [
        (Custom(f"{__name__}:agrees", {"share": 0.5}), "passed", "agrees in 0.8"),
        (Custom(f"{__name__}:agrees", {"share": 0.99}), "failed", "agrees in 0.8"),
        (Custom(f"{__name__}:is_fitted"), "passed", "is_fitted says True"),
        (Custom(f"{__name__}:breaks"), "could not be measured", "KeyError: 'no such thing'"),
        (Custom(f"{__name__}:shrugs"), "could not be measured", "must return bool or (bool, str), got 0.93"),
        (Custom(f"{__name__}:missing"), "could not be measured", "is a name in module"),
        (Custom("__main__:agrees"), "could not be measured", "lives in a module that can be imported again"),
    ],
)
def test_a_team_s_own_test(case: Make, test: ModelTest, outcome: str, words: str) -> None:
    finding = judged(test, case(frame(LABELS), RIGHT))
    assert (finding.outcome, words in finding.detail) == (outcome, True), finding.detail


def test_a_planted_signal_is_in_every_column_and_looks_like_the_data(case: Make) -> None:
    from prefect_mlops.flows.creditco import census
    from prefect_mlops.tasks._judges.planted import planted

    rows = census(2_000, seed=5).replace("?", None)
    one = case(rows, by(lambda some: some["age"] * 0 + 1))
    object.__setattr__(one.model, "classes_", np.array(["<=50K", ">50K"]))
    made, truth = planted(one, 4_000, np.random.default_rng(0))
    assert (made.dtypes == one.training.dtypes).all()
    assert made["income"].value_counts(normalize=True).round(1).tolist() == [0.5, 0.5]
    for name in ("age", "sex", "education", "workclass"):
        assert made[name].isna().mean() == pytest.approx(one.training[name].isna().mean(), abs=0.01)
        leaning: Any = spearmanr(pd.factorize(made[name], sort=True)[0], truth)
        assert abs(leaning.statistic) > 0.3, name
    assert made["sex"].value_counts(normalize=True)["Male"] == pytest.approx(
        one.training["sex"].value_counts(normalize=True)["Male"], abs=0.04
    )
