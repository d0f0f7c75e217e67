"""What our code costs in each task, beyond a bare Prefect task that does the same work with the same libraries.

Both run in turns, in one flow on one Prefect server, on the same files. The bare tasks keep no promises: no store, no
digests, no commit, no evidence. A task whose work is only ours has no bare twin, and is part of `bench_release`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import prefect
from prefect import flow, task

from prefect_mlops.blocks import ModelRegistry, Store
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import Candidate, move_branch, register_model, snapshot_data, train_model, validate_data
from prefect_mlops.tasks._learning import Learned
from prefect_mlops.tasks._suites import read_suite
from tests.benchmarks import Benchmark
from tests.benchmarks.bench_release import bare_registration, bare_training

ROUNDS = 15
ROWS = 12_000
BOUND_MS = 10.0


@task(persist_result=False)
def bare_snapshot(path: Path, folder: Path) -> int:
    rows = len(pd.read_csv(path))
    copy = folder / path.name
    shutil.copy(path, copy)
    _sync(copy, folder)
    return rows


@task(persist_result=False)
def bare_move(folder: Path, name: str) -> None:
    draft = folder / "branch.new"
    draft.write_text(json.dumps({"branch": "main", "commit": name}))
    _sync(draft)
    draft.replace(folder / "branch")
    _sync(folder)


def _sync(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


@task(persist_result=False)
def bare_validation(path: Path, suite: dict[str, Any]) -> bool:
    import great_expectations as gx

    frame = pd.read_csv(path, na_values=["", "?"], keep_default_na=False)
    asset = gx.get_context(mode="ephemeral").data_sources.add_pandas("pandas").add_dataframe_asset("census")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    return bool(batch.validate(gx.ExpectationSuite(**suite)).success)


def run() -> Iterator[Benchmark]:
    """Milliseconds beyond the bare task, the middle of fifteen rounds."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        place = Place(Path(scratch) / "home")
        try:
            place.up(worker=False)
            with place.settings(heartbeats=False):
                yield from timed(place, Path(scratch))
        finally:
            place.down()


@flow(persist_result=False)
def timed(place: Place, scratch: Path) -> list[Benchmark]:
    """Each task beside its twin, in turns; the first round warms up."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    rounds = _Rounds(place.store, place.registry, scratch)
    for number in range(ROUNDS + 1):
        for name, (ours, bare) in rounds.tasks(number).items():
            seconds.setdefault(name, []).append((_seconds(ours), _seconds(bare)))
    return [_beyond(name, pairs[1:]) for name, pairs in seconds.items()]


def _seconds(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _beyond(name: str, pairs: list[tuple[float, float]]) -> Benchmark:
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Benchmark(
        f"{name}_beyond_bare",
        ours=1000 * (ours - bare),
        peer=BOUND_MS,
        peer_name=f"bound; the bare task takes {1000 * bare:.1f} ms on prefect {prefect.__version__}",
        unit="ms",
        goal=1.0,
        at_most=True,
    )


class _Rounds:
    """The tasks of one round after the other, on new data each time."""

    def __init__(self, store: Store, registry: ModelRegistry, scratch: Path) -> None:
        self.store, self.registry, self.scratch = store, registry, scratch
        self.bare_registry = ModelRegistry(tracking_uri=f"sqlite:///{scratch}/bare.db", artifacts=str(scratch / "bare"))
        self.suite = json.loads(read_suite(RECIPE.expectations).document)
        self.candidate: Candidate | None = None
        self.learned: tuple[Learned, Path] | None = None
        self.head: str | None = None

    def tasks(self, number: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
        """Each task as it is called here, and its bare twin."""
        path, folder = self.scratch / f"data-{number}.csv", self.scratch / f"bare-{number}"
        folder.mkdir()
        census(ROWS, seed=number).to_csv(path, index=False)
        commit = ""

        def snapshot() -> None:
            nonlocal commit
            commit = snapshot_data(self.store, path, "bench").id

        def move() -> None:
            move_branch(self.store, "moved", commit, expected=self.head)
            self.head = commit

        def learn() -> None:
            self.candidate = train_model(self.store, RECIPE, self.store.commit_at(commit).snapshot)

        def learn_bare() -> None:
            self.learned = bare_training(path, folder)

        def register() -> None:
            assert self.candidate is not None
            register_model(self.store, self.registry, RECIPE, self.candidate)

        def register_bare() -> None:
            assert self.learned is not None
            bare_registration(self.bare_registry, *self.learned, folder.name)

        return {
            "snapshot_data": (snapshot, lambda: bare_snapshot(path, folder)),
            "move_branch": (move, lambda: bare_move(folder, commit)),
            "validate_data": (
                lambda: validate_data(self.store, commit, RECIPE.expectations),
                lambda: bare_validation(path, self.suite),
            ),
            "train_model": (learn, learn_bare),
            "register_model": (register, register_bare),
        }
