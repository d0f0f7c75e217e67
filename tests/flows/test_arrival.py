"""Data that arrives becomes a candidate, once, or the log says why it did not."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from prefect_mlops.blocks import Answers, Environment, Floor, verify
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.branch import Branch, BranchMoved
from prefect_mlops.blocks.entry import Released, Settled, Taken
from prefect_mlops.blocks.errors import DataRefused, Invalid, TestsNotPassed
from prefect_mlops.blocks.state import Claim
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import ingest_data, promote_candidate, train_candidate
from prefect_mlops.flows._candidate import made_of
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.flows.ingest import extracted, is_function, let_through
from prefect_mlops.tasks import _taking as taking
from prefect_mlops.tasks import register_model
from prefect_mlops.tasks.announcing import BRANCH_MOVED
from prefect_mlops.tasks.traffic import open_log
from tests.places import api

NAME, SERVICE = "arrivals", "arriving"
SUITE = RECIPE.expectations
RECIPE_HERE = RECIPE.model_copy(update={"name": SERVICE, "tests": (Floor("accuracy", 0.6), Answers())})


@pytest.fixture(scope="module")
def environment(place: Place) -> Iterator[Environment]:
    """An environment of this module's own; its branches have names of their own, since the store is shared."""
    with place.settings(heartbeats=False):
        Environment(name=NAME, receipts=place.receipts).save(NAME)
        yield Environment.find(NAME)


def frame(seed: int) -> pd.DataFrame:
    return census(800, seed=seed)


def data(folder: Path, seed: int) -> str:
    path = folder / f"census-{seed}.csv"
    frame(seed).to_csv(path, index=False)
    return str(path)


def head(environment: Environment, branch: str) -> str | None:
    return Branch(environment.store_block, branch).head


def claim(environment: Environment, branch: str) -> Claim:
    return environment.log().state().service(SERVICE).claims[branch]


def page(key: str) -> str:
    """The newest page under a key in the UI."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return str(max(found, key=lambda one: str(one.created)).data)


def ingest(source: str, branch: str = "in", **more: str) -> str:
    return ingest_data(source, environment=NAME, branch=branch, onto=more.pop("onto", "out"), **more)  # type: ignore[arg-type]


def train(branch: str = "out", recipe: object = RECIPE_HERE) -> str | None:
    return train_candidate(recipe, environment=NAME, branch=branch, actor="ana")  # type: ignore[arg-type]


def test_from_a_file_to_a_candidate(environment: Environment, tmp_path: Path) -> None:
    assert train() is None
    commit = ingest(data(tmp_path, 1), expectations=SUITE, reason="monthly")
    assert commit == head(environment, "out") == head(environment, "in")
    release = train()
    found = claim(environment, "out").closed
    assert found is not None
    assert isinstance(found.body, Released)
    assert (found.body.release, found.body.number, found.body.commit) == (release, 1, commit)
    known = environment.log().state().service(SERVICE)
    assert (known.changes, known.split.arms) == ((), ()), "no traffic moves"
    version = environment.registry_block.client().get_model_version_by_alias(SERVICE, "challenger")
    assert (version.tags["release"], version.tags["name"]) == (release, "arriving-v1")
    assert "arriving-v1 is a candidate in arrivals" in page(f"candidate-{SERVICE}")
    assert "passed" in page(f"tests-{SERVICE}")
    assert train() is None
    assert ingest(data(tmp_path, 1), expectations=SUITE) == commit
    assert train() is None


def test_a_candidate_goes_live_as_it_is(environment: Environment, tmp_path: Path) -> None:
    """Neither before its bytes are checked, nor beside something that it was not compared with."""
    first = promote_candidate(SERVICE, environment=NAME, reason="the committee met", actor="bo")
    known = environment.log().state().service(SERVICE)
    assert [arm.release for arm in known.split.live] == [first] == list(known.numbers)
    assert known.changes[-1].asked.actor.name == "bo"
    before = environment.log().state().head
    assert promote_candidate(SERVICE, "arriving-v1", environment=NAME) == first
    assert environment.log().state().head == before, "what is live is not moved"

    for seed in (21, 22):
        ingest(data(tmp_path, seed))
        train()
    second, third = list(environment.log().state().service(SERVICE).numbers)[1:]
    assert promote_candidate(SERVICE, environment=NAME) == third
    assert environment.registry_block.client().get_model_version_by_alias(SERVICE, "champion").tags["release"] == third
    with pytest.raises(Invalid, match="got 'tests beside arriving-v1'"):
        promote_candidate(SERVICE, second, environment=NAME)
    with pytest.raises(Invalid, match="is one of: arriving-v1, arriving-v2, arriving-v3"):
        promote_candidate(SERVICE, "arriving-v4", environment=NAME)
    with pytest.raises(Invalid, match="has a candidate"):
        promote_candidate("nobody", environment=NAME)
    assert "data as it came" in page(f"lineage-{SERVICE}")


def test_bad_data_stays_where_it_came_in(environment: Environment, tmp_path: Path) -> None:
    before = head(environment, "out")
    bad = frame(2)
    bad["income"] = bad["income"] + "."
    bad.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataRefused, match="income: 800 of 800 rows"):
        ingest(str(tmp_path / "bad.csv"), expectations=SUITE)
    assert head(environment, "out") == before != head(environment, "in")
    assert "income" in page("data-in")


def test_what_fails_for_a_reason_is_final(environment: Environment, tmp_path: Path) -> None:
    bad = frame(3)
    bad["income"] = bad["income"] + "."
    bad.to_csv(tmp_path / "bad.csv", index=False)
    ingest(str(tmp_path / "bad.csv"))  # nobody expected anything of it
    with pytest.raises(DataRefused):
        train()
    settled = claim(environment, "out").closed
    assert settled is not None
    assert isinstance(settled.body, Settled)
    assert (settled.body.outcome, settled.body.release) == ("failed", None)
    assert settled.body.evidence is not None
    assert train() is None
    ingest(data(tmp_path, 4))
    strict = RECIPE_HERE.model_copy(update={"tests": (Floor("accuracy", 0.99),)})
    with pytest.raises(TestsNotPassed):
        train(recipe=strict)
    assert train() is None


def test_a_function_that_breaks_is_no_reason_to_try_for_ever(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking.py").write_text("def train(frame, params):\n    raise RuntimeError('out of ideas')\n")
    monkeypatch.syspath_prepend(tmp_path)
    ingest(data(tmp_path, 5))
    with pytest.raises(Exception, match="out of ideas"):
        train(recipe=RECIPE_HERE.model_copy(update={"train": "breaking:train"}))
    settled = claim(environment, "out").closed
    assert settled is not None
    assert isinstance(settled.body, Settled)
    assert "out of ideas" in settled.body.detail
    assert train() is None


def test_what_a_function_takes_is_kept_with_its_code(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        from prefect_mlops.flows.creditco import census
        def month(seed):
            return census(600, seed=int(seed))
        def number():
            return 7
    """
    (tmp_path / "shop.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    commit = ingest_data("shop:month", environment=NAME, branch="shop", arguments={"seed": "6"})
    store = environment.store_block
    found = store.commit_at(commit)
    assert (found.rows, found.source) == (600, "shop:month")
    assert found.extractor is not None
    assert found.extractor.arguments == {"seed": "6"}
    assert found.extractor.code is not None
    assert "shop.py" in [file.path for file in store.snapshot(found.extractor.code).files]
    with pytest.raises(Invalid, match="missing a required argument: 'seed'"):
        extracted("shop:month", {})
    with pytest.raises(Invalid, match="is a path or a DataFrame, got 'int'"):
        extracted("shop:number", {})
    with pytest.raises(Invalid, match="can be imported"):
        extracted("no.such:thing", {})


def test_a_path_is_no_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_function("shop:month")
    assert is_function("a.shop:month")
    assert not is_function("/data/rows.csv")
    Path("shop:month").touch()
    assert not is_function("shop:month")


def test_a_branch_that_somebody_else_moved_is_left_alone(environment: Environment, tmp_path: Path) -> None:
    looked_at = head(environment, "out")
    ingest(data(tmp_path, 7))
    new = ingest_data(data(tmp_path, 8), environment=NAME, branch="in")
    with pytest.raises(BranchMoved, match="look at what came"):
        let_through(environment, new, "out", looked_at)
    assert let_through(environment, new, "out", head(environment, "out")) == new


def test_a_candidate_that_was_made_before_keeps_its_number(environment: Environment, tmp_path: Path) -> None:
    ingest(data(tmp_path, 31), onto="there")
    first = train("there")
    ingest(data(tmp_path, 32), onto="there")
    assert train("there") not in {None, first}
    numbers = environment.log().state().service(SERVICE).numbers
    ingest(data(tmp_path, 31), onto="there")
    assert train("there") == first
    assert environment.log().state().service(SERVICE).numbers == numbers
    settled = claim(environment, "there").closed
    assert settled is not None
    assert isinstance(settled.body, Settled)
    assert (settled.body.outcome, settled.body.release) == ("passed", first)


def test_many_commits_and_one_move_are_one_training(environment: Environment, tmp_path: Path) -> None:
    for seed in (10, 11, 12):
        commit = ingest_data(data(tmp_path, seed), environment=NAME, branch="many")
        assert train("one") is None
    assert ingest(data(tmp_path, 12), branch="many", onto="one") == commit
    assert train("one") is not None
    assert train("one") is None
    bodies = (entry.body for entry in environment.log().entries())
    assert len([body for body in bodies if isinstance(body, Taken) and body.branch == "one"]) == 1


@flow(name="train-candidate")
def dies_before_it_shows(environment: Environment, branch: str) -> None:
    """What `train_candidate` does up to the log's word for a candidate."""
    log, store = open_log(environment, "ana"), environment.store_block
    taken = taking.take(log, SERVICE, Branch(store, branch), lease=timedelta(hours=1))
    assert taken is not None
    made = made_of(environment, RECIPE_HERE, head(environment, branch) or "")
    assert made.tested is not None
    taking.release(log, taken, register_model(store, environment.registry_block, made.tested.candidate), made.commit)
    raise RuntimeError("killed")


def test_a_candidate_that_a_killed_run_did_not_show_is_shown_by_the_next(
    environment: Environment, tmp_path: Path
) -> None:
    ingest_data(data(tmp_path, 50), environment=NAME, branch="unseen")
    with pytest.raises(RuntimeError, match="killed"):
        dies_before_it_shows(environment, "unseen")
    made = claim(environment, "unseen").closed
    assert made is not None
    assert isinstance(made.body, Released)
    registry = environment.registry_block.client()
    for _ in range(2):
        assert train("unseen") is None
        shown = registry.get_model_version_by_alias(SERVICE, "challenger")
        assert (shown.tags["release"], shown.tags["entry"]) == (made.body.release, str(made.seq))
        assert f"{shown.tags['name']} is a candidate" in page(f"candidate-{SERVICE}")


def test_what_comes_while_training_is_told_of_at_its_end(
    place: Place, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        from prefect_mlops.blocks import Store
        from prefect_mlops.blocks.branch import Branch
        from prefect_mlops.flows import creditco
        def train(frame, params):
            branch = Branch(Store(url=params["store"]), "busy")
            branch.move(branch.head, expected=branch.head)
            return creditco.train(frame, params)
    """
    (tmp_path / "interrupted.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    ingest_data(data(tmp_path, 40), environment=NAME, branch="busy")
    params = {**RECIPE_HERE.params, "store": environment.store_block.url}
    assert train("busy", RECIPE_HERE.model_copy(update={"train": "interrupted:train", "params": params}))
    told = {"event": {"name": [BRANCH_MOVED]}, "resource": {"labels": {"prefect-mlops.branch": "busy"}}}

    def moves() -> set[int]:
        found = api(place, "events/filter", filter=told)
        return {event["payload"]["move"] for event in found["events"]}

    assert wait_until(lambda: moves() == {0, 1}, seconds=30, pause=0.2)
    assert train("busy") is not None
    assert train("busy") is None


def test_all_of_it_verifies(environment: Environment) -> None:
    assert verify(environment.log()).faults == []
