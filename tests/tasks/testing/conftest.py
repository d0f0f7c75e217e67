"""One store with a release in it, and cases before their judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from prefect_mlops.blocks import ModelTest, Recipe, Snapshot, Store
from prefect_mlops.flows.creditco import TARGET, census
from prefect_mlops.tasks import Candidate, Tested, snapshot_data, test_model, train_model
from prefect_mlops.tasks._holdout import parted
from prefect_mlops.tasks._judges import Case
from tests.tasks.testing import seeded

ROWS = 1_500


class Bench:
    """Trains and tests models of the census in one store."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(url=str(folder / "store"))

    def train(self, frame: pd.DataFrame, recipe: Recipe) -> Candidate:
        """A candidate trained on `frame`, which the store then has as a CSV file."""
        path = self.folder / "census.csv"
        frame.to_csv(path, index=False)
        return train_model.fn(self.store, recipe, snapshot_data.fn(self.store, path).snapshot)

    def release(self, frame: pd.DataFrame, recipe: Recipe) -> str:
        """A release that was never tested."""
        return self.store.put_release(self.train(frame, recipe).release())

    def test(self, frame: pd.DataFrame, recipe: Recipe, champion: str | None = None) -> Tested:
        """What the tests of a candidate trained on `frame` find."""
        return test_model.fn(self.store, recipe, self.train(frame, recipe), champion)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def champion(bench: Bench) -> str:
    """A good model, trained on other rows than those of any test."""
    return bench.release(census(ROWS, seed=99), seeded.recipe("plain"))


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., Case]:
    """Makes a case of a model that was fitted on a frame, with no files."""

    def make(frame: pd.DataFrame, train: Callable[[Any, dict[str, Any]], Any], **more: Any) -> Case:
        recipe = Recipe(name="case", train="none:none", target=TARGET).model_copy(update=more)
        parts = parted(frame, recipe)
        model = train(parts.training, {"seed": 0, "ignore": []})
        store = Store(url=str(tmp_path / "store"))
        return Case(store, recipe, train, *parts, model, tmp_path, Snapshot(files=()), None)

    return make


def outcomes(tested: Tested) -> dict[str, str]:
    """The outcome of each test by its name."""
    return {verdict.test: verdict.outcome for verdict in tested.verdicts}


def with_tests(recipe: Recipe, *tests: ModelTest, **more: Any) -> Recipe:
    """The recipe with these tests alone."""
    return Recipe.model_validate({**recipe.model_dump(), "tests": tests, **more})


def servers() -> list[psutil.Process]:
    """Model servers that this process has started and that still run."""
    children = psutil.Process().children(recursive=True)
    return [one for one in children if any("prefect_mlops.deployments.server" in word for word in one.cmdline())]
