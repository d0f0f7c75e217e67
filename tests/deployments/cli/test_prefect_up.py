"""While Prefect is up, rollback and reconcile are flow runs; when it dies in the middle they are finished anyway."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_mlops.blocks import Environment, Store
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.deployments.local._prefect import SERVER
from prefect_mlops.deployments.local.place import Place
from tests.places import SERVICE, api, run, say, start


def live(place: Place) -> list[str]:
    service = say(place.home, "status", "--json").document["services"][SERVICE]
    assert service["agrees"]
    return [arm["release"] for arm in service["observed"] if arm["role"] == "live"]


def flow_run(place: Place, run_id: str) -> dict[str, Any]:
    return api(place, f"flow_runs/{run_id}", "GET")


def test_a_rollback_is_a_run_that_is_found_by_its_tags(place: Place) -> None:
    said = say(place.home, "rollback", SERVICE, "--actor", "eva", "--reason", "complaints", "--json")
    assert said.code == 0, said.err
    document = said.document
    found = flow_run(place, document["run"]["id"])
    assert (found["state_name"], document["run"]["flow"]) == ("Completed", "rollback-release")
    assert {"prefect-mlops", "service:credit", "release:credit-v1"} <= set(found["tags"])
    assert live(place) == ["credit-v1"]
    anchors = say(place.home, "verify", "--json").document["anchors"]
    assert anchors["the page in Prefect of credit"] == document["entry"]
    back = say(place.home, "rollback", SERVICE, "--to", "credit-v2", "--json")
    assert ([arm["release"] for arm in back.document["live"]], back.code) == (["credit-v2"], 0)


def test_status_names_the_run_and_finds_prefect_up(place: Place) -> None:
    document = say(place.home, "status", "--json").document
    assert document["prefect"] == {"url": place.prefect_url, "up": True}


def test_damaged_bytes_stop_a_rollback_with_one_sentence(place: Place) -> None:
    releases = say(place.home, "releases", "--json").document["services"][SERVICE]
    digest = place.store.snapshot(next(one for one in releases if one["number"] == 1)["model"]).files[0].digest
    hexadecimal = digest.removeprefix("sha256:")
    files = (path for path in (place.home / "store").rglob("*") if path.is_file())
    victim = next(path for path in files if str(path).replace("/", "").endswith(hexadecimal))
    whole = victim.read_bytes()
    victim.chmod(0o600)
    victim.write_bytes(b"x" + whole[1:])
    try:
        said = run(place.home, "rollback", SERVICE, "--to", "credit-v1", "--json")
    finally:
        victim.write_bytes(whole)
        victim.chmod(0o400)
    assert (said.code, said.document["error"]["type"]) == (1, "ObjectDamaged")
    assert "Traceback" not in said.err
    assert live(place) == ["credit-v2"]


RIGHT = "as it should be: credit-v2 live 100 %, credit-v1 warm"


def test_reconcile_is_a_run(place: Place) -> None:
    said = say(place.home, "reconcile", "--json")
    assert (said.code, said.document["services"][SERVICE]) == (0, RIGHT)
    assert "without a flow run" not in said.err


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["the run exists", "traffic is asked to move", "traffic has moved"])
def test_prefect_dies_in_the_middle_of_a_rollback(place: Place, moment: str) -> None:
    """One step back, not two and not none, whenever it dies."""
    assert live(place) == ["credit-v2"]
    log = place.environment().log()
    before, began = log.state().next, place.prefect.supervisor.processes()[SERVER].pid
    with start(place.home, "rollback", SERVICE, "--json") as process:
        reached = {
            "the run exists": lambda: _is_running(place, "rollback-release"),
            "traffic is asked to move": lambda: log.state().next > before,
            "traffic has moved": lambda: log.state().next > before + 1,
        }[moment]
        assert wait_until(reached, seconds=60, pause=0.005)
        psutil.Process(began).kill()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert '"release": "credit-v1"' in out
    assert "Traceback" not in err
    assert live(place) == ["credit-v1"]
    assert say(place.home, "verify").code == 0
    place.up(worker=False)
    assert say(place.home, "rollback", SERVICE, "--to", "credit-v2").code == 0


def _is_running(place: Place, flow: str) -> bool:
    wanted = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}, "flows": {"name": {"any_": [flow]}}}
    return bool(api(place, "flow_runs/filter", **wanted))


@pytest.mark.slow
def test_what_was_served_is_served_again_after_stop_and_up(place: Place) -> None:
    served = live(place)
    assert say(place.home, "stop").code == 0
    assert not place.prefect.is_up()
    said = say(place.home, "up", "--json")
    assert said.code == 0, said.err
    assert said.document["prefect"]["up"]
    assert live(place) == served


# --- by the store alone, with the Prefect of the user's own settings -----------------------


@pytest.fixture
def own(place: Place) -> dict[str, str]:
    """The variables of somebody whose Prefect it is."""
    return os.environ | {"PREFECT_API_URL": f"{place.prefect_url}/api"}


def test_by_its_store_alone_a_rollback_is_a_run_in_the_users_prefect(place: Place, own: dict[str, str]) -> None:
    url = str(place.paths.store)
    said = run(url, "rollback", SERVICE, "--actor", "eva", "--json", env=own)
    assert said.code == 0, said.err
    assert flow_run(place, said.document["run"]["id"])["state_name"] == "Completed"
    assert "without" not in said.err
    assert live(place) == ["credit-v1"]
    with temporary_settings({PREFECT_API_URL: own["PREFECT_API_URL"]}):
        status, verified = (say(url, word, "--json").document for word in ("status", "verify"))
        assert status["prefect"] == {"url": place.prefect_url, "up": True}
        assert verified["anchors"]["the page in Prefect of credit"] == said.document["entry"]
        assert say(url, "rollback", SERVICE, "--to", "credit-v2").code == 0
        assert say(url, "reconcile", "--json").document["services"][SERVICE] == RIGHT


def test_a_prefect_that_does_not_know_the_environment_is_not_its_prefect(
    place: Place, own: dict[str, str], tmp_path: Path
) -> None:
    environment = Environment(name="other")
    environment.use(Store(url=str(tmp_path)), place.serving.model_copy(update={"home": tmp_path}), place.registry)
    environment.log()
    said = run(str(tmp_path), "--environment", "other", "reconcile", "--json", env=own)
    assert (said.code, said.document["services"]) == (0, {})
    assert "has no environment 'other' that can be used" in said.err
    shutil.copytree(place.paths.store, tmp_path / "copy")
    before = len(list((tmp_path / "copy" / "log").rglob("*")))
    said = run(str(tmp_path / "copy"), "reconcile", "--json", env=own)
    assert f"has its log in {place.paths.store}: doing it without a flow run" in said.err
    assert len(list((tmp_path / "copy" / "log").rglob("*"))) == before
