"""A release goes live with every word of it on record, or what answered before still does."""

from __future__ import annotations

import itertools
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
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.states import StateType

from prefect_mlops.blocks import Answers, Environment, Floor, LocalServing, Recipe, Split, verify
from prefect_mlops.blocks.entry import Asked, Judged, Released, Waiver
from prefect_mlops.blocks.errors import DataRefused, GateNotPassed, Invalid, NothingBefore, TestsNotPassed
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import promote_candidate, reconcile_serving, release_model, rollback_release
from prefect_mlops.flows.creditco import RECIPE, TARGET, census
from prefect_mlops.tasks import Comparison, shift_traffic, snapshot_data, trace_prediction
from prefect_mlops.tasks._showing import show_all
from tests.registries import everything, new_registry

NAME = "flows"
SERVICE = "wages"
WAGES = RECIPE.model_copy(update={"name": SERVICE, "tests": [Floor("accuracy", 0.6), Answers()]})


@pytest.fixture(scope="module")
def environment(place: Place) -> Iterator[Environment]:
    """An environment of this module's own, on the shared place; its flows run against the place's Prefect."""
    with place.settings(heartbeats=False):
        policy: dict[str, Any] = {"watch_seconds": 0, "shadow_requests": 60, "shadow_agreement_permille": 600}
        Environment(name=NAME, receipts=place.receipts, **policy).save(NAME)
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

    store, bodies = environment.store_block, [entry.body for entry in environment.log().entries()]
    [released] = [body for body in bodies if isinstance(body, Released) and body.release == second]
    commit = store.commit_at(released.commit or "")
    assert (commit.snapshot, commit.rows) == (trace.data, 800)
    assert commit.run == trace.run


def test_a_release_that_is_live_already_moves_nothing(environment: Environment, tmp_path: Path) -> None:
    before = environment.log().state().head
    kept = snapshot_data.fn(environment.store_block, data(tmp_path, 2), SERVICE)
    release_model(WAGES, data=Path(kept.id), environment=NAME)  # a run elsewhere has no such file, but the store
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
    recipe = Recipe(name=SERVICE, train="jittery_model:train", target=TARGET, tests=[Floor("accuracy", 0)])
    with pytest.raises(GateNotPassed, match="16 of 16 answers differ"):
        release_model(recipe, data=data(tmp_path, 3), environment=NAME)
    assert live(environment) == ["wages-v2"]
    assert len(environment.log().state().service(SERVICE).split.arms) <= 2
    assert answer(environment).status_code == 200


def test_data_without_the_target_changes_nothing(environment: Environment, tmp_path: Path) -> None:
    before = environment.log().state().head
    path = tmp_path / "bad.csv"
    census(800, seed=4).drop(columns=[TARGET]).to_csv(path, index=False)
    with pytest.raises(DataRefused, match=r"columns missing \{income\}"):
        release_model(WAGES, data=path, environment=NAME)
    assert "bad.csv is refused" in pages("data-wages")[0]
    with pytest.raises(Invalid, match=r"include the target 'income'"):
        release_model(WAGES.model_copy(update={"expectations": ""}), data=path, environment=NAME)
    with pytest.raises(Invalid, match="no-such-place"):
        release_model(WAGES, data=path, environment="no-such-place")
    assert environment.log().state().head == before


@contextmanager
def released_meanwhile(outcome: list[Any], recipe: Recipe, data: Path, **options: Any) -> Generator[None]:
    """Release in a thread, while the test plays the person who is asked."""
    context = copy_context()  # carries which Prefect server is meant

    def go() -> None:
        try:
            outcome.append(release_model(recipe, data=data, environment=NAME, **options))
        except (GateNotPassed, TestsNotPassed) as error:
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
    with released_meanwhile(outcome, WAGES, data(tmp_path, seed), approval=True):
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


@pytest.mark.parametrize("decision", ["decline", "waive"])
def test_a_person_may_waive_a_model_test(environment: Environment, tmp_path: Path, decision: str) -> None:
    strict = WAGES.model_copy(update={"tests": [Floor("accuracy", 1)]})
    before, outcome = environment.log().state(), list[Any]()
    with released_meanwhile(outcome, strict, data(tmp_path, 9), waiver=True):
        run = paused_run()
        with get_client(sync_client=True) as client:
            given = {"decision": decision, "name": "Ana", "reason": "the best there is"}
            client.resume_flow_run(run.id, run_input=given)
    assert "accuracy floor" in pages("tests-wages")[0]
    known = environment.log().state().service(SERVICE)
    if decision == "decline":
        assert isinstance(outcome[0], TestsNotPassed)
        assert environment.log().state().head == before.head, "nothing was released, and no number given"
        return
    assert live(environment) == [known.named(outcome[0])]
    [waiver] = [entry for entry in environment.log().entries() if isinstance(entry.body, Waiver)]
    assert isinstance(waiver.body, Waiver)
    assert (waiver.actor.name, waiver.reason) == ("Ana", "the best there is")
    assert (waiver.body.gate, waiver.body.release) == ("accuracy floor", outcome[0])
    assert waiver.body.shown == environment.store_block.release(outcome[0]).tests


def test_a_model_that_does_not_pass_its_tests_is_not_registered(environment: Environment, tmp_path: Path) -> None:
    before, registry = environment.log().state().head, environment.registry_block.client()
    versions = len(registry.search_model_versions(f"name='{SERVICE}'"))
    strict = WAGES.model_copy(update={"tests": [Floor("accuracy", 1)]})
    with pytest.raises(TestsNotPassed, match="accuracy floor failed: accuracy 0"):
        release_model(strict, data=data(tmp_path, 10), environment=NAME)
    assert environment.log().state().head == before
    assert len(registry.search_model_versions(f"name='{SERVICE}'")) == versions


@contextmanager
def asked_all_the_while(environment: Environment) -> Generator[None]:
    """A client asks about one person after the other until the end."""
    rows = census(500, seed=98).drop(columns=[TARGET])
    url = environment.target.address(SERVICE).url + "/api/v1.0/predictions"
    stop = threading.Event()

    def ask() -> None:
        values = json.loads(rows.to_json(orient="values"))
        with httpx.Client(timeout=30) as client:
            for row in itertools.cycle(values):
                client.post(url, json={"data": {"names": list(rows.columns), "ndarray": [row]}})
                if stop.wait(0.01):
                    return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def pages(key: str) -> list[str]:
    """What was left under a key in the UI, newest first."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), sort=ArtifactSort.CREATED_DESC
        )
    return [str(artifact.data) for artifact in found]


def test_a_shadow_is_compared_and_then_promoted(environment: Environment, tmp_path: Path) -> None:
    before = environment.log().state().next
    with asked_all_the_while(environment):
        release_model(WAGES, data=data(tmp_path, 7), environment=NAME, strategy="shadow", reason="new data")
    entries = [entry for entry in environment.log().entries() if entry.seq >= before]
    served = [str(entry.body.after) for entry in entries if isinstance(entry.body, Asked)]
    assert [(" shadow" in split or split.startswith("shadow"), split.count("live")) for split in served] == [
        (False, 1),
        (True, 1),
        (False, 1),
    ]
    [judged] = [body for entry in entries if isinstance(body := entry.body, Judged) and body.gate == "shadow agreement"]
    assert judged.outcome == "passed"
    assert judged.evidence is not None
    found = Comparison.model_validate_json(environment.store_block.get(judged.evidence))
    assert found.requests >= 60
    assert found.failed == 0
    assert sum(found.scores["champion"]) == sum(found.scores["challenger"]) == found.rows
    assert live(environment) == [environment.log().state().service(SERVICE).named(judged.release)]
    page = pages("shadow-wages")[0]
    assert "agrees with" in page
    assert "data:image/png;base64," in page


def test_a_shadow_that_decides_otherwise_is_taken_away(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "contrary_model.py").write_text(
        textwrap.dedent(
            """
            from prefect_mlops.flows import creditco
            class Contrary:
                def __init__(self, model):
                    self.model, self.classes_ = model, model.classes_
                def predict(self, rows):
                    return self.classes_[self.predict_proba(rows).argmax(axis=1)]
                def predict_proba(self, rows):
                    return self.model.predict_proba(rows)[:, ::-1]
            def train(frame, params):
                return Contrary(creditco.train(frame, params))
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = WAGES.model_copy(update={"train": "contrary_model:train", "tests": [Floor("accuracy", 0)]})
    before = live(environment)
    with asked_all_the_while(environment), pytest.raises(GateNotPassed, match=r"failed; .* % of .* answers agree"):
        release_model(recipe, data=data(tmp_path, 8), environment=NAME, strategy="shadow")
    assert live(environment) == before
    assert "does not answer as" in pages("shadow-wages")[0]
    assert [arm for arm in environment.target.observe(SERVICE).routes.arms if arm.role == "shadow"] == []


def test_a_shadow_of_several_is_refused_before_anything_moves(environment: Environment, tmp_path: Path) -> None:
    numbers = list(environment.log().state().service(SERVICE).numbers)
    halves = [{"release": release, "role": "live", "percent": 50} for release in numbers[:2]]
    before = environment.log().state().service(SERVICE).split
    shift_traffic(environment, SERVICE, Split.model_validate({"arms": halves}))
    moved = len(environment.log().state().service(SERVICE).changes)
    with pytest.raises(Invalid, match=r"is compared with the one release that answers, got 'wages-v\d, wages-v\d'"):
        release_model(WAGES, data=data(tmp_path, 9), environment=NAME, strategy="shadow")
    assert len(environment.log().state().service(SERVICE).changes) == moved
    shift_traffic(environment, SERVICE, before)


def test_what_a_killed_run_had_put_live_is_watched_by_the_next_one(environment: Environment) -> None:
    known = environment.log().state().service(SERVICE)
    [answers] = live(environment)
    other = next(release for release in known.numbers if known.named(release) != answers)
    shift_traffic(environment, SERVICE, Split.of(other, warm=[arm.release for arm in known.split.live]))
    before = environment.log().state().next
    for _ in range(2):
        assert promote_candidate(SERVICE, known.named(other), environment=NAME) == other
    [watched] = [entry for entry in environment.log().entries() if entry.seq >= before]
    assert isinstance(watched.body, Judged)
    assert (watched.body.gate, watched.body.outcome) == ("golden probes at the front door", "passed")
    assert watched.rollout == environment.log().state().service(SERVICE).rollout
    rollback_release(SERVICE, to=answers, environment=NAME)
    assert live(environment) == [answers]


def test_reconcile_finds_nothing_to_do_and_the_log_verifies(environment: Environment) -> None:
    done = reconcile_serving(environment=NAME)
    assert done[SERVICE].startswith("as it should be")
    assert "not known to the log" in done["credit"]
    assert verify(environment.log()).faults == []
    assert isinstance(environment.target, LocalServing)


def test_what_reconcile_finds_changed_it_shows(environment: Environment) -> None:
    known = environment.log().state().service(SERVICE)
    other, before = next(iter(known.numbers)), known.split.releases[0]
    brief = environment.model_copy(update={"warm_minutes": 0})
    shift_traffic.fn(brief, SERVICE, Split.of(other, warm=[before]), reason="by a flow that shows nothing")
    client = environment.registry_block.client()
    assert client.get_model_version_by_alias(SERVICE, "champion").tags["release"] == before
    assert "warm time is over" in reconcile_serving(environment=NAME)[SERVICE]
    assert client.get_model_version_by_alias(SERVICE, "champion").tags["release"] == other


def test_the_registry_shows_what_follows_from_store_and_log(environment: Environment, tmp_path: Path) -> None:
    """Whatever these flows did, stopped, waived and rolled back: an empty registry is filled to show the same."""
    shown, again = environment.registry_block, new_registry(tmp_path / "again")
    other = environment.model_copy()
    other.use(environment.store_block, environment.target, again)
    show_all(other)
    assert everything(again, SERVICE) == everything(shown, SERVICE)
