"""docs/kubernetes.md word for word: what a team types there does what the page says it does."""

from __future__ import annotations

import json

import pytest

from prefect_mlops.blocks._seldon_manifest import predictor_name
from prefect_mlops.flows.creditco import census
from tests.cluster.api import wait_for
from tests.cluster.page import blocks, commands, sections
from tests.cluster.production import SERVICE, Production, question
from tests.cluster.team import NAMESPACE

RELEASE, BY_HAND = "4. Release", "Undo a change by hand"
LAPTOP = "From a laptop, also while Prefect is down"
COMMIT = "sha256:…"
BODY = '{"jsonData": …}'


def is_live(production: Production, name: str) -> bool:
    release = production.environment.log().state().service(SERVICE).digest_of(name)
    return production.live() == [name] and production.weights() == {predictor_name(release, shadow=False): 100}


@pytest.fixture
def before(production: Production) -> str:
    """What is live before a test, so that there is something to go back to."""
    if not production.live():
        production.release(production.commit(70), reason="the first model")
    [live] = production.live()
    return live


@pytest.mark.timeout(600)
def test_a_release_a_rollback_and_a_question(production: Production, before: str) -> None:
    page = production.team.page
    census(12_000, seed=71).to_csv(page.folder / "applications.csv", index=False)
    commit = page.python(RELEASE).strip()
    words = {COMMIT: commit, "GATEWAY": production.gateway.removeprefix("http://"), BODY: question().decode()}
    said = page.type(RELEASE, **words)
    assert is_live(production, before)
    changes = production.environment.log().state().service(SERVICE).changes
    said_why = [(one.asked.reason, one.asked.actor.name) for one in changes[-2:]]
    assert said_why == [("the March data", "ada"), ("complaints", "ada")]
    assert json.loads(said.splitlines()[-1])["data"]


@pytest.mark.timeout(600)
def test_a_rollback_from_a_laptop(production: Production, before: str) -> None:
    """Prefect answers here, so it is a flow run, in the process of the command."""
    production.release(production.commit(72), reason="something to undo")
    assert production.live() != [before]
    said = production.team.page.type(LAPTOP)
    assert "credit in production · served as asked" in said
    assert is_live(production, before)
    undone = production.environment.log().state().service(SERVICE).changes[-1].asked
    assert undone.run is not None
    assert (undone.run.flow, undone.reason) == ("rollback-release", "complaints")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("before")
def test_what_was_changed_by_hand_is_taken_back(production: Production) -> None:
    environment = production.environment
    split = environment.log().state().service(SERVICE).split
    if len(split.arms) < 2:
        production.release(production.commit(73), reason="something to change")
        split = environment.log().state().service(SERVICE).split
    assert len(split.arms) == 2
    path = f"/apis/machinelearning.seldon.io/v1/namespaces/{NAMESPACE}/seldondeployments/{SERVICE}"
    cluster, page = production.team.cluster, production.team.page
    theirs = cluster.get(path)
    for predictor, percent in zip(theirs["spec"]["predictors"], (60, 40), strict=True):
        predictor["traffic"] = percent
    cluster.client.put(path, json=theirs, params={"fieldManager": "kubectl-edit"}).raise_for_status()
    [refused] = environment.target.refusals(SERVICE, split, environment.store_block)
    assert "was also changed by kubectl-edit" in refused
    page.python(BY_HAND)
    page.type(BY_HAND)
    assert environment.target.refusals(SERVICE, split, environment.store_block) == []
    wait_for(lambda: environment.target.observe(SERVICE).shows(split), "what the log says", seconds=60)


TYPED = {"2. Prefect, MLflow, the worker", RELEASE, LAPTOP, BY_HAND}
RUN = {"3. The environment", RELEASE, BY_HAND}


def test_whatever_can_be_typed_is_typed() -> None:
    assert {name for name in sections() if commands(name)} == {"1. Images"} | TYPED
    assert {name for name in sections() if blocks(name, "python")} == RUN
