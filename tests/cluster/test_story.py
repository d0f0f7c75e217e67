"""CreditCo's story on a node: every change a flow run that is a Job, every stage seen where we wrote nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun

from prefect_mlops.blocks import Environment, LocalServing, Split, Store
from prefect_mlops.blocks._seldon_manifest import predictor_name
from prefect_mlops.blocks.records import predictions_of
from prefect_mlops.flows import release_model
from prefect_mlops.flows.creditco import census
from prefect_mlops.tasks import trace_prediction
from prefect_mlops.tasks.tracing import NotRecorded, Trace
from tests.cluster.api import wait_for
from tests.cluster.production import NAME, POLICY, SERVICE, Production
from tests.cluster.serving import Clients
from tests.places import EASY

ENOUGH = 5_000


def answers_come_from(clients: Clients, release: str, more: int = 50) -> None:
    """Wait until clients were answered by a release so many times more."""
    wanted = clients.answered[release] + more
    wait_for(lambda: clients.answered[release] >= wanted, f"answers of {release}", seconds=60)


def live(production: Production) -> str:
    """The release that the log says is live."""
    [arm] = production.environment.log().state().service(SERVICE).split.live
    return arm.release


def went_well(production: Production, run: FlowRun, account: str) -> None:
    """The run ended well, as a Job with the rights of its role."""
    assert run.state is not None
    assert run.state.is_completed(), production.words(run)
    [pod] = production.team.pods(run.id)
    assert pod["spec"]["serviceAccountName"] == account


def trace(environment: Environment, request: str) -> Trace | None:
    with contextlib.suppress(NotRecorded):
        return trace_prediction.fn(environment, request)
    return None


@pytest.mark.timeout(900)
def test_the_story(production: Production) -> None:
    went_well(production, production.release(production.commit(1), reason="the first model"), "mlops-release")
    v1 = live(production)
    assert production.weights() == {predictor_name(v1, shadow=False): 100}
    with production.clients() as clients:
        answers_come_from(clients, v1)

        went_well(production, production.release(production.commit(2), reason="a vendor's data"), "mlops-release")
        v2 = live(production)
        assert production.weights() == {predictor_name(v2, shadow=False): 100}
        answers_come_from(clients, v2)

        back = production.run("rollback-release", service=SERVICE, reason="leans on a contested attribute")
        went_well(production, back, "mlops-rollback")
        assert production.weights() == {predictor_name(v1, shadow=False): 100}
        answers_come_from(clients, v1)

        third = production.release(production.commit(3), reason="new data", strategy="shadow")
        went_well(production, third, "mlops-release")
        v3 = live(production)
        assert production.weights() == {predictor_name(v3, shadow=False): 100}
        answers_come_from(clients, v3)
        sent = clients.last
        wait_for(lambda: clients.answered.total() >= ENOUGH, "enough requests", seconds=120)
    assert clients.failed == []
    print(f"{clients.answered.total():,} requests, {len(clients.failed)} failed")
    environment = production.environment
    seen = predictions_of(environment.records(), [v3], environment.log().state().service(SERVICE).changes[0].asked.time)
    assert {record.role for record in seen} >= {"live", "shadow"}
    traced = wait_for(lambda: trace(environment, sent), "the record of an answer, which its pod brings away")
    assert traced is not None
    assert (traced.release, [traced.name], traced.reason) == (v3, production.live(), "new data")
    assert traced.run is not None
    assert traced.run.id == str(third.id)
    assert traced.rows == 1200


def test_the_same_recipe_and_policy_release_on_one_machine(production: Production, tmp_path: Path) -> None:
    """Nothing is edited but the environment's name."""
    serving = LocalServing(home=tmp_path / "home", replicas=1, drain_seconds=1)
    Store(url=str(tmp_path / "store")).save("laptop")
    serving.save("laptop")
    blocks = {"store": "mlops-store/laptop", "serving": "local-serving/laptop"}
    Environment(name="laptop", **blocks, registry=f"model-registry/{NAME}", **POLICY).save("laptop")
    census(1200, seed=1).to_csv(tmp_path / "census-1.csv", index=False)
    try:
        there = release_model(EASY, data=tmp_path / "census-1.csv", environment="laptop", reason="the first model")
        laptop = Environment.find("laptop")
        assert laptop.target.observe(SERVICE).shows(Split.of(there))
        environment = production.environment
        assert laptop.policy == environment.policy
        released = [environment.store_block.release(one) for one in environment.log().state().service(SERVICE).numbers]
        same = laptop.store_block.release(there)
        assert (same.data, same.service) in [(one.data, one.service) for one in released]
    finally:
        serving.stop()
