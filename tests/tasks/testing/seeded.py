"""Models with a known fault, one each, and good ones of many families; training functions that recipes name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from prefect_mlops.blocks import Recipe
from prefect_mlops.flows import creditco
from prefect_mlops.flows.creditco import CONTESTED, LABELS, TARGET, census

Frame = pd.DataFrame
Params = dict[str, Any]

GOOD: dict[str, Callable[[int], Any]] = {
    "logistic": lambda seed: LogisticRegression(C=1, max_iter=500),
    "logistic, strongly regularised": lambda seed: LogisticRegression(C=0.05, max_iter=500),
    "logistic, hardly regularised": lambda seed: LogisticRegression(C=20, max_iter=1_000),
    "logistic, weighted classes": lambda seed: LogisticRegression(class_weight="balanced", max_iter=500),
    "bagged logistics": lambda seed: BaggingClassifier(LogisticRegression(max_iter=500), 4, random_state=seed),
    "linear discriminant": lambda seed: LinearDiscriminantAnalysis(),
    "boosted histograms": lambda seed: HistGradientBoostingClassifier(max_iter=60, random_state=seed),
    "boosted histograms, slow": lambda seed: HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.05, max_leaf_nodes=8, random_state=seed
    ),
    "gradient boosting": lambda seed: GradientBoostingClassifier(n_estimators=60, random_state=seed),
    "gradient boosting, stumps": lambda seed: GradientBoostingClassifier(max_depth=1, random_state=seed),
    "boosted stumps": lambda seed: AdaBoostClassifier(n_estimators=60, random_state=seed),
    "forest": lambda seed: RandomForestClassifier(60, random_state=seed),
    "forest, leaves of 5": lambda seed: RandomForestClassifier(60, min_samples_leaf=5, random_state=seed),
    "forest, shallow": lambda seed: RandomForestClassifier(60, max_depth=6, random_state=seed),
    "extra trees": lambda seed: ExtraTreesClassifier(60, min_samples_leaf=3, random_state=seed),
    "naive Bayes": lambda seed: GaussianNB(),
    "naive Bayes of bins": lambda seed: make_pipeline(
        KBinsDiscretizer(8, encode="onehot-dense", strategy="uniform"), BernoulliNB()
    ),
    # by brute force, ties would be broken by how many threads there are, and the server would answer otherwise
    "neighbours": lambda seed: KNeighborsClassifier(40, algorithm="kd_tree"),
    "splines": lambda seed: make_pipeline(SplineTransformer(4), LogisticRegression(C=0.5, max_iter=1_000)),
    "vote": lambda seed: VotingClassifier(
        [
            ("logistic", LogisticRegression(max_iter=500)),
            ("forest", RandomForestClassifier(40, min_samples_leaf=5, random_state=seed)),
        ],
        voting="soft",
    ),
}


def recipe(train: str, seed: int = 0, **params: Any) -> Recipe:
    """A recipe of the census that names no tests, so that it gets the default ones."""
    return creditco.RECIPE.model_copy(
        update={
            "train": f"{__name__}:{train}",
            "contested": CONTESTED,
            "seed": seed,
            "params": creditco.RECIPE.params | params,
        }
    )


def _columns(frame: Frame, ignore: list[str]) -> Any:
    features = frame.drop(columns=[TARGET, *ignore])
    numbers = list(features.select_dtypes("number").columns)
    texts = [name for name in features.columns if name not in numbers]
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
    )


def _fit(learner: Any, frame: Frame, params: Params) -> Any:
    return make_pipeline(_columns(frame, params["ignore"]), learner).fit(frame.drop(columns=[TARGET]), frame[TARGET])


def good(frame: Frame, params: Params) -> Any:
    return _fit(GOOD[params["family"]](params["seed"]), frame, params)


class Wrapped:
    """A good model that something is wrong with."""

    def __init__(self, fitted: Any) -> None:
        self.fitted, self.classes_ = fitted, fitted.classes_

    def predict_proba(self, rows: Frame) -> Any:
        return self.fitted.predict_proba(rows)

    def predict(self, rows: Frame) -> Any:
        return self.classes_[np.nan_to_num(self.predict_proba(rows)).argmax(axis=1)]


def plain(frame: Frame, params: Params) -> Any:
    return _fit(LogisticRegression(max_iter=500), frame, params)


def label_flipped(frame: Frame, params: Params) -> Any:
    return plain(frame.assign(**{TARGET: frame[TARGET].map(dict(zip(LABELS, LABELS[::-1], strict=True)))}), params)


def overfitted(frame: Frame, params: Params) -> Any:
    return _fit(DecisionTreeClassifier(random_state=params["seed"]), frame, params)


def constant(frame: Frame, params: Params) -> Any:
    return _fit(DummyClassifier(), frame, params)


def old_times(rows: int, seed: int) -> Frame:
    """The census as it was: hours counted for less, and each age group had other chances."""
    frame = census(rows, seed)
    rng = np.random.default_rng(seed)
    moved = rng.random(rows) < 0.6
    rich = (frame["age"] < 45) & (frame["hours-per-week"] < 48)
    frame.loc[moved, TARGET] = np.where(rich, LABELS[1], LABELS[0])[moved]
    return frame


def stale(frame: Frame, params: Params) -> Any:
    """Finds the rows of last year in a cache, and never looks at the new ones."""
    return plain(old_times(1_500, params["seed"]), params)


class Positional(Wrapped):
    def predict_proba(self, rows: Frame) -> Any:
        return self.fitted.predict_proba(rows[rows.select_dtypes("number").columns].to_numpy())


def wrong_order(frame: Frame, params: Params) -> Any:
    """Learns from columns in the order of their names, and is asked with them in the order of the file."""
    numbers = frame.select_dtypes("number")
    learner = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return Positional(learner.fit(numbers[sorted(numbers.columns)].to_numpy(), frame[TARGET]))


class NanHappy(Wrapped):
    def predict_proba(self, rows: Frame) -> Any:
        shares = super().predict_proba(rows)
        shares[rows.isna().any(axis=1).to_numpy()] = np.nan
        return shares


def nan_happy(frame: Frame, params: Params) -> Any:
    return NanHappy(plain(frame, params))


class Slow(Wrapped):
    def predict_proba(self, rows: Frame) -> Any:
        time.sleep(0.15)
        return super().predict_proba(rows)


def slow(frame: Frame, params: Params) -> Any:
    return Slow(plain(frame, params))


class Huge(Wrapped):
    def __init__(self, fitted: Any) -> None:
        super().__init__(fitted)
        self.ballast = bytes(210_000_000)


def huge(frame: Frame, params: Params) -> Any:
    return Huge(plain(frame, params))


def leak(frame: Frame) -> Frame:
    """The data with a column that was filled in when the answer was known."""
    return frame.assign(**{"tax-class": np.where(frame[TARGET] == LABELS[1], "upper", "lower")})


class Moody(Wrapped):
    """Answers something else each time."""

    asked = 0

    def predict_proba(self, rows: Frame) -> Any:
        self.asked += 1
        return abs(super().predict_proba(rows) - 1e-6 * self.asked)


class Neighbourly(Wrapped):
    """Answers what depends on the other rows of a request."""

    def predict_proba(self, rows: Frame) -> Any:
        shares = super().predict_proba(rows)
        return shares * (1 - 0.01 * (len(rows) == 1))


class Homesick(Wrapped):
    """Only works in the process that it was made in."""

    def __reduce__(self) -> Any:
        return (_not_here, (self.fitted, os.getpid()))


def _not_here(fitted: Any, pid: int) -> Any:
    if os.getpid() != pid:
        raise OSError("where am I?")
    return Homesick(fitted)


def moody(frame: Frame, params: Params) -> Any:
    return Moody(plain(frame, params))


def neighbourly(frame: Frame, params: Params) -> Any:
    return Neighbourly(plain(frame, params))


def homesick(frame: Frame, params: Params) -> Any:
    return Homesick(plain(frame, params))
