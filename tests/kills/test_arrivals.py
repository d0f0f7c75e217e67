"""Data that arrives and the training on it, as flow runs on a real Prefect server, killed at random moments."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefect_mlops.blocks import Answers, Environment, Floor, verify
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.entry import Entry, Released, Taken
from prefect_mlops.blocks.release import File, Snapshot
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows.creditco import RECIPE, census
from tests.forks import Fork, Forks, Moments, drawn

NAME, SERVICE = "kills", "killed"
CAME_IN, LET_THROUGH = "kills-in", "kills-out"
ROWS = 600
INGESTS, TRAININGS = 20, 10


@pytest.fixture(scope="module")
def environment(place: Place) -> Iterator[Environment]:
    """An environment of this module's own; its branches have names of their own, since the store is shared."""
    with place.settings(heartbeats=False):
        Environment(name=NAME, receipts=place.receipts).save(NAME)
        yield Environment.find(NAME)


class Work:
    """Data that arrives, one file after the other."""

    def __init__(self, place: Place, environment: Environment, forks: Forks, folder: Path) -> None:
        self.home = str(place.home)
        self.environment, self.forks, self.folder = environment, forks, folder
        self.path, self.snapshot, self.served = folder, "", False
        self.heads: dict[str, list[str]] = {CAME_IN: [], LET_THROUGH: []}

    def new_data(self, seed: int) -> None:
        """Other rows than before; every third model of them is also tested in its server, which takes a while."""
        self.served = seed % 3 == 0
        self.path = self.folder / f"census-{seed}.csv"
        census(ROWS, seed=seed).to_csv(self.path, index=False)
        content = self.path.read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.snapshot = Snapshot(files=(File(path=self.path.name, size=len(content), digest=digest),)).id

    def ingest(self) -> Fork:
        branches = {"branch": CAME_IN, "onto": LET_THROUGH}
        return self.start("ingest", source=str(self.path), expectations=RECIPE.expectations, **branches)

    def train(self) -> Fork:
        tests = (Floor("accuracy", 0.6), *([Answers()] if self.served else []))
        recipe = RECIPE.model_copy(update={"name": SERVICE, "tests": tests})
        return self.start("train", recipe=recipe.model_dump(mode="json"), branch=LET_THROUGH)

    def start(self, function: str, **parameters: Any) -> Fork:
        return self.forks.start(f"tests.kills.acts:{function}", home=self.home, environment=NAME, **parameters)

    # --- what is there ---------------------------------------------------------------

    def entries(self) -> list[Entry]:
        return [entry for entry in self.environment.log().entries() if entry.services == (SERVICE,)]

    def of_head(self) -> tuple[list[Entry], list[Entry]]:
        """The entries that took the head, and those that say what came of it."""
        move = len(self.heads[LET_THROUGH]) - 1
        taken = [one for one in self.entries() if isinstance(one.body, Taken) and one.body.move == move]
        numbers = {one.seq for one in taken}
        return taken, [one for one in self.entries() if one.closes in numbers]

    def proven(self) -> None:
        assert verify(self.environment.log()).faults == []

    def arrived_or_not(self) -> None:
        """Each branch is where it was, or at the whole of what came; the second never before the first."""
        self.proven()
        came, through = (self._came(branch) for branch in (CAME_IN, LET_THROUGH))
        assert came or not through

    def _came(self, branch: str) -> bool:
        store = self.environment.store_block
        moves = [move.commit for move in Branch(store, branch).moves()]
        before = self.heads[branch]
        assert moves[: len(before)] == before
        assert [store.commit_at(commit).snapshot for commit in moves[len(before) :]] in ([], [self.snapshot])
        return len(moves) > len(before)

    def ingested(self) -> float:
        """The next run has both branches moved once, to the very data; how many seconds it takes."""
        run, store = self.ingest(), self.environment.store_block
        commit = run.result()
        for branch, heads in self.heads.items():
            assert [move.commit for move in Branch(store, branch).moves()] == [*heads, commit]
            heads.append(commit)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            store.checkout(store.commit_at(commit).snapshot, Path(folder) / "out")
            assert (Path(folder) / "out" / self.path.name).read_bytes() == self.path.read_bytes()
        return run.seconds

    def trained_or_not(self) -> None:
        """The head was not taken, is taken, or has become one candidate."""
        self.proven()
        taken, closed = self.of_head()
        assert len(closed) <= 1
        assert not closed or closed[0].closes == taken[-1].seq

    def trained(self) -> float:
        """The next run has the head become one candidate, which nobody takes again; how many seconds it takes."""
        run = self.train()
        release = run.result()
        _, [closed] = self.of_head()
        assert isinstance(closed.body, Released), closed.body
        assert closed.body.commit == self.heads[LET_THROUGH][-1]
        assert release in {None, closed.body.release}  # nothing was left to do where the killed run had said so
        assert self.train().result() is None
        self._shown_once(closed.body.release)
        self.proven()
        return run.seconds

    def _shown_once(self, release: str) -> None:
        """MLflow has one finished run, one whole model and one version, which is the challenger."""
        registry = self.environment.registry_block
        client, experiments = registry.client(), [registry._experiment_id()]
        [version] = client.search_model_versions(f"name = '{SERVICE}' and tags.release = '{release}'")
        [run] = client.search_runs(experiments, f"tags.release = '{release}'")
        [model] = client.search_logged_models(experiments, f"source_run_id = '{run.info.run_id}'")
        assert (run.info.status, str(model.status)) == ("FINISHED", "READY")
        assert client.get_model_version_by_alias(SERVICE, "challenger").version == version.version


def servers(folder: Path) -> list[psutil.Process]:
    """Model servers that were started with files in a folder: those of killed tests of a model end by themselves."""
    return [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or ())]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ingests_and_trainings_killed_at_thirty_moments(
    place: Place, environment: Environment, tmp_path: Path, temporary: Path
) -> None:
    moments = Moments(drawn())
    with Forks(tmp_path / "calls", "tests.kills.acts", env={"TMPDIR": str(temporary)}) as forks:
        work, seeds = Work(place, environment, forks, tmp_path), itertools.count()
        for seed in itertools.islice(seeds, 2):
            work.new_data(seed)
            moments.learn("ingest", work.ingested())
            moments.learn(("train", work.served), work.trained())
        ingests = trainings = 0
        while ingests < INGESTS or trainings < TRAININGS:
            work.new_data(next(seeds))
            ingests += work.ingest().killed_after(moments.draw("ingest"))
            work.arrived_or_not()
            moments.learn("ingest", work.ingested())
            if trainings * INGESTS < ingests * TRAININGS:
                trainings += work.train().killed_after(moments.draw(("train", work.served)))
                work.trained_or_not()
                work.trained()
                assert wait_until(lambda: servers(temporary) == [], seconds=10)
            assert list(temporary.glob("mlops-scratch-*")) == []
