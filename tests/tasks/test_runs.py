"""What Prefect knows of another run, asked from inside of a run and nowhere else."""

from __future__ import annotations

import uuid

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Crashed, Running

from prefect_mlops.blocks.entry import Run
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.tasks.runs import has_ended, state_of


@flow(name="runs-of-others")
def other() -> None: ...


@flow(name="asks-of-runs")
def ask(run: str) -> bool:
    return has_ended(Run(id=run, name="other", flow="runs-of-others"))


def test_a_run_is_over_when_prefect_says_so(place: Place) -> None:
    with place.settings(heartbeats=False), get_client(sync_client=True) as client:
        run = client.create_flow_run(other, state=Running())
        assert not ask(str(run.id))
        client.set_flow_run_state(run.id, Crashed(message="its pod is gone"), force=True)
        assert ask(str(run.id))
        assert state_of(Run(id=str(run.id), name="other", flow="runs-of-others")) is None  # this is no run


def test_of_a_run_that_prefect_does_not_know_nothing_is_known(place: Place) -> None:
    with place.settings(heartbeats=False):
        assert not ask(str(uuid.uuid4()))
        assert not ask("a run of another system")


def test_while_prefect_is_away_nothing_is_known(place: Place) -> None:
    @flow(name="asks-of-runs")
    def ask_nobody(run: str) -> bool:
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
            return has_ended(Run(id=run, name="other", flow="runs-of-others"))

    with place.settings(heartbeats=False):
        assert not ask_nobody(str(uuid.uuid4()))
