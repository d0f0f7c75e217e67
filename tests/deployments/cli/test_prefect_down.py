"""While Prefect is down: status, releases, trace, verify, rollback and reconcile all work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from prefect_mlops.blocks import Split
from prefect_mlops.blocks._gateways import NAMES
from prefect_mlops.blocks.entry import Asked
from prefect_mlops.blocks.log import Draft
from prefect_mlops.deployments.local.place import Place
from tests.places import SERVICE, Said, ask, say


def status(place: Place) -> dict[str, Any]:
    return say(place.home, "status", "--json").document


def live(place: Place) -> list[str]:
    return [arm["release"] for arm in status(place)["services"][SERVICE]["asked"] if arm["role"] == "live"]


def test_status_says_what_is_asked_and_what_is_served(bare_place: Place) -> None:
    said = say(bare_place.home, "status", "--json")
    document = said.document
    assert said.code == 0
    assert document["store"] == str(bare_place.home / "store")
    assert document["prefect"] == {"url": None, "up": False}
    service = document["services"][SERVICE]
    assert service["agrees"] is document["agrees"] is True
    assert service["asked"] == service["observed"]
    assert [(arm["release"], arm["role"], arm["percent"]) for arm in service["asked"]] == [
        ("credit-v2", "live", 100),
        ("credit-v1", "warm", 0),
    ]
    assert service["open"] is None
    assert service["url"].startswith(document["gateway"])
    first = service["releases"][0]
    assert (first["ready"], first["run"], first["actor"]["name"], first["reason"]) == (1, None, "ana", "model 2")
    assert first["model"].startswith("sha256:")
    assert service["releases"][1]["warm_until"] > service["releases"][1]["since"]


def test_a_person_reads_status_on_a_hundred_columns(bare_place: Place) -> None:
    page = say(bare_place.home, "status").out
    assert all(len(line) <= 100 for line in page.splitlines() if "http" not in line and "store" not in line), page
    assert "served as asked" in page
    assert "credit-v2 is live by ana, without Prefect: model 2" in page


def test_releases_are_listed_with_what_they_are_made_of(bare_place: Place) -> None:
    releases = say(bare_place.home, "releases", "--json").document["services"][SERVICE]
    assert [(one["number"], one["name"], one["times_live"], one["reason"]) for one in releases] == [
        (2, "credit-v2", 1, "model 2"),
        (1, "credit-v1", 1, "model 1"),
    ]
    assert len({one["data"] for one in releases}) == 2
    assert "credit-v2  live" in say(bare_place.home, "releases").out


def test_an_answer_is_traced_to_what_led_to_it(bare_place: Place) -> None:
    answer = ask(bare_place, **{"x-request-id": "why-me"})
    assert answer.status_code == 200, answer.text
    trace = say(bare_place.home, "trace", "why-me", "--json").document
    assert (trace["name"], trace["actor"]["name"], trace["reason"]) == ("credit-v2", "ana", "model 2")
    assert trace["records"][0]["inputs"][0][0] == 44
    page = say(bare_place.home, "trace", "why-me").out
    assert all(word in page for word in ("credit-v2", "without Prefect", "age 44", "creditco:train"))


def test_the_open_inference_protocol_is_answered_through_the_gateway_and_traced_by_the_callers_id(
    bare_place: Place,
) -> None:
    service, infer = status(bare_place)["services"][SERVICE]["url"].partition("/api/")[0], f"/v2/models/{SERVICE}/infer"
    paths = httpx.get(f"{service}/openapi.json").json()["paths"]
    pasted = paths[infer]["post"]["requestBody"]["content"]["application/json"]["examples"]["columns"]["value"]
    answer = httpx.post(service + infer, json={**pasted, "id": "paste-me"}, timeout=30)
    assert (answer.status_code, answer.json()["id"]) == (200, "paste-me"), answer.text
    fields = {tensor["name"]: tensor["data"][0] for tensor in pasted["inputs"]}
    same = httpx.post(f"{service}/api/v1.0/predictions", json={"jsonData": fields}, timeout=30).json()["data"]
    assert [output["data"][0] for output in answer.json()["outputs"]] == same["tensor"]["values"]
    trace = say(bare_place.home, "trace", "paste-me", "--json").document
    assert trace["records"][0]["request_id"] == answer.headers["x-request-id"]
    assert trace["name"] == "credit-v2"
    assert httpx.get(f"{service}/v2/health/ready").json()["ready"] is True
    assert "there is credit" in httpx.get(f"{service}/v2/models/debit").json()["error"]


def test_an_unknown_answer_is_bad_input(bare_place: Place) -> None:
    said = say(bare_place.home, "trace", "nobody", "--json")
    assert said.code == 2
    assert said.document["error"]["type"] == "NotRecorded"


def test_verify_finds_nothing_wrong_and_says_what_it_cannot_prove(bare_place: Place) -> None:
    said = say(bare_place.home, "verify", "--json")
    document = said.document
    assert (said.code, document["verified"], document["faults"]) == (0, True, [])
    assert document["entries"] == status(bare_place)["log"]["entries"]
    assert document["anchors"]["the gateway of credit"] == status(bare_place)["services"][SERVICE]["fence"]["log"]
    assert document["unproven"]


def test_verify_names_a_changed_byte_in_a_copy_of_the_store(bare_place: Place, tmp_path: Path) -> None:
    """A copy of the store is enough to be checked, anywhere."""
    shutil.copytree(bare_place.home / "store", tmp_path / "store")
    victim = max((tmp_path / "store").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    victim.chmod(0o600)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    said = say(tmp_path, "verify", "--json")
    assert said.code == 1
    assert [fault["key"].removeprefix("sha256:")[-20:] for fault in said.document["faults"]] == [victim.name[-20:]]
    assert "1 FAULTS" in say(tmp_path, "verify").out


def test_rollback_goes_back_and_forth(bare_place: Place) -> None:
    said = say(bare_place.home, "rollback", SERVICE, "--reason", "complaints", "--actor", "eva", "--json")
    assert said.code == 0, said
    assert "without a flow run" in said.err
    document = said.document
    assert ([arm["release"] for arm in document["live"]], document["run"]) == (["credit-v1"], None)
    assert document["actor"] == {"name": "eva", "assurance": "claimed"}
    assert ask(bare_place).headers["x-release"] == document["live"][0]["digest"]
    assert say(bare_place.home, "rollback", SERVICE, "--to", "credit-v2").code == 0
    assert live(bare_place) == ["credit-v2"]


@pytest.mark.parametrize(
    "words",
    [
        (SERVICE, "--to", "credit-v9"),
        ("nobody",),
        (SERVICE, "--actor", "x" * 300),
        (SERVICE, "--reason", "x" * 3000),
    ],
)
def test_a_rollback_that_cannot_be_meant_is_bad_input(bare_place: Place, words: tuple[str, ...]) -> None:
    before = status(bare_place)["log"]
    said = say(bare_place.home, "rollback", *words, "--json")
    assert (said.code, said.document["error"]["type"]) == (2, "Invalid")
    assert status(bare_place)["log"] == before


def test_a_gateway_that_is_gone_is_told_and_mended(bare_place: Place) -> None:
    bare_place.prefect.supervisor.remove(*NAMES)
    said = say(bare_place.home, "status", "--json")
    service = said.document["services"][SERVICE]
    assert (said.code, service["agrees"]) == (1, False)
    assert service["asked"] != service["observed"]
    assert "NO" in say(bare_place.home, "status").out
    assert say(bare_place.home, "reconcile").code == 0
    assert say(bare_place.home, "status").code == 0
    assert ask(bare_place).status_code == 200


def test_what_a_dead_run_left_open_is_told_and_finished(bare_place: Place) -> None:
    environment = bare_place.environment()
    log = environment.log()
    known = log.state().service(SERVICE)
    policy = environment.store_block.put(environment.policy.canonical())
    deadline = "2999-01-01T00:00:00.000000Z"
    body = Asked(before=known.split, after=Split(), move="advance", policy=policy, deadline=deadline)
    log.append(lambda _: Draft(body, (SERVICE,), begins=True))
    told = status(bare_place)
    change = told["services"][SERVICE]["open"]
    assert (change["entry"], change["dead"], told["agrees"]) == (told["log"]["entries"] - 1, False, False)
    busy = say(bare_place.home, "reconcile", "--json")
    assert "left alone" in busy.document["services"][SERVICE]
    said = say(bare_place.home, "reconcile", "--at-once", "--json")
    assert said.code == 0, said
    assert live(bare_place) == ["credit-v2"]
    assert status(bare_place)["agrees"]


def test_after_stop_status_says_that_it_was_stopped_and_reconcile_brings_it_back(bare_place: Place) -> None:
    assert say(bare_place.home, "stop").code == 0
    said: Said = say(bare_place.home, "status", "--json")
    assert (said.code, said.document["services"][SERVICE]["agrees"], said.document["stopped"]) == (1, False, True)
    assert "this place was stopped; `prefect-mlops up` serves it again" in say(bare_place.home, "status").out
    assert say(bare_place.home, "stop", "--json").document["stopped"] is True
    assert say(bare_place.home, "reconcile").code == 0
    said = say(bare_place.home, "status", "--json")
    assert (said.code, said.document["stopped"]) == (0, False)


def test_the_registry_is_filled_from_store_and_log(bare_place: Place) -> None:
    """Nobody has shown these releases in MLflow yet."""
    for _ in range(2):
        said = say(bare_place.home, "registry", "--json")
        assert said.code == 0, said
        assert said.document["services"] == {SERVICE: {"credit-v1": 1, "credit-v2": 2}}
    client = bare_place.registry.client()
    champion = client.get_model_version_by_alias(SERVICE, "champion")
    assert champion.tags["name"] == "credit-v2"
    assert "the registry of credit" in say(bare_place.home, "verify", "--json").document["anchors"]
    assert "credit-v1 as version 1" in say(bare_place.home, "registry").out
