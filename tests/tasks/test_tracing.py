"""From an answer to the rows that led to it, and to those that validation kept away from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefect_mlops.blocks import Environment, ReleaseLog, Split, Store
from prefect_mlops.blocks.entry import Released
from prefect_mlops.blocks.log import Draft
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import shift_traffic, snapshot_data, trace_prediction, train_model, validate_data
from tests.deployments.server.releases import put_segment
from tests.tasks.moving.doubles import Gateway, MemoryTarget, memory_place

ROWS = 600


class Recording(MemoryTarget):
    """A target whose servers kept records in a folder."""

    folder: Path

    def records(self) -> list[Path]:
        return [self.folder]


@pytest.fixture
def place(tmp_path: Path) -> Environment:
    target = Recording(Gateway())
    target.folder = tmp_path / "records"
    target.folder.mkdir()
    store = Store(url=str(tmp_path / "store"))
    ReleaseLog(store, "local").begin({})
    return memory_place(store, target)


def released(place: Environment, snapshot: str, commit: str | None) -> str:
    """Have a release live that was trained on a snapshot; the log names its commit, if that is known."""
    store, log = place.store_block, place.log()
    release = store.put_release(train_model.fn(store, RECIPE, snapshot).release())
    log.append(lambda _: Draft(Released(release=release, number=1, commit=commit), (RECIPE.name,), begins=True))
    shift_traffic.fn(place, RECIPE.name, Split.of(release))
    return release


def answered(place: Environment, release: str, *, in_store: bool = False) -> str:
    """Have a record of an answer of `release`, as its server writes it on this machine, or takes it to the store."""
    facts = {"kind": "prediction", "request_id": "why-me", "attempt": 1, "time": "2100-01-01T00:00:00.000000Z"}
    facts |= {"service": RECIPE.name, "release": release, "model": release, "role": "live", "status": 200}
    [folder] = place.target.records()
    spool = folder / "open-1.jsonl"
    spool.write_text(json.dumps(facts | {"latency_ms": 1.0}) + "\n")
    if in_store:
        put_segment(place.store_block, place.target.namespace, RECIPE.name, spool)
    return "why-me"


@pytest.mark.parametrize("in_store", [False, True])
def test_it_goes_on_to_the_rows_that_came_in(place: Environment, tmp_path: Path, in_store: bool) -> None:
    frame = census(ROWS, seed=1)
    frame.loc[[3, 5], "hours-per-week"] = 0
    frame.to_csv(tmp_path / "applications.csv", index=False)
    store = place.store_block
    raw = snapshot_data.fn(store, tmp_path / "applications.csv")
    kept = validate_data.fn(store, raw.id, RECIPE.expectations, missing=RECIPE.missing).commit
    request = answered(place, released(place, store.commit_at(kept).snapshot, kept), in_store=in_store)
    trace = trace_prediction.fn(place, request)
    assert (trace.commit, trace.rows) == (kept, ROWS - 2)
    assert (trace.raw_commit, trace.raw_rows) == (raw.id, ROWS)
    assert trace.source == str(tmp_path / "applications.csv")
    assert store.commit_at(kept).snapshot == trace.data


@pytest.mark.parametrize("known", [True, False])
def test_data_of_which_no_row_was_set_aside_has_one_commit_or_none(
    place: Environment, tmp_path: Path, known: bool
) -> None:
    for seed in (1, 2):  # that a commit follows another one does not make it come out of that
        census(ROWS, seed=seed).to_csv(tmp_path / "applications.csv", index=False)
        commit = snapshot_data.fn(place.store_block, tmp_path / "applications.csv")
    assert commit.parents
    request = answered(place, released(place, commit.snapshot, commit.id if known else None))
    trace = trace_prediction.fn(place, request)
    assert (trace.commit, trace.rows) == ((commit.id, ROWS) if known else (None, None))
    assert (trace.raw_commit, trace.raw_rows) == (None, None)
    assert bool(trace.source) is known
