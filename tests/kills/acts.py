"""What is killed: each a call that `tests.forks` makes in a process of its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from prefect_mlops.blocks import ModelRegistry, Recipe, Store
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import ingest_data, train_candidate
from prefect_mlops.tasks import snapshot_data

LATE = ("great_expectations", "mlflow.sklearn", "sklearn.compose", "sklearn.pipeline", "matplotlib.pyplot")


def commit(store: str, source: str) -> str:
    """Keep a folder at the head of a branch."""
    return snapshot_data.fn(Store(url=store), source).id


def ingest(home: str, **parameters: Any) -> Any:
    """Let data arrive, as a flow run on the Prefect server of a place."""
    with Place(Path(home)).settings(heartbeats=False):
        return ingest_data(**parameters)


def train(home: str, recipe: dict[str, Any], **parameters: Any) -> Any:
    """Train on what arrived, in the same way."""
    with Place(Path(home)).settings(heartbeats=False):
        return train_candidate(Recipe.model_validate(recipe), **parameters)


def warm(folder: Path) -> None:
    """Import what is imported late."""
    ModelRegistry(tracking_uri=f"sqlite:///{folder}/warm.db", artifacts=str(folder)).version_of("a", "b")
    for module in LATE:
        importlib.import_module(module)
