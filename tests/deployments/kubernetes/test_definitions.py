"""What is deployed to a cluster is what is deployed on one machine, but for the place, and the rights of each run."""

from __future__ import annotations

import copy
from importlib import resources
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint


def definitions(place: str) -> dict[str, Any]:
    folder = resources.files("prefect_mlops.deployments").joinpath(place)
    return yaml.safe_load(folder.joinpath("prefect.yaml").read_text())


LOCAL, CLUSTER = definitions("local"), definitions("kubernetes")
DEPLOYMENTS = {one["entrypoint"].rpartition(".")[2]: one for one in CLUSTER["deployments"]}
ROLES = {
    "ingest_data": "mlops-train",
    "train_candidate": "mlops-train",
    "train_snapshot": "mlops-train",
    "release_model": "mlops-release",
    "promote_candidate": "mlops-release",
    "reconcile_serving": "mlops-release",
    "rollback_release": "mlops-rollback",
}


def on_the_cluster(local: dict[str, Any]) -> dict[str, Any]:
    """A local deployment as it should be on a cluster."""
    moved = copy.deepcopy(local)
    moved["name"] = moved["parameters"]["environment"] = "production"
    del moved["work_pool"]
    return moved


def test_the_same_flows_are_deployed_in_the_same_way() -> None:
    others = [{key: value for key, value in one.items() if key != "work_pool"} for one in CLUSTER["deployments"]]
    apart = [one for one in others if one["entrypoint"].endswith("train_snapshot")]
    assert [one for one in others if one not in apart] == [on_the_cluster(one) for one in LOCAL["deployments"]]
    assert (len(apart), apart[0]["name"]) == (1, "production"), "named like the environment whose flows start it"


def test_the_same_automations_are_made() -> None:
    ours = copy.deepcopy(CLUSTER["automations"])
    ours[0]["trigger"]["match_related"]["prefect.resource.name"].remove("train-snapshot")
    assert ours == LOCAL["automations"]


@pytest.mark.parametrize("flow", DEPLOYMENTS)
def test_every_run_has_the_rights_of_its_role(flow: str) -> None:
    pool = DEPLOYMENTS[flow]["work_pool"]
    expected = {"image": "{{ $PREFECT_MLOPS_IMAGE }}", "service_account_name": ROLES[flow]}
    assert pool == {"name": "mlops", "job_variables": expected}
    assert load_flow_from_entrypoint(DEPLOYMENTS[flow]["entrypoint"]).name == flow.replace("_", "-")


def test_every_account_is_one_of_ours() -> None:
    text = resources.files("prefect_mlops.deployments.kubernetes").joinpath("rbac.yaml").read_text()
    accounts = {one["metadata"]["name"] for one in yaml.safe_load_all(text) if one["kind"] == "ServiceAccount"}
    assert set(ROLES.values()) <= accounts
    assert set(DEPLOYMENTS) == set(ROLES)


def test_every_manifest_is_applied_but_for_the_secrets_that_are_filled_in_by_hand() -> None:
    folder = resources.files("prefect_mlops.deployments.kubernetes")
    applied = yaml.safe_load(folder.joinpath("kustomization.yaml").read_text())["resources"]
    others = {"kustomization.yaml", "prefect.yaml", "secrets.template.yaml"}
    assert {*applied, *others} == {one.name for one in folder.iterdir() if one.name.endswith(".yaml")}
    secrets = yaml.safe_load_all(folder.joinpath("secrets.template.yaml").read_text())
    assert not any(value for one in secrets for value in one["stringData"].values())
