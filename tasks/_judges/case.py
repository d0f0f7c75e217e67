"""What the judges of model tests look at: a model, the rows that it has seen, and those that it has not."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from prefect_mlops.blocks import Recipe, Store
from prefect_mlops.blocks.entry import Outcome
from prefect_mlops.blocks.model_tests import Metric
from prefect_mlops.blocks.release import Snapshot
from prefect_mlops.tasks import _judging
from prefect_mlops.tasks._judges.server import ModelServer, serving
from prefect_mlops.tasks._judging import Floats, Interval

LEAST_ROWS = 30
"""Fewer rows say nothing of a model, not even with a confidence interval."""


class Unmeasurable(Exception):
    """What a test is about cannot be measured here; says why."""


class Finding(NamedTuple):
    """What a judge says: the outcome, a sentence with figures, and the interval that it rests on, if it does."""

    outcome: Outcome
    detail: str
    difference: Interval | None = None


@dataclass(frozen=True)
class Scored:
    """What a model answers for rows of which the truth is known.

    Attributes:
        truth: What was to be predicted, shape `(rows,)`.
        predicted: What was, shape `(rows,)`.
        scores: Higher where the model leans to later classes, or predicts more; shape `(rows,)`.
        classes: The classes in the model's order; empty if it predicts numbers.
    """

    truth: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    scores: Floats
    classes: tuple[Any, ...]

    @classmethod
    def of(cls, model: Any, rows: pd.DataFrame, target: str) -> Scored:
        """Ask `model` for `rows`, which hold the truth in `target`."""
        features = rows.drop(columns=[target])
        predicted, truth = np.asarray(model.predict(features)).ravel(), rows[target].to_numpy()
        if not hasattr(model, "predict_proba"):
            return cls(truth, predicted, predicted.astype(float), ())
        shares = np.asarray(model.predict_proba(features), dtype=float)
        scores: Floats = np.asarray(shares @ np.arange(shares.shape[1]), dtype=np.float64)
        return cls(truth, predicted, scores, tuple(model.classes_))

    def check(self) -> None:
        """That they are enough to say something, and numbers.

        Raises:
            Unmeasurable: If not.
        """
        if len(self.truth) < LEAST_ROWS:
            raise Unmeasurable(f"{len(self.truth)} rows are too few, at least {LEAST_ROWS} are needed")
        if not np.isfinite(self.scores).all():
            raise Unmeasurable(f"{int((~np.isfinite(self.scores)).sum())} of {len(self.scores)} answers are no numbers")

    def metric(self, wanted: Metric) -> Metric:
        """The figure itself where `wanted` leaves it open.

        Raises:
            Unmeasurable: If the model predicts something that has no such figure.
        """
        kind = "numbers" if not self.classes else "two classes" if len(self.classes) == 2 else "classes"
        fit: dict[str, tuple[Metric, ...]] = {
            "numbers": ("r2",),
            "classes": ("accuracy", "balanced_accuracy"),
            "two classes": ("roc_auc", "accuracy", "balanced_accuracy"),
        }
        if wanted != "auto" and wanted not in fit[kind]:
            raise Unmeasurable(f"{wanted} is no figure of a model that predicts {kind}; name {' or '.join(fit[kind])}")
        return fit[kind][0] if wanted == "auto" else wanted

    def figure(self, wanted: Metric) -> float:
        """The figure on these rows.

        Raises:
            Unmeasurable: If it is none: too few rows, one class only, answers that are no numbers.
        """
        self.check()
        metric = self.metric(wanted)
        if metric == "roc_auc":
            return _judging.auc(self._positive(), self.scores)
        assert metric != "auto"
        return float(_judging.per_row(metric, self.truth, self.predicted).mean())

    def minus(self, other: Scored, wanted: Metric) -> Interval:
        """How much higher the figure is than that of another model on the same rows.

        Raises:
            Unmeasurable: As `figure`, or if they predict different things.
        """
        self.check()
        other.check()
        if self.classes != other.classes:
            raise Unmeasurable(f"one predicts {list(self.classes)}, the other {list(other.classes)}")
        metric = self.metric(wanted)
        if metric == "roc_auc":
            return _judging.auc_difference(self._positive(), self.scores, other.scores)
        assert metric != "auto"
        ours, theirs = (_judging.per_row(metric, one.truth, one.predicted) for one in (self, other))
        return _judging.mean_difference(ours, theirs)

    def _positive(self) -> _judging.Bools:
        positive = self.truth == self.classes[1]
        if min(positive.sum(), (~positive).sum()) < 5:
            raise Unmeasurable(f"{positive.sum()} of {len(positive)} rows are {self.classes[1]}, 5 of each are needed")
        return positive


@dataclass
class Case:
    """One candidate before its judges.

    Attributes:
        store: Holds the champion.
        recipe: What the candidate was trained by.
        train: Its training function.
        training: Rows that it was trained on, with the target.
        holdout: Rows that it was not trained on, with the target.
        model: The fitted model.
        folder: The model's files.
        files: What they are.
        champion: Digest of the release that is live, if one is.
    """

    store: Store
    recipe: Recipe
    train: Callable[[Any, dict[str, Any]], Any]
    training: pd.DataFrame
    holdout: pd.DataFrame
    model: Any
    folder: Path
    files: Snapshot
    champion: str | None
    _open: ExitStack = field(default_factory=ExitStack, repr=False)

    @contextmanager
    def opened(self) -> Generator[Case]:
        """The case, until whatever its judges started is ended."""
        with self._open:
            yield self

    @cached_property
    def scored(self) -> Scored:
        """What the model answers for the hold-out."""
        return Scored.of(self.model, self.holdout, self.recipe.target)

    @cached_property
    def features(self) -> pd.DataFrame:
        """The hold-out without its target."""
        return self.holdout.drop(columns=[self.recipe.target])

    @cached_property
    def server(self) -> ModelServer:
        """The model in the very server that will serve it.

        Raises:
            ServerEnded: If it does not start there.
        """
        return self._open.enter_context(serving(self.recipe.name, self.folder, self.files))

    def need_column(self, name: str) -> pd.Series[Any]:
        """A column of the training rows.

        Raises:
            Unmeasurable: If there is none of that name.
        """
        if name not in self.features.columns:
            raise Unmeasurable(f"there is no column {name!r}, there are {', '.join(map(str, self.features.columns))}")
        return self.training[name]
