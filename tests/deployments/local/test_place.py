"""The local place: set up once, by whoever is first, kept as people set it, and stopped without a trace."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.settings import PREFECT_API_KEY, PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.variables import Variable

from prefect_mlops.blocks import Environment, LocalServing
from prefect_mlops.blocks._canonical import canonical
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.deployments.local._prefect import SERVER, WORKER
from prefect_mlops.deployments.local.place import STAMP, Place
from prefect_mlops.flows.creditco import RECIPE
from tests.places import SERVICE, a_place, api, start

ROOT = Path(__file__).resolve().parents[3]

DEPLOYED = (
    "ingest_data",
    "train_candidate",
    "release_model",
    "promote_candidate",
    "rollback_release",
    "reconcile_serving",
)
AUTOMATIONS = [
    "prefect-mlops crashed",
    "prefect-mlops data arrived",
    "prefect-mlops presumed dead",
    "prefect-mlops silent",
]


def found(place: Place, what: str) -> list[dict[str, Any]]:
    """Every deployment, automation or such on the place's server."""
    return api(place, f"{what}/filter")


def names(place: Place, what: str) -> list[str]:
    return sorted(one["name"] for one in found(place, what))


def clock(schedule: dict[str, Any]) -> tuple[bool, str | int]:
    """Whether a schedule is on, and when it fires."""
    return schedule["active"], schedule["schedule"].get("cron") or schedule["schedule"]["interval"]


def test_everything_is_there_once(place: Place) -> None:
    deployed = {(one["entrypoint"].rpartition(".")[2], one["work_pool_name"]) for one in found(place, "deployments")}
    assert deployed == {(name, "local") for name in DEPLOYED}
    assert names(place, "automations") == AUTOMATIONS
    assert {one["block_type_name"] for one in found(place, "block_documents")} >= {
        "MLOps Store",
        "Local Serving",
        "MLOps Model Registry",
        "MLOps Environment",
    }


def test_a_second_up_is_quick_and_changes_nothing(place: Place) -> None:
    before = found(place, "deployments"), found(place, "automations"), found(place, "block_documents")
    began = time.process_time()
    place.up(worker=False)
    assert time.process_time() - began < 1
    assert (found(place, "deployments"), found(place, "automations"), found(place, "block_documents")) == before


def test_repair_brings_back_what_was_deleted_and_keeps_what_people_set(place: Place) -> None:
    victim = next(one for one in found(place, "deployments") if "reconcile" in one["entrypoint"])
    api(place, f"deployments/{victim['id']}", "DELETE")
    with place.settings():
        Environment.find("local").model_copy(update={"warm_minutes": 7}).save("local", overwrite=True)
        place.up(worker=False, repair=True)
        assert Environment.find("local").warm_minutes == 7
        serving = LocalServing.load("local")
        assert isinstance(serving, LocalServing)
        assert serving.replicas == 1
    assert len(found(place, "deployments")) == len(DEPLOYED)
    assert names(place, "automations") == AUTOMATIONS
    again = next(one for one in found(place, "deployments") if "reconcile" in one["entrypoint"])
    assert [one["schedule"]["interval"] for one in again["schedules"]] == [300.0]


def test_what_another_version_had_set_up_is_set_up_again(place: Place) -> None:
    victim = next(one for one in found(place, "deployments") if "rollback" in one["entrypoint"])
    with place.settings():
        with get_client(sync_client=True) as client:
            client.delete_deployment(victim["id"])
        place.up(worker=False)
        assert len(found(place, "deployments")) == len(DEPLOYED) - 1
        Variable.set(STAMP, "of another version", overwrite=True)
        place.up(worker=False)
    assert len(found(place, "deployments")) == len(DEPLOYED)


def test_what_a_person_switched_on_stays_on(place: Place) -> None:
    with place.settings(), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("ingest-data/local")
        [nightly] = deployment.schedules
        client.update_deployment_schedule(deployment.id, nightly.id, active=True)
        client.update_deployment(deployment.id, DeploymentUpdate(parameters=deployment.parameters | {"onto": "april"}))
        place.up(worker=False, repair=True)
        renewed = client.read_deployment_by_name("ingest-data/local")
        assert [(one.slug, one.active) for one in renewed.schedules] == [("every-night", True)]
        assert renewed.parameters == deployment.parameters | {"onto": "april"}
        client.delete_deployment(deployment.id)
    place.up(worker=False, repair=True)


def test_settings_lead_to_this_server_and_back(place: Place) -> None:
    with temporary_settings({PREFECT_API_KEY: "the user's", PREFECT_API_URL: "http://elsewhere/api"}):
        with place.settings():
            assert PREFECT_API_URL.value() == f"{place.prefect_url}/api"
            assert PREFECT_API_KEY.value() is None
            assert PREFECT_HOME.value() == place.home / "prefect"
        assert PREFECT_API_URL.value() == "http://elsewhere/api"


def test_secrets_are_encrypted_with_a_key_that_is_not_in_the_database(place: Place) -> None:
    key = place.home / "prefect" / "encryption.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with sqlite3.connect(f"file:{place.home / 'prefect' / 'prefect.db'}?mode=ro", uri=True) as database:
        rows = database.execute("select key from configuration").fetchall()
    database.close()
    assert "ENCRYPTION_KEY" not in {row[0] for row in rows}
    server = place.home / "run" / "programs" / f"{SERVER}.json"
    assert stat.S_IMODE(server.stat().st_mode) & 0o077 == 0


def test_a_moved_home_serves_from_where_it_is_now(place: Place, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "store").symlink_to(place.home / "store")
    moved = Place(tmp_path / "moved").environment()
    assert isinstance(moved.target, LocalServing)
    assert moved.target.home == tmp_path / "moved"


def test_a_port_that_a_stranger_has_is_refused_by_name(tmp_path: Path) -> None:
    with a_place(tmp_path / "home") as place:
        place.paths.make()
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.listen()
            port = stranger.getsockname()[1]
            (place.paths.prefect / "port.json").write_bytes(canonical({"format": 1, "port": port}))
            with pytest.raises(Invalid, match=str(port)):
                place.up(worker=False)


def test_the_home_is_chosen_by_argument_variable_or_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_MLOPS_HOME", raising=False)
    assert Place().home == tmp_path / ".prefect-mlops"
    monkeypatch.setenv("PREFECT_MLOPS_HOME", str(tmp_path / "b"))
    assert Place().home == tmp_path / "b"
    assert Place(tmp_path / "c").home == tmp_path / "c"


def test_the_file_at_the_root_is_the_one_that_is_installed() -> None:
    assert (ROOT / "prefect.yaml").read_text() == (ROOT / "deployments" / "local" / "prefect.yaml").read_text()


def test_the_form_is_filled_in_with_the_example() -> None:
    definitions = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    recipes = [one["parameters"]["recipe"] for one in definitions["deployments"] if "recipe" in one["parameters"]]
    assert [RECIPE.model_validate(recipe) for recipe in recipes] == [RECIPE, RECIPE]


def test_what_has_nothing_to_do_yet_is_not_started_by_the_clock(place: Place) -> None:
    clocks = {
        one["entrypoint"].rpartition(".")[2]: [clock(schedule) for schedule in one["schedules"]]
        for one in found(place, "deployments")
    }
    assert clocks == {
        "ingest_data": [(False, "0 3 * * *")],
        "train_candidate": [(True, 300)],
        "reconcile_serving": [(True, 300)],
        "release_model": [],
        "promote_candidate": [],
        "rollback_release": [],
    }


@pytest.mark.slow
def test_prefect_deploy_all_does_the_same(place: Place) -> None:
    before = [_essence(one) for one in found(place, "deployments")]
    environment = os.environ | place.paths.client_settings()
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [_essence(one) for one in found(place, "deployments")] == before
    assert names(place, "automations") == AUTOMATIONS
    place.up(worker=False, repair=True)


def _essence(deployment: dict[str, Any]) -> dict[str, Any]:
    same = ("entrypoint", "path", "pull_steps", "tags", "parameters", "parameter_openapi_schema", "work_pool_name")
    schedules = [clock(one) for one in deployment["schedules"]]
    return {name: deployment[name] for name in same} | {"schedules": schedules}


@pytest.mark.slow
def test_five_at_once_give_one_place(tmp_path: Path) -> None:
    with a_place(tmp_path / "home") as place:
        starters = [start(place.home, "up") for _ in range(5)]
        for starter in starters:
            starter.communicate(timeout=280)
        assert [starter.returncode for starter in starters] == [0] * 5
        assert names(place, "deployments") == ["local"] * len(DEPLOYED)
        assert names(place, "automations") == AUTOMATIONS
        assert {SERVER, WORKER} <= set(place.prefect.supervisor.processes())
        assert place.environment().log().state().services.get(SERVICE) is None
