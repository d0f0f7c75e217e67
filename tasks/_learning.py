"""Fitting a model, measuring it on a hold-out, and writing it down. Free of Prefect."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.recipe import Recipe
from prefect_mlops.blocks.store import Store
from prefect_mlops.tasks import _tables
from prefect_mlops.tasks._curves import Points, curves
from prefect_mlops.tasks._holdout import parted
from prefect_mlops.tasks._judging import Floats
from prefect_mlops.tasks._limits import limited

HELD_BY = "content"
"""How rows are held out; another rule will have another name, so that nobody takes its rows for unseen ones."""

PICKLE = "model.pkl"
"""What the model's file is called; MLflow calls it the same."""

PROBES = 16
"""How many golden probes a release carries."""

TOLERANCE = 1e-9
"""How far a probed answer may be from the recorded one: less than any decision, more than an order of summation."""


@dataclass(frozen=True)
class Learned:
    """A fitted model and what was seen of it on rows that it was not trained on."""

    model: Any
    fields: list[dict[str, Any]]
    output: dict[str, Any]
    metrics: dict[str, float]
    curves: dict[str, Points]
    probes: pd.DataFrame
    answers: list[list[float]]
    held: dict[str, Any]


def read(store: Store, recipe: Recipe, snapshot: str, folder: Path) -> pd.DataFrame:
    """The one data file of a snapshot, as a frame.

    Raises:
        Invalid: If it is not one CSV or Parquet file with the recipe's target in it.
    """
    path = _tables.check_out(store, snapshot, folder, "training data")
    frame = parsed(path, recipe)
    if recipe.target not in frame.columns:
        raise Invalid(
            f"the columns of {path.name}", f"include the target {recipe.target!r}", list(frame.columns), _HEADER
        )
    if (unlabelled := int(frame[recipe.target].isna().sum())) > 0:
        raise Invalid(f"{recipe.target} in {path.name}", "has a value in every row", f"{unlabelled} rows without one")
    if len(frame) < 50:
        raise Invalid(path.name, "has at least 50 rows to learn from and be measured on", len(frame))
    return frame


_HEADER = "give the file a header line, or name another target in the recipe"


def parsed(path: Path, recipe: Recipe) -> pd.DataFrame:
    """A CSV or Parquet file as a frame.

    Raises:
        Invalid: If it is neither.
    """
    return _tables.read(path, recipe.missing)


def learn(function: Callable[[Any, dict[str, Any]], Any], recipe: Recipe, frame: pd.DataFrame) -> Learned:
    """Fit on a part of `frame` and measure on the rest.

    Raises:
        Invalid: If what the training function returns cannot predict.
    """
    training, holdout = parted(frame, recipe)
    model = fitted(function, recipe, training)
    features, truth = holdout.drop(columns=[recipe.target]), holdout[recipe.target]
    probes = features.head(PROBES).reset_index(drop=True)
    given = answers(model, features)
    return Learned(
        model=model,
        fields=[_field(frame[name]) for name in features.columns],
        output=_output(model),
        metrics=_metrics(model, features, truth, given),
        curves=curves(truth.to_numpy(), given, tuple(getattr(model, "classes_", ()))),
        probes=probes,
        answers=answers(model, probes).tolist(),
        held={"by": HELD_BY, "seed": recipe.seed, "percent": recipe.holdout_percent, "rows": len(holdout)},
    )


def fitted(function: Callable[[Any, dict[str, Any]], Any], recipe: Recipe, training: pd.DataFrame) -> Any:
    """What the training function makes of `training`, with every random choice seeded, on the recipe's resources.

    Raises:
        Invalid: If that cannot predict.
    """
    random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    with limited(recipe.resources):
        model = function(training, {**recipe.params, "seed": recipe.seed})
    if not hasattr(model, "predict"):
        raise Invalid(f"what {recipe.train} returns", "has a method predict", type(model).__name__)
    return model


def _field(column: pd.Series[Any]) -> dict[str, Any]:
    present = column.dropna()
    if present.empty:
        raise Invalid("a column of the training data", "has at least one value", str(column.name), "drop the column")
    return {
        "name": str(column.name),
        "type": _type(column),
        "nullable": bool(column.isna().any()),
        "example": _plain(present.iloc[0]),
    }


def _type(column: pd.Series[Any]) -> Literal["integer", "number", "string", "boolean"]:
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    return "number" if pd.api.types.is_numeric_dtype(column) else "string"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _output(model: Any) -> dict[str, Any]:
    if hasattr(model, "predict_proba"):
        return {"kind": "probabilities", "names": [str(name) for name in model.classes_]}
    return {"kind": "values", "names": ["prediction"]}


def answers(model: Any, rows: pd.DataFrame) -> Floats:
    """What the model answers for each row, as its server does: the classes' probabilities, or the one value."""
    given = model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)
    table = np.asarray(given, dtype=float)
    return table if table.ndim == 2 else table[:, None]


def _metrics(model: Any, features: pd.DataFrame, truth: pd.Series[Any], given: Floats) -> dict[str, float]:
    from sklearn import metrics

    if not hasattr(model, "predict_proba"):
        return {
            "mean_absolute_error": float(metrics.mean_absolute_error(truth, given)),
            "r2": float(metrics.r2_score(truth, given)),
        }
    figures = {"accuracy": float(metrics.accuracy_score(truth, model.predict(features)))}
    if len(model.classes_) == 2 and truth.nunique() == 2 and np.isfinite(given).all():
        figures["roc_auc"] = float(metrics.roc_auc_score(truth == model.classes_[1], given[:, -1]))
    return figures


def write_model(learned: Learned, recipe: Recipe, folder: Path) -> None:
    """Write the model's files: its pickle and the description of what goes in and comes out.

    What the training function's module defines goes into the pickle, so that the model loads
    where that module is not installed.
    """
    import cloudpickle

    folder.mkdir(parents=True)
    module = sys.modules.get(recipe.train.partition(":")[0])
    own = module is not None and not module.__name__.startswith("prefect_mlops.")
    if own:
        cloudpickle.register_pickle_by_value(module)
    try:
        (folder / PICKLE).write_bytes(cloudpickle.dumps(learned.model))
    finally:
        if own:
            cloudpickle.unregister_pickle_by_value(module)
    signature = {"format": 1, "inputs": learned.fields, "output": learned.output}
    (folder / "signature.json").write_text(json.dumps(signature, indent=1, sort_keys=True))


def probes_document(learned: Learned) -> bytes:
    """The golden probes: requests in Seldon's form, and the answers that they must get."""
    request = {"data": {"names": list(learned.probes.columns), "ndarray": rows_of(learned.probes)}}
    document = {"format": 1, "request": request, "answers": learned.answers, "tolerance": TOLERANCE}
    return json.dumps(document, sort_keys=True, default=str).encode()


def tests_document(learned: Learned) -> bytes:
    """What was seen on the hold-out; nothing was tested yet."""
    seen = {"holdout": learned.held, "metrics": learned.metrics, "curves": learned.curves}
    document = {"format": 2, **seen, "champion": None, "verdicts": []}
    return json.dumps(document, sort_keys=True).encode()


def load_model(folder: Path) -> Any:
    """The model in a folder that a checkout has just verified."""
    import cloudpickle

    return cloudpickle.loads((folder / PICKLE).read_bytes())


def rows_of(frame: pd.DataFrame) -> list[list[Any]]:
    """The rows of `frame` as requests carry them: plain values to the last digit, None for what is missing."""
    plain = frame.astype(object)
    return plain.where(frame.notna(), None).to_numpy().tolist()
