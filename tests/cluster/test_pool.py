"""Flow runs as Jobs of a team's work pool, whose Prefect and MLflow are on PostgreSQL and whose store is a bucket."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import Any
from uuid import UUID

import httpx
import pytest
from mlflow import MlflowClient
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run
from prefect.states import Cancelled

from prefect_mlops.blocks import Environment, Floor, Recipe, StepResources
from prefect_mlops.blocks.errors import StepFailed
from prefect_mlops.flows._candidate import trained
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import Candidate, snapshot_data
from tests.cluster.api import wait_for
from tests.cluster.team import AUTH, Team


@pytest.fixture(scope="module")
def snapshot(team: Team, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "census.csv"
    census(800, seed=1).to_csv(path, index=False)
    return snapshot_data.fn(Environment.find("production").store_block, path, "main").snapshot


@pytest.fixture
def in_a_pod(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a run of the pool with too little of everything."""
    monkeypatch.setenv("PREFECT_MLOPS_CPUS", "1")
    monkeypatch.setenv("PREFECT_MLOPS_MEMORY_MIB", "64")


def recipe(**wanted: int) -> Recipe:
    return RECIPE.model_copy(update={"tests": [Floor("accuracy", 0.5)], "resources": StepResources(**wanted)})


@flow(persist_result=False)
def parent(recipe: Recipe, snapshot: str, environment: str = "production") -> tuple[Candidate, str]:
    return trained(Environment.find(environment), recipe, snapshot), str(flow_run.id)


def children(of: object) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        started_by = FlowRunFilterParentFlowRunId.model_validate({"any_": [of]})
        return client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=started_by))


def container(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["spec"]["containers"][0]


@pytest.mark.usefixtures("in_a_pod")
def test_a_training_is_a_job_with_what_its_recipe_asks_for(team: Team, snapshot: str) -> None:
    candidate, run = parent(recipe(cpus=1, memory_mib=1500), snapshot)
    assert candidate.data == snapshot
    assert Environment.find("production").store_block.has(candidate.model)
    (child,) = children(run)
    wait_for(lambda: team.pods(child.id)[0]["status"]["phase"] == "Succeeded", "the end of its pod", seconds=90)
    (pod,) = team.pods(child.id)
    given = container(pod)["resources"]
    assert [given["requests"]["cpu"], given["requests"]["memory"], given["limits"]["memory"]] == [
        "1",
        "1500Mi",
        "1500Mi",
    ]
    assert container(pod)["image"] == team.image
    assert container(pod)["securityContext"]["readOnlyRootFilesystem"]
    assert pod["spec"]["serviceAccountName"] == "mlops-train"
    mounted = {one["mountPath"] for one in container(pod)["volumeMounts"]}
    assert mounted == {"/tmp", "/home/mlops"}, "it has no token"
    assert AUTH not in str(pod), "what opens Prefect is in a Secret alone"


@pytest.mark.usefixtures("in_a_pod")
def test_out_of_memory_is_said(snapshot: str) -> None:
    with pytest.raises(StepFailed, match=r"ended Crashed: Container .* out-of-memory \(OOMKilled\)"):
        parent(recipe(memory_mib=90), snapshot)


@pytest.mark.usefixtures("in_a_pod", "team")
def test_no_node_that_has_it_is_said(snapshot: str) -> None:
    place("late", start_seconds=15)
    deploy("late")
    with pytest.raises(StepFailed, match=r"before it began, after 15 s: .* Insufficient cpu"):
        parent(recipe(cpus=1000), snapshot, "late")


@pytest.mark.usefixtures("in_a_pod", "team")
def test_an_image_that_is_not_there_is_said(snapshot: str) -> None:
    place("imageless", start_seconds=15)
    deploy("imageless", image="localhost/nothing:1")
    with pytest.raises(StepFailed, match=r"before it began, after 15 s: Image pull failed .*localhost/nothing:1"):
        parent(recipe(memory_mib=500), snapshot, "imageless")


@pytest.mark.usefixtures("in_a_pod")
def test_who_cancels_the_run_cancels_its_training(team: Team, snapshot: str) -> None:
    """Also where its pod never began; what looks after children does so every twenty seconds."""
    started = threading.Event()
    run: list[str] = []

    @flow(persist_result=False)
    def waits() -> None:
        run.append(str(flow_run.id))
        started.set()
        trained(Environment.find("production"), recipe(cpus=999), snapshot)

    thread = threading.Thread(target=copy_context().run, args=(lambda: waits(return_state=True),))
    thread.start()
    assert started.wait(60)
    child = wait_for(lambda: children(run[0]), "the training to be started", seconds=60)[0]
    wait_for(lambda: team.pods(child.id), "its pod", seconds=60)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run[0]), state=Cancelled(), force=True)
        wait_for(lambda: client.read_flow_run(child.id).state_name == "Cancelled", "it to be cancelled", seconds=150)
    thread.join(60)
    assert not thread.is_alive()


def test_mlflow_keeps_what_it_is_shown(team: Team) -> None:
    client = MlflowClient(team.url("mlflow", 5000))
    client.create_registered_model("anything")
    assert "anything" in [one.name for one in client.search_registered_models()]


def test_prefect_answers_only_who_knows_the_word(team: Team) -> None:
    asked = httpx.post(f"{team.url('prefect-server', 4200)}/api/flows/count", json={}, trust_env=False)
    assert asked.status_code == 401


def place(name: str, start_seconds: int) -> None:
    Environment(name=name, store="mlops-store/production", start_seconds=start_seconds).save(name)


def deploy(name: str, **job_variables: str) -> None:
    """Deploy what trains apart for another environment."""
    with get_client(sync_client=True) as client:
        known = client.read_deployment_by_name("train-snapshot/production")
        client.create_deployment(
            known.flow_id,
            name,
            entrypoint=known.entrypoint,
            pull_steps=[],
            work_pool_name="mlops",
            parameter_openapi_schema=known.parameter_openapi_schema,
            job_variables={**(known.job_variables or {}), **job_variables},
        )
