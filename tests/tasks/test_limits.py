"""A training computes on the CPUs that its recipe says; what the machine does not have is said."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.dummy import DummyClassifier
from threadpoolctl import threadpool_info

from prefect_mlops.blocks import Recipe, StepResources, Store
from prefect_mlops.flows.creditco import TARGET, census
from prefect_mlops.tasks import snapshot_data, train_model
from prefect_mlops.tasks._limits import limited, shortages

SEEN: list[tuple[set[int], int]] = []


def threads() -> tuple[set[int], int]:
    """How many threads numerical libraries may start, and how many CPUs joblib counts for `n_jobs=-1`."""
    return {pool["num_threads"] for pool in threadpool_info()}, int(joblib.cpu_count())


def train(frame: Any, params: dict[str, Any]) -> Any:
    SEEN.append(threads())
    return DummyClassifier(strategy="prior").fit(frame.drop(columns=[TARGET]), frame[TARGET])


def trained(folder: Path, **resources: int) -> None:
    recipe = Recipe(name="dummy", train=f"{__name__}:train", target=TARGET, resources=StepResources(**resources))
    store = Store(url=str(folder / "store"))
    census(100, seed=1).to_csv(folder / "census.csv", index=False)
    train_model.fn(store, recipe, snapshot_data.fn(store, folder / "census.csv").snapshot)


def test_training_has_the_cpus_of_its_recipe_and_no_longer_than_it_takes(tmp_path: Path) -> None:
    before, environment = threads(), dict(os.environ)
    trained(tmp_path, cpus=1)
    assert SEEN.pop() == ({1}, 1)
    assert (threads(), dict(os.environ)) == (before, environment)


def test_without_a_number_it_has_all(tmp_path: Path) -> None:
    trained(tmp_path)
    assert SEEN.pop() == threads()


def test_limits_end_with_an_error() -> None:
    before = threads()
    with pytest.raises(KeyError), limited(StepResources(cpus=1)):
        raise KeyError
    assert threads() == before


def test_what_the_machine_does_not_have_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "prefect_mlops"):
        trained(tmp_path, cpus=1024, memory_mib=2**24, gpus=64)
    pools, counted = SEEN.pop()
    assert max(pools) <= counted == threads()[1], "more than there is only gets in its own way"
    said = [record.getMessage() for record in caplog.records if record.name == "prefect_mlops"]
    assert [sentence.partition(" are asked for")[0] for sentence in said] == [
        "1024 CPUs",
        "16,777,216 MiB of memory",
        "64 GPUs",
    ]
    assert list(shortages(StepResources(cpus=1, memory_mib=1))) == []


@pytest.mark.parametrize("wrong", [{"cpus": -1}, {"cpus": 10_000}, {"memory_mib": -1}, {"gpus": "many"}, {"disk": 1}])
def test_resources_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(name="credit", train="a:b", target="y", resources=wrong)  # type: ignore[arg-type]
