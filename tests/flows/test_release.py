"""A release goes live with every word of it on record, or what answered before still does."""

from __future__ import annotations

import json
import textwrap
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.states import StateType

from prefect_mlops.blocks import Environment, LocalServing, Recipe, verify
from prefect_mlops.blocks.entry import Asked, Judged
from prefect_mlops.blocks.errors import GateNotPassed, Invalid, NothingBefore
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import reconcile_serving, release_model, rollback_release
from prefect_mlops.flows.creditco import RECIPE, TARGET, census
from prefect_mlops.tasks import trace_prediction

NAME = "flows"
SERVICE = "wages"
WAGES = RECIPE.model_copy(update={"name": SERVICE})


@pytest.fixture(scope="module")
def environment(place: Place) -> Iterator[Environment]:
    """An environment of this module's own, on the shared place; its flows run against the place's Prefect."""
    with place.settings(heartbeats=False):
        Environment(name=NAME, receipts=place.receipts, watch_seconds=0).save(NAME)
        yield Environment.find(NAME)


def data(folder: Path, seed: int) -> Path:
    path = folder / f"census-{seed}.csv"
    census(800, seed=seed).to_csv(path, index=False)
    return path


def live(environment: Environment) -> list[str]:
    """Who the log says answers, by name."""
    known = environment.log().state().service(SERVICE)
    return [known.named(arm.release) for arm in known.split.live]


def answer(environment: Environment) -> httpx.Response:
    """What the service answers about one person."""
    rows = census(1, seed=99).drop(columns=[TARGET])
    question = {"data": {"names": list(rows.columns), "ndarray": json.loads(rows.to_json(orient="values"))}}
    return httpx.post(environment.target.address(SERVICE).url + "/api/v1.0/predictions", json=question, timeout=30)


def newest_run(flow: str) -> FlowRun:
    """The run of a flow that was made last."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[f"prefect-mlops:{flow}"]))
        )
    return max(runs, key=lambda run: run.created or run.expected_start_time)  # type: ignore[arg-type,return-value]


def test_the_story_of_two_releases(environment: Environment, tmp_path: Path) -> None:
    first = release_model(WAGES, data=data(tmp_path, 1), environment=NAME, reason="first", actor="ana")
    assert live(environment) == ["wages-v1"]
    assert answer(environment).headers["x-release"] == first

    second = release_model(WAGES, data=data(tmp_path, 2), environment=NAME, reason="second", actor="ana")
    answered = answer(environment)
    assert answered.headers["x-release"] == second
    known = environment.log().state().service(SERVICE)
    assert {arm.release: arm.role for arm in known.split.arms} == {second: "live", first: "warm"}
    verdicts = [entry.body for entry in environment.log().entries() if isinstance(entry.body, Judged)]
    assert {(verdict.release, verdict.outcome) for verdict in verdicts} == {(first, "passed"), (second, "passed")}

    run = newest_run("release")
    assert {"environment:flows", "service:wages", "release:wages-v2"} <= set(run.tags)
    assert run.name.startswith("release-wages-")
    assert environment.registry_block.client().get_model_version_by_alias(SERVICE, "champion").tags["release"] == second

    trace = trace_prediction.fn(environment, answered.headers["x-request-id"])
    assert (trace.name, trace.actor.name, trace.reason) == ("wages-v2", "ana", "second")
    assert trace.run is not None
    assert trace.run.name == run.name
    assert trace.data == environment.store_block.release(second).data
    assert trace.records[0].outputs == answered.json()["data"]["ndarray"]


def test_a_release_that_is_live_already_moves_nothing(environment: Environment, tmp_path: Path) -> None:
    before = environment.log().state().head
    release_model(WAGES, data=data(tmp_path, 2), environment=NAME)
    assert environment.log().state().head == before


def test_rolled_back_to_what_a_run_left_live(environment: Environment) -> None:
    asked = [entry for entry in environment.log().entries() if isinstance(entry.body, Asked)]
    first_run = asked[0].run
    assert first_run is not None
    said = rollback_release(SERVICE, to=first_run.name, environment=NAME, reason="complaints", actor="bo")
    assert said == "wages: wages-v1 answers"
    assert live(environment) == ["wages-v1"]
    with pytest.raises(NothingBefore, match="nothing before wages-v1"):
        rollback_release(SERVICE, environment=NAME)
    rollback_release(SERVICE, to="wages-v2", environment=NAME)
    assert live(environment) == ["wages-v2"]


def test_a_model_that_answers_otherwise_than_in_training_never_goes_live(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jittery_model.py").write_text(
        textwrap.dedent(
            """
            import random
            class Jittery:
                classes_ = ["<=50K", ">50K"]
                def predict(self, rows):
                    return [random.choice(self.classes_) for _ in range(len(rows))]
                def predict_proba(self, rows):
                    return [[1 - p, p] for p in (random.random() for _ in range(len(rows)))]
            def train(frame, params):
                return Jittery()
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = Recipe(name=SERVICE, train="jittery_model:train", target=TARGET)
    with pytest.raises(GateNotPassed, match="16 of 16 answers differ"):
        release_model(recipe, data=data(tmp_path, 3), environment=NAME)
    assert live(environment) == ["wages-v2"]
    assert len(environment.log().state().service(SERVICE).split.arms) <= 2
    assert answer(environment).status_code == 200


def test_data_without_the_target_changes_nothing(environment: Environment, tmp_path: Path) -> None:
    before = environment.log().state().head
    path = tmp_path / "bad.csv"
    census(800, seed=4).drop(columns=[TARGET]).to_csv(path, index=False)
    with pytest.raises(Invalid, match="include the target 'income'"):
        release_model(WAGES, data=path, environment=NAME)
    with pytest.raises(Invalid, match="no-such-place"):
        release_model(WAGES, data=path, environment="no-such-place")
    assert environment.log().state().head == before


@contextmanager
def released_meanwhile(path: Path, outcome: list[Any]) -> Generator[None]:
    """Release with approval in a thread, while the test plays the person who is asked."""

    context = copy_context()  # carries which Prefect server is meant

    def go() -> None:
        try:
            outcome.append(release_model(WAGES, data=path, environment=NAME, approval=True))
        except GateNotPassed as error:
            outcome.append(error)

    thread = threading.Thread(target=context.run, args=(go,))
    thread.start()
    yield
    thread.join(timeout=120)
    assert not thread.is_alive()


def paused_run(seconds: float = 90) -> FlowRun:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run = newest_run("release")
        if run.state is not None and run.state.type == StateType.PAUSED:
            return run
        time.sleep(0.2)
    raise AssertionError("no run waits for approval")


@pytest.mark.parametrize(("decision", "answers"), [("decline", "wages-v2"), ("approve", "wages-v5")])
def test_a_person_decides(place: Place, environment: Environment, tmp_path: Path, decision: str, answers: str) -> None:
    outcome: list[Any] = []
    seed = {"decline": 5, "approve": 6}[decision]
    with released_meanwhile(data(tmp_path, seed), outcome):
        run = paused_run()
        assert environment.log().state().service(SERVICE).asked is None, "waiting is a state, nothing is open"
        with get_client(sync_client=True) as client:
            given = {"decision": decision, "name": "Ana", "reason": "looked at it"}
            client.resume_flow_run(run.id, run_input=given)
    assert isinstance(outcome[0], GateNotPassed) == (decision == "decline")
    assert live(environment) == [answers]
    approvals = [entry for entry in environment.log().entries() if entry.kind == "approval"]
    assert (approvals[-1].actor.name, approvals[-1].actor.assurance) == ("Ana", "claimed")
    assert approvals[-1].reason == "looked at it"


def test_reconcile_finds_nothing_to_do_and_the_log_verifies(environment: Environment) -> None:
    done = reconcile_serving(environment=NAME)
    assert done[SERVICE].startswith("as it should be")
    assert "not known to the log" in done["credit"]
    assert verify(environment.log()).faults == []
    assert isinstance(environment.target, LocalServing)
