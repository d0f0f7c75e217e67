"""Data that arrives starts one training, on a place with a worker: by its event, or by the schedule if that is lost."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.blocks import verify
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.entry import Entry, Released, Taken
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import ingest_data
from prefect_mlops.flows.creditco import census
from tests.deployments.local.forms import ended, run, submit
from tests.places import SERVICE, api, processes_of_run

pytestmark = pytest.mark.slow
AUTOMATION = "prefect-mlops data arrived"


@pytest.fixture(scope="module")
def working(place: Place) -> Iterator[Place]:
    """The place with its worker, where every flow is deployed as `up` deploys it."""
    place.up()
    yield place
    place.up(repair=True)


def rows(folder: Path, seed: int) -> str:
    path = folder / f"census-{seed}.csv"
    census(3000, seed=seed).to_csv(path, index=False)
    return str(path)


def ingest(place: Place, source: str, onto: str = "") -> None:
    """As a team's own script does, in this process."""
    with place.settings(heartbeats=False):
        ingest_data(source, onto=onto)


def taken(place: Place) -> list[Entry]:
    return [entry for entry in place.environment().log().entries() if isinstance(entry.body, Taken)]


def outcome(place: Place, entry: Entry) -> Entry | None:
    """The entry that says what came of a head that was taken."""
    return next((one for one in place.environment().log().entries() if one.closes == entry.seq), None)


def trainings(place: Place, **state: Any) -> list[dict[str, Any]]:
    """Runs of the deployed train-candidate that something else than its schedule began."""
    every = api(place, "flow_runs/filter", flows={"name": {"any_": ["train-candidate"]}}, **state)
    return [one for one in every if not one["auto_scheduled"] and one["deployment_id"]]


def deployment(place: Place, flow: str) -> dict[str, Any]:
    return next(one for one in api(place, "deployments/filter") if one["entrypoint"].endswith(f".{flow}"))


@contextmanager
def no_event(place: Place) -> Generator[None]:
    """Nobody listens when a branch moves."""
    found = next(one for one in api(place, "automations/filter") if one["name"] == AUTOMATION)
    api(place, f"automations/{found['id']}", "PATCH", enabled=False)
    try:
        yield
    finally:
        api(place, f"automations/{found['id']}", "PATCH", enabled=True)


def test_ten_commits_on_staging_and_one_move_of_main_start_exactly_one_training(working: Place, tmp_path: Path) -> None:
    for seed in range(20, 30):
        ingest(working, rows(tmp_path, seed))
    assert trainings(working) == []
    assert Branch(working.store, "main").head is None
    moved = submit(working, "ingest_data", source=rows(tmp_path, 29), reason="good enough")
    assert ended(working, moved).startswith("COMPLETED")
    assert wait_until(lambda: len(trainings(working)) > 0, seconds=60, pause=0.5)
    [one] = trainings(working)  # events are handled in order: those of staging were seen by now
    assert ended(working, one["id"]).startswith("COMPLETED")
    [only] = taken(working)
    made = outcome(working, only)
    assert made is not None
    assert isinstance(made.body, Released)
    assert made.body.commit == Branch(working.store, "main").head
    assert working.environment().log().state().service(SERVICE).split.live[0].release != made.body.release


def test_two_at_once_and_one_ends_well(working: Place, tmp_path: Path) -> None:
    before = len(taken(working))
    with no_event(working):
        ingest(working, rows(tmp_path, 30), onto="main")
        both = [submit(working, "train_candidate") for _ in range(2)]
        assert [ended(working, one).split()[0] for one in both] == ["COMPLETED", "COMPLETED"]
    assert len(taken(working)) == before + 1


def test_a_killed_run_is_taken_again(working: Place, tmp_path: Path) -> None:
    before = len(taken(working))
    with no_event(working):
        ingest(working, rows(tmp_path, 31), onto="main")
        first = submit(working, "train_candidate")
        assert wait_until(lambda: len(taken(working)) > before, seconds=120, pause=0.02)
        for victim in processes_of_run(first):
            victim.kill()
        assert ended(working, first).startswith("CRASHED")
        assert outcome(working, taken(working)[-1]) is None
        assert ended(working, submit(working, "train_candidate")).startswith("COMPLETED")
    *_, killed, again = taken(working)
    assert (killed.body, again.run) != (again.body, killed.run)
    assert outcome(working, killed) is None
    assert outcome(working, again) is not None


def test_an_event_that_is_lost_loses_nothing(working: Place, tmp_path: Path) -> None:
    before = len(taken(working))
    with no_event(working):
        ingest(working, rows(tmp_path, 32), onto="main")
        found = deployment(working, "train_candidate")
        [schedule] = found["schedules"]
        assert schedule["schedule"]["interval"] == 300
        api(working, f"deployments/{found['id']}/schedules/{schedule['id']}", "PATCH", schedule={"interval": 20})
        assert wait_until(lambda: len(taken(working)) > before, seconds=120, pause=0.5)
    newest = taken(working)[-1]
    assert newest.run is not None
    assert run(working, newest.run.id)["auto_scheduled"]
    assert ended(working, newest.run.id).startswith("COMPLETED")
    assert outcome(working, newest) is not None
    assert verify(working.environment().log()).faults == []
