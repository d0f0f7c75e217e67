"""A training that needs more than its run has is a run of its own, and whatever becomes of that one is said."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.states import Crashed, Failed, Running
from prefect.utilities.callables import parameter_schema

from prefect_mlops.blocks import Environment, StepResources
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import Invalid, StepFailed, StoreUnreachable
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows._candidate import trained
from prefect_mlops.flows.train import outcome_of
from prefect_mlops.flows.training import train_snapshot
from prefect_mlops.tasks import Candidate, snapshot_data
from tests.places import EASY

NAME, LATE = "apart", "late"
BIG = EASY.model_copy(update={"resources": StepResources(cpus=1, memory_mib=600)})
Act = Callable[[SyncPrefectClient, FlowRun], object]


@pytest.fixture(scope="module")
def environment(place: Place) -> Iterator[Environment]:
    """An environment whose trainings go to a work pool of ours that has no worker: the tests do what it would."""
    template = resources.files("prefect_mlops.deployments.kubernetes").joinpath("job-template.json").read_text()
    with place.settings(heartbeats=False), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=NAME, type="kubernetes", base_job_template=json.loads(template)))
        for name, start_seconds in ((NAME, 100), (LATE, 2)):
            Environment(name=name, receipts=place.receipts, start_seconds=start_seconds).save(name)
            client.create_deployment(
                client.create_flow_from_name("train-snapshot"),
                name,
                entrypoint="prefect_mlops.flows.training.train_snapshot",
                pull_steps=[],
                work_pool_name=NAME,
                parameter_openapi_schema=parameter_schema(train_snapshot).model_dump(exclude_unset=True),
                enforce_parameter_schema=True,
            )
        yield Environment.find(NAME)


@pytest.fixture
def snapshot(environment: Environment, place: Place) -> str:
    """The rows of the place's first release."""
    path = next(place.home.parent.glob("census-1.csv"))
    return snapshot_data.fn(environment.store_block, path, "apart").snapshot


@pytest.fixture
def in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_MLOPS_MEMORY_MIB", "512")


@flow(persist_result=False)
def parent(snapshot: str, environment: str = NAME) -> tuple[Candidate, str]:
    return trained(Environment.find(environment), BIG, snapshot), str(flow_run.id)


def waiting(client: SyncPrefectClient) -> list[FlowRun]:
    """The runs that a worker would start now."""
    scheduled = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    return [run for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=scheduled)) if run.job_variables]


@contextmanager
def worker(act: Act) -> Generator[list[FlowRun]]:
    """Something that does `act` to the next run that waits for a worker."""
    taken: list[FlowRun] = []

    def work() -> None:
        with get_client(sync_client=True) as client:
            assert wait_until(lambda: bool(waiting(client)), seconds=20, pause=0.1)
            taken.extend(waiting(client))
            act(client, taken[0])

    thread = threading.Thread(target=copy_context().run, args=(work,))
    thread.start()
    try:
        yield taken
    finally:
        thread.join()


def log(client: SyncPrefectClient, run: FlowRun, name: str, message: str) -> None:
    now = datetime.now(UTC).isoformat()
    line = {"name": name, "level": 40, "message": message, "timestamp": now, "flow_run_id": str(run.id)}
    client.request("POST", "/logs/", json=[line]).raise_for_status()


@pytest.mark.usefixtures("in_a_pod")
def test_what_came_of_it_comes_from_the_store(environment: Environment, snapshot: str) -> None:
    def execute(_: SyncPrefectClient, run: FlowRun) -> None:
        run_flow(train_snapshot, flow_run=run, parameters=run.parameters, return_type="state")

    with worker(execute) as taken:
        candidate, parent_id = parent(snapshot)
    assert (candidate.data, candidate.service) == (snapshot, BIG.name)
    assert environment.store_block.has(candidate.model)
    assert taken[0].job_variables == {"cpu": "1", "memory": "600Mi"}
    with get_client(sync_client=True) as client:
        child = client.read_flow_run(taken[0].id)
        assert child.parent_task_run_id
        assert str(client.read_task_run(child.parent_task_run_id).flow_run_id) == parent_id
    assert {"prefect-mlops:train", f"service:{BIG.name}"} <= set(child.tags)


@pytest.mark.usefixtures("environment")
def test_where_runs_have_no_choice_it_is_trained_in_place(snapshot: str) -> None:
    candidate, _ = parent(snapshot)
    assert candidate.data == snapshot
    with get_client(sync_client=True) as client:
        assert not waiting(client)


@pytest.mark.usefixtures("in_a_pod", "environment")
def test_the_worker_knows_why_a_pod_died(snapshot: str) -> None:
    def run_out_of_memory(client: SyncPrefectClient, run: FlowRun) -> None:
        client.set_flow_run_state(run.id, Running(), force=True)
        log(client, run, "prefect.flow_runs.observer", "Container was killed (OOMKilled). Resolution: more.")
        log(client, run, "prefect.flow_runs.observer", "the last line that the container wrote")
        log(client, run, "prefect.flow_runs.runner", "Process exited with status code: -9")
        client.set_flow_run_state(run.id, Crashed(message="Process exited with status code: -9"), force=True)

    with worker(run_out_of_memory), pytest.raises(StepFailed, match=r"ended Crashed: Container .*OOMKilled") as failed:
        parent(snapshot)
    assert outcome_of(failed.value) == ("could not be measured", None)


@pytest.mark.usefixtures("in_a_pod", "environment")
def test_one_that_does_not_start_is_cancelled(snapshot: str) -> None:
    def find_no_node(client: SyncPrefectClient, run: FlowRun) -> None:
        log(client, run, "prefect.flow_runs.observer", "Pod is unschedulable: 0/1 nodes are available")

    with (
        worker(find_no_node) as taken,
        pytest.raises(StepFailed, match="ended before it began, after 2 s: Pod is unschedulable"),
    ):
        parent(snapshot, LATE)
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(taken[0].id).state
    assert state is not None
    assert (state.is_cancelled() or state.is_cancelling(), state.is_scheduled()) == (True, False)


@pytest.mark.usefixtures("in_a_pod", "environment")
@pytest.mark.parametrize(
    ("name", "error", "outcome"),
    [
        ("Invalid", StepFailed, "failed"),
        ("Failed", StepFailed, "could not be measured"),
        ("StoreUnreachable", StoreUnreachable, "could not be measured"),
    ],
)
def test_what_it_says_of_itself_is_passed_on(snapshot: str, name: str, error: type[Exception], outcome: str) -> None:
    def fail(client: SyncPrefectClient, run: FlowRun) -> None:
        client.set_flow_run_state(run.id, Failed(name=name, message="the target is 'income'"), force=True)

    with worker(fail), pytest.raises(error, match="the target is 'income'") as failed:
        parent(snapshot)
    assert outcome_of(failed.value)[0] == outcome


@pytest.mark.usefixtures("environment")
def test_an_error_is_the_name_and_the_message_of_its_state(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("income\n1\n")
    store = Environment.find(NAME).store_block
    few = snapshot_data.fn(store, tmp_path / "few.csv", "apart").snapshot
    state = train_snapshot(BIG, few, NAME, return_state=True)
    assert (state.name, state.is_failed()) == ("Invalid", True)
    assert "at least 50 rows" in str(state.message)


@pytest.mark.usefixtures("in_a_pod")
def test_nothing_deployed_is_said(place: Place, environment: Environment, snapshot: str) -> None:
    Environment(name="bare", receipts=place.receipts).save("bare", overwrite=True)
    with pytest.raises(Invalid, match="train-snapshot/bare"):
        parent(snapshot, "bare")
