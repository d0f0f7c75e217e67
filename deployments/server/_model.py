"""The model: unpickled from bytes that were checked, then columns in and numbers out."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pandas as pd

from prefect_mlops.deployments.server._errors import ModelFailed, StartRefused
from prefect_mlops.deployments.server._files import MODEL, Files
from prefect_mlops.deployments.server._signature import Field, Row, Signature

MAX_WORDS = 300
_STR: Any = pd.Series(dtype="str").dtype  # looked up once: by its name it costs more than the column


class Model:
    """A fitted model with its signature.

    Its columns always have the same types, whatever rows are in a batch, so that an answer does
    not depend on its neighbours: integer int64 (float64 where nullable), number float64, string
    pandas' `str`, boolean bool (object where nullable); null is NaN, or None in object columns.
    """

    def __init__(self, fitted: Any, signature: Signature) -> None:
        self.signature = signature
        self._call = getattr(fitted, "predict_proba" if signature.kind == "probabilities" else "predict")
        self._columns = pd.Index(signature.names)

    @cached_property
    def example(self) -> Row:
        """What it answers to its signature's own example; raises as `predict` does."""
        return self.predict([self.signature.coerced(self.signature.example, 0)])[0]

    def predict(self, rows: Sequence[Row]) -> list[Row]:
        """What the model answers for `rows`, one list of values per row.

        Raises:
            ModelFailed: If it raises, or answers another shape than its signature says, or NaN.
        """
        try:
            answer = np.asarray(self._call(self.frame(rows)))
        except (Exception, SystemExit) as error:
            raise ModelFailed(f"raised {_words(error)}") from error
        return self._checked(answer, len(rows))

    def frame(self, rows: Sequence[Row]) -> pd.DataFrame:
        """`rows` as the data frame that the model was trained on."""
        columns = zip(*rows, strict=True)
        arrays = [_array(field, column) for field, column in zip(self.signature.inputs, columns, strict=True)]
        frame = pd.DataFrame(dict(enumerate(arrays)), copy=False)
        frame.columns = self._columns
        return frame

    def _checked(self, answer: np.ndarray[Any, Any], rows: int) -> list[Row]:
        if answer.ndim == 1:
            answer = answer.reshape(-1, 1)
        wanted = (rows, len(self.signature.outputs))
        if answer.shape != wanted:
            raise ModelFailed(f"answered shape {answer.shape}, its signature says {wanted}")
        if answer.dtype.kind == "f" and not np.isfinite(answer).all():
            raise ModelFailed("answered NaN or infinity")
        values: list[Row] = answer.tolist()
        if answer.dtype.kind not in "fiub":
            _check_words(values)
        return values


def load(files: Files) -> Model:
    """Unpickle the very bytes that were checked, and try the model on its signature's example.

    Raises:
        StartRefused: If the model cannot be loaded, or cannot answer the example.
    """
    try:
        model = Model(pickle.loads(files.model), files.signature)
    except (Exception, SystemExit) as error:
        advice = "serve it with the software that it was trained with"
        raise StartRefused(f"{MODEL} cannot be loaded: {_words(error)}; {advice}") from error
    try:
        _ = model.example
    except ModelFailed as error:
        raise StartRefused(f"{MODEL} cannot answer its signature's own example: it {error}") from error
    return model


def _array(field: Field, column: tuple[Any, ...]) -> Any:
    if field.type == "string":
        return pd.array(column, dtype=_STR)
    if field.type == "boolean":
        return np.array(column, dtype=object if field.nullable else bool)
    return np.array(column, dtype=np.int64 if field.type == "integer" and not field.nullable else np.float64)


def _check_words(values: list[Row]) -> None:
    """Refuse what an array of objects can hold and JSON cannot say."""
    for value in (value for row in values for value in row):
        if not isinstance(value, (str, bool, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
            raise ModelFailed(f"answered {_words(value)}; only strings, finite numbers and booleans can be sent")
    try:
        orjson.dumps(values)
    except orjson.JSONEncodeError as error:
        raise ModelFailed(f"answered what JSON cannot say: {error}") from error


def _words(thing: object) -> str:
    """What a model raised or answered, as a short text that can be sent and stored."""
    text = f"{type(thing).__name__}: {thing}"[:MAX_WORDS]
    return " ".join(text.encode("utf-8", "replace").decode().split())
