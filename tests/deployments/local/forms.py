"""Forms filled in as the UI does, and what became of the runs that they started."""

from __future__ import annotations

from typing import Any

from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.deployments.local.place import Place
from tests.places import api


def submit(place: Place, flow: str, **parameters: Any) -> str:
    """Fill in a form and send it, as the UI does."""
    deployments = api(place, "deployments/filter")
    found = next(one for one in deployments if one["entrypoint"].endswith(f".{flow}"))
    filled = {**found["parameters"], **parameters}
    return api(place, f"deployments/{found['id']}/create_flow_run", parameters=filled, state={"type": "SCHEDULED"})[
        "id"
    ]


def run(place: Place, run_id: str) -> dict[str, Any]:
    return api(place, f"flow_runs/{run_id}", "GET")


def ended(place: Place, run_id: str) -> str:
    """How a run ended."""
    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    assert wait_until(lambda: run(place, run_id)["state_type"] in final, seconds=200, pause=0.5)
    return run(place, run_id)["state"]["type"] + " " + (run(place, run_id)["state"]["message"] or "")
