"""What a person fills in: the parameter forms of the deployed flows, as the server has them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from prefect_mlops.deployments.local.place import Place
from tests.places import api

FLOWS = (
    "release_model",
    "rollback_release",
    "reconcile_serving",
    "ingest_data",
    "train_candidate",
    "promote_candidate",
)


def deployment(place: Place, flow: str) -> dict[str, Any]:
    return next(one for one in api(place, "deployments/filter") if one["entrypoint"].endswith(f".{flow}"))


def form(place: Place, flow: str) -> dict[str, Any]:
    return deployment(place, flow)["parameter_openapi_schema"]


def inputs(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every input of a form, those of nested groups too, by path."""
    groups = {"": schema, **{f"{name}.": one for name, one in schema.get("definitions", {}).items()}}
    return {
        f"{prefix}{name}": one for prefix, group in groups.items() for name, one in group.get("properties", {}).items()
    }


@pytest.mark.parametrize("flow", FLOWS)
def test_every_input_has_a_title_and_a_full_sentence(place: Place, flow: str) -> None:
    for name, one in inputs(form(place, flow)).items():
        assert one.get("title"), name
        assert one.get("description", "").endswith("."), name


@pytest.mark.parametrize("flow", FLOWS)
def test_no_input_is_a_choice_of_kinds(place: Place, flow: str) -> None:
    """Neither UI can fill in a union."""
    unions = [name for name, one in inputs(form(place, flow)).items() if "anyOf" in one or "oneOf" in one]
    assert unions == []


@pytest.mark.parametrize("flow", FLOWS)
def test_what_it_is_for_and_how_it_is_found(place: Place, flow: str) -> None:
    found = deployment(place, flow)
    assert found["description"].endswith(".")
    assert "prefect-mlops" in found["tags"]
    assert found["enforce_parameter_schema"]


def test_defaults_and_choices_are_kept(place: Place) -> None:
    release, rollback, reconcile = (form(place, flow)["properties"] for flow in FLOWS[:3])
    strategy = release["strategy"]
    assert strategy["enum"] == ["blue-green", "shadow"]
    assert release["approval"]["default"] is False
    assert release["environment"]["default"] == rollback["environment"]["default"] == "local"
    assert rollback["to"]["default"] == "previous"
    assert reconcile["at_once"]["type"] == "boolean"
    assert form(place, "ingest_data")["required"] == ["source"]
    assert form(place, "train_candidate")["properties"]["hours"]["minimum"] == 1
    assert form(place, "rollback_release")["required"] == form(place, "promote_candidate")["required"] == ["service"]
    recipe = form(place, "release_model")["definitions"]["Recipe"]["properties"]
    assert (recipe["holdout_percent"]["minimum"], recipe["holdout_percent"]["maximum"]) == (1, 90)
    resources = form(place, "release_model")["definitions"]["StepResources"]["properties"]
    assert {name: one["minimum"] for name, one in resources.items()} == {"cpus": 0, "memory_mib": 0, "gpus": 0}
    assert deployment(place, "release_model")["parameters"]["recipe"]["name"] == "credit"


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        ("rollback_release", {}),
        ("rollback_release", {"service": 7}),
        ("reconcile_serving", {"at_once": "perhaps"}),
        ("ingest_data", {"branch": "staging"}),
        ("train_candidate", {"hours": 0}),
        ("promote_candidate", {"service": "credit", "strategy": "hope"}),
        ("release_model", {"recipe": {"name": "Not A Label", "train": "a:b", "target": "y"}, "data": "/x"}),
        ("release_model", {"strategy": "hope", "data": "/x"}),
    ],
)
def test_the_server_refuses_a_form_that_is_filled_in_wrongly(
    place: Place, flow: str, parameters: dict[str, Any]
) -> None:
    url = f"{place.prefect_url}/api/deployments/{deployment(place, flow)['id']}/create_flow_run"
    answer = httpx.post(url, json={"parameters": parameters, "state": {"type": "SCHEDULED"}})
    assert answer.status_code == 409, answer.text
