"""What is deployed really runs: from a form, by a schedule's hand, and after a crash that nobody reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows.creditco import census
from tests.deployments.local.forms import ended, run, submit
from tests.places import EASY, SERVICE, a_place, api, processes_of, processes_of_run, say, two_releases

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def working(place: Place) -> Place:
    """The place with its worker."""
    place.up()
    return place


@pytest.fixture
def data(tmp_path: Path) -> Path:
    census(3000, seed=5).to_csv(tmp_path / "census.csv", index=False)
    return tmp_path / "census.csv"


def reconciliations(place: Place) -> list[dict[str, Any]]:
    """Runs of reconcile-serving that something else than its schedule began."""
    every = api(place, "flow_runs/filter", flows={"name": {"any_": ["reconcile-serving"]}})
    return [one for one in every if not one["auto_scheduled"] and one["deployment_id"]]


def live(place: Place) -> list[str]:
    service = say(place.home, "status", "--json").document["services"][SERVICE]
    return [arm["release"] for arm in service["observed"] if arm["role"] == "live"]


def test_forms_start_runs_that_do_what_they_say(working: Place, data: Path) -> None:
    released = submit(
        working, "release_model", recipe=EASY.model_dump(mode="json"), data=str(data), reason="by form", actor="ana"
    )
    assert ended(working, released).startswith("COMPLETED")
    assert live(working) != ["credit-v2"]
    back = submit(working, "rollback_release", service=SERVICE, to="credit-v2", reason="by form", actor="eva")
    assert ended(working, back).startswith("COMPLETED")
    assert live(working) == ["credit-v2"]
    trace = say(working.home, "status", "--json").document["services"][SERVICE]["releases"][0]
    assert (trace["run"]["id"], trace["actor"]["name"]) == (back, "eva")


def test_a_run_killed_under_the_worker_is_looked_after(working: Place, data: Path) -> None:
    before = len(reconciliations(working))
    run_id = submit(working, "release_model", data=str(data))
    assert wait_until(lambda: run(working, run_id)["state_type"] == "RUNNING", seconds=120, pause=0.1)
    victims = processes_of_run(run_id)
    assert victims
    for victim in victims:
        victim.kill()
    assert ended(working, run_id).startswith("CRASHED")
    _see_reconciled(working, before, seconds=60)


def test_a_plain_script_that_is_killed_is_noticed_by_its_silence(working: Place, tmp_path: Path) -> None:
    before = len(reconciliations(working))
    with _script(working, tmp_path) as process:
        wanted = {
            "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
            "flows": {"name": {"any_": ["release-model"]}},
        }
        assert wait_until(lambda: bool(api(working, "flow_runs/filter", **wanted)), seconds=120, pause=0.1)
        process.send_signal(signal.SIGKILL)
    _see_reconciled(working, before, seconds=200)


def test_a_crashed_reconcile_starts_no_other(working: Place) -> None:
    before = len(reconciliations(working))
    run_id = submit(working, "reconcile_serving")
    state = {"type": "CRASHED", "name": "Crashed"}
    assert api(working, f"flow_runs/{run_id}/set_state", state=state, force=True)["status"] == "ACCEPT"
    marker = submit(working, "rollback_release", service="nobody")
    assert ended(working, marker).startswith("FAILED")  # events are handled in order: the crash was seen by now
    assert len(reconciliations(working)) == before + 1


def test_stop_ends_runs_of_the_worker_too(tmp_path: Path, data: Path) -> None:
    with a_place(tmp_path / "home") as place:
        two_releases(place, tmp_path)
        place.up()
        run_id = submit(place, "release_model", data=str(data))
        assert wait_until(lambda: run(place, run_id)["state_type"] == "RUNNING", seconds=120, pause=0.1)
        place.down()
        assert processes_of(place.home) == []


def _see_reconciled(place: Place, before: int, seconds: float) -> None:
    assert wait_until(lambda: len(reconciliations(place)) > before, seconds=seconds, pause=0.5)
    newest = max(reconciliations(place), key=lambda one: one["expected_start_time"])
    assert ended(place, newest["id"]).startswith("COMPLETED")
    assert say(place.home, "status", "--json").document["services"][SERVICE]["agrees"]


def _script(place: Place, folder: Path) -> subprocess.Popen[bytes]:
    """A script of a person's own, which is busy in the middle of a release."""
    (folder / "busy.py").write_text("import time\ndef train(frame, params):\n    time.sleep(600)\n")
    census(600, seed=9).to_csv(folder / "script.csv", index=False)
    script = """
        import pathlib
        from prefect_mlops.blocks import Recipe
        from prefect_mlops.flows import release_model
        release_model(Recipe(name="credit", train="busy:train", target="income"), data=pathlib.Path("script.csv"))
    """
    environment = os.environ | place.paths.client_settings() | {"PYTHONPATH": str(folder)}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=folder, env=environment)
