"""Forms filled in as the UI does, and what became of the runs that they started."""

from __future__ import annotations

from typing import Any

import httpx
import psutil

from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.deployments.local.place import Place
from tests.places import processes_of


def api(place: Place, path: str, **body: Any) -> Any:
    """Ask the server; one on SQLite that says 503 wants to be asked again, as Prefect's own client does."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(httpx.post(f"{place.prefect_url}/api/{path}", json=body, timeout=60))
        return answers[-1].status_code != 503

    assert wait_until(answered, seconds=60, pause=1)
    return answers[-1].raise_for_status().json()


def submit(place: Place, flow: str, **parameters: Any) -> str:
    """Fill in a form and send it, as the UI does."""
    deployments = api(place, "deployments/filter")
    found = next(one for one in deployments if one["entrypoint"].endswith(f".{flow}"))
    filled = {**found["parameters"], **parameters}
    return api(place, f"deployments/{found['id']}/create_flow_run", parameters=filled, state={"type": "SCHEDULED"})[
        "id"
    ]


def run(place: Place, run_id: str) -> dict[str, Any]:
    return httpx.get(f"{place.prefect_url}/api/flow_runs/{run_id}", timeout=30).raise_for_status().json()


def ended(place: Place, run_id: str) -> str:
    """How a run ended."""
    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    assert wait_until(lambda: run(place, run_id)["state_type"] in final, seconds=200, pause=0.5)
    return run(place, run_id)["state"]["type"] + " " + (run(place, run_id)["state"]["message"] or "")


def processes_of_run(place: Place, run_id: str) -> list[psutil.Process]:
    """What a run of the worker runs in."""
    return [one for one in processes_of(place.home) if _env(one).get("PREFECT__FLOW_RUN_ID") == run_id]


def _env(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
