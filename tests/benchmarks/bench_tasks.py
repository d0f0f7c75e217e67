"""What our code costs in each task, beyond a bare Prefect task that does the same work with the same libraries.

Both run in turns, in one flow on one Prefect server, on the same files. The bare tasks keep no promises: no store, no
digests, no commit, no evidence. A task whose work is only ours has no bare twin, and is part of `bench_release`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prefect
from prefect import flow
from threadpoolctl import threadpool_limits

from prefect_mlops.blocks import ModelRegistry, Store
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import Candidate, move_branch, register_model, snapshot_data, train_model, validate_data
from tests.benchmarks import Benchmark, bare

ROUNDS = 15
ROWS = 12_000
BOUND_MS = 10.0


def run() -> Iterator[Benchmark]:
    """Milliseconds beyond the bare task, the middle of fifteen rounds."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        place = Place(Path(scratch) / "home")
        try:
            place.up(worker=False)
            with place.settings(heartbeats=False), threadpool_limits(1):  # two of BLAS wait for each other at random
                yield from timed(place, Path(scratch))
        finally:
            place.down()


@flow(persist_result=False)
def timed(place: Place, scratch: Path) -> list[Benchmark]:
    """Each task beside its twin, in turns; the first round warms up."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    rounds = _Rounds(place.store, place.registry, scratch)
    for number in range(ROUNDS + 1):
        for name, (ours, twin) in rounds.tasks(number).items():
            seconds.setdefault(name, []).append((_seconds(ours), _seconds(twin)))
    return [_beyond(name, pairs[1:]) for name, pairs in seconds.items()]


def _seconds(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _beyond(name: str, pairs: list[tuple[float, float]]) -> Benchmark:
    ours, twin = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Benchmark(
        f"{name}_beyond_bare",
        ours=1000 * (ours - twin),
        peer=BOUND_MS,
        peer_name=f"bound; the bare task takes {1000 * twin:.1f} ms on prefect {prefect.__version__}",
        unit="ms",
        goal=1.0,
        at_most=True,
    )


class _Rounds:
    """The tasks of one round after the other, on new data each time."""

    def __init__(self, store: Store, registry: ModelRegistry, scratch: Path) -> None:
        self.store, self.registry, self.scratch = store, registry, scratch
        self.candidate: Candidate | None = None
        self.trained: bare.Trained | None = None
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
            self.trained = bare.training(path, folder)

        def register() -> None:
            assert self.candidate is not None
            register_model(self.store, self.registry, self.candidate)

        def register_bare() -> None:
            assert self.trained is not None
            bare.registration(f"sqlite:///{self.scratch}/bare.db", str(self.scratch / "artifacts"), self.trained)

        return {
            "snapshot_data": (snapshot, lambda: bare.snapshot(path, folder)),
            "move_branch": (move, lambda: bare.move(folder, commit)),
            "validate_data": (
                lambda: validate_data(self.store, commit, RECIPE.expectations),
                lambda: bare.validation(path),
            ),
            "train_model": (learn, learn_bare),
            "register_model": (register, register_bare),
        }
