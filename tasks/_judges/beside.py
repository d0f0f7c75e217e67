"""Judges that put the model beside another one, on rows that neither has seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prefect_mlops.blocks import Release
from prefect_mlops.blocks.model_tests import BeatsBaseline, BeatsChampion, Metric
from prefect_mlops.tasks import _learning
from prefect_mlops.tasks._holdout import parted, row_hashes
from prefect_mlops.tasks._judges.case import LEAST_ROWS, Case, Finding, Scored
from prefect_mlops.tasks._runtime import recipe_of
from prefect_mlops.tasks._scratch import scratch_folder

MOST_CATEGORIES = 50


def champion(test: BeatsChampion, case: Case) -> Finding:
    """Whether the model is not worse than what is live."""
    if case.champion is None:
        return Finding("passed", "nothing is live yet to compare with")
    release = case.store.release(case.champion)
    with scratch_folder() as scratch:
        rows = case.holdout[~_seen(case, release, scratch)]
        if len(rows) < LEAST_ROWS:
            detail = (
                f"{len(rows)} of {len(case.holdout)} held out rows are new to the champion, {LEAST_ROWS} are needed"
            )
            return Finding("could not be measured", detail)
        case.store.checkout(release.model, scratch / "model")
        other = _learning.load_model(scratch / "model")
        return _beside(case, rows, other, "champion", test.metric, test.margin)


def _seen(case: Case, release: Release, scratch: Path) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which held out rows the champion was trained on, by the content of the columns that both know.

    Of a champion that does not say how its rows were held out, all count as seen.
    """
    recipe = recipe_of(case.store, release.code)
    frame = _learning.read(case.store, recipe, release.data, scratch / "data")
    held = json.loads(case.store.get(release.tests)).get("holdout", {})
    seen = parted(frame, recipe).training if held.get("by") == _learning.HELD_BY else frame
    both = [name for name in case.features.columns if name in seen.columns and name != recipe.target]
    return np.isin(row_hashes(case.holdout[both]), row_hashes(seen[both]))


def baseline(test: BeatsBaseline, case: Case) -> Finding:
    """Whether the model is not worse than a plain linear one that was trained on the same rows."""
    other = _linear(case)
    return _beside(case, case.holdout, other, "linear baseline", test.metric, test.margin)


def _beside(case: Case, rows: pd.DataFrame, model: Any, called: str, wanted: Metric, margin: float) -> Finding:
    ours, theirs = (Scored.of(one, rows, case.recipe.target) for one in (case.model, model))
    difference = ours.minus(theirs, wanted)
    detail = (
        f"{ours.metric(wanted)} {ours.figure(wanted):.4f}, {called} {theirs.figure(wanted):.4f} on {len(rows):,} rows "
        f"that neither has seen: difference {difference.estimate:+.4f} "
        f"(95 % between {difference.low:+.4f} and {difference.high:+.4f}), at most {margin:g} worse allowed"
    )
    return Finding(difference.against(margin), detail, difference)


def _linear(case: Case) -> Any:
    """A logistic or a ridge regression on one-hot and standardised columns, none of them contested."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    target = case.recipe.target
    features = case.training.drop(columns=[target])
    used = features.drop(columns=[name for name in case.recipe.contested if name in features.columns])
    numbers = list(used.select_dtypes("number").columns)
    texts = [name for name in used.columns if name not in numbers]
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES), texts),
    )
    learner = LogisticRegression(max_iter=2_000) if case.scored.classes else Ridge()
    return make_pipeline(columns, learner).fit(features, case.training[target])
