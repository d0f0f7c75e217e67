"""Every account of ours may do what its flows do, and the API server refuses it everything else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api import Cluster, Manifest, Refused, wait_for
from tests.cluster.pods import named, runs

SELDON = "machinelearning.seldon.io/v1"
ISTIO = "networking.istio.io/v1"
CREDIT = named("SeldonDeployment", "credit", "", SELDON, spec={"predictors": []})
JOB = {"backoffLimit": 0, "template": {"spec": {**runs("-c", "0"), "restartPolicy": "Never"}}}

Call = Callable[[Cluster, str], Any]


def lists(root: str, plural: str, part: str = "") -> Call:
    return lambda cluster, namespace: cluster.get(f"{root}/namespaces/{namespace}/{plural}{part}")


def tries(method: str, path: str, **options: Any) -> Call:
    """A change that is judged and not made: whoever may not is refused before anything is looked at."""
    options["params"] = {"dryRun": "All", **options.get("params", {})}

    def call(cluster: Cluster, namespace: str) -> None:
        answer = cluster.client.request(method, path.format(namespace=namespace), **options)
        if answer.status_code == 403:
            raise Refused(403, answer.text)

    return call


def applies(api: str, plural: str, manifest: Manifest) -> Call:
    """Server-side apply, which is how everything of ours is written."""
    path = f"/apis/{api}/namespaces/{{namespace}}/{plural}/{manifest['metadata']['name']}"
    headers = {"Content-Type": "application/apply-patch+yaml"}
    return tries("PATCH", path, content=json.dumps(manifest), headers=headers, params={"fieldManager": "tests"})


CORE, JOBS = "/api/v1/namespaces/{namespace}", "/apis/batch/v1/namespaces/{namespace}/jobs"
SDEPS = f"/apis/{SELDON}/namespaces/{{namespace}}/seldondeployments"
POD = named("Pod", "any", "", spec=runs())
CALLS: dict[str, Call] = {
    "see SeldonDeployments": lists(f"/apis/{SELDON}", "seldondeployments"),
    "see VirtualServices": lists(f"/apis/{ISTIO}", "virtualservices"),
    "see DestinationRules": lists(f"/apis/{ISTIO}", "destinationrules"),
    "see Deployments": lists("/apis/apps/v1", "deployments"),
    "see Services": lists("/api/v1", "services"),
    "see events": lists("/api/v1", "events"),
    "see pods": lists("/api/v1", "pods"),
    "see logs": tries("GET", f"{CORE}/pods/any/log"),
    "see Jobs": lists("/apis/batch/v1", "jobs"),
    "see Secrets": lists("/api/v1", "secrets"),
    "see ConfigMaps": lists("/api/v1", "configmaps"),
    "see Roles": lists("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "see other namespaces": lambda cluster, _: cluster.get("/api/v1/namespaces/default/pods"),
    "see nodes": lambda cluster, _: cluster.get("/api/v1/nodes"),
    "apply a SeldonDeployment": applies(SELDON, "seldondeployments", CREDIT),
    "create a SeldonDeployment": tries("POST", SDEPS, json=CREDIT),
    "delete a SeldonDeployment": tries("DELETE", f"{SDEPS}/credit"),
    "delete all SeldonDeployments": tries("DELETE", SDEPS),
    "set the status of a SeldonDeployment": tries("PUT", f"{SDEPS}/credit/status", json=CREDIT),
    "change a VirtualService": applies(ISTIO, "virtualservices", named("VirtualService", "credit", "", ISTIO)),
    "change a Deployment": applies("apps/v1", "deployments", named("Deployment", "credit", "", "apps/v1")),
    "scale a Deployment": tries("PATCH", "/apis/apps/v1/namespaces/{namespace}/deployments/credit/scale", json={}),
    "change a Service": tries("PUT", f"{CORE}/services/credit", json=named("Service", "credit", "")),
    "create a pod": tries("POST", f"{CORE}/pods", json=POD),
    "delete a pod": tries("DELETE", f"{CORE}/pods/any"),
    "enter a pod": tries("POST", f"{CORE}/pods/any/exec"),
    "create a Job": tries("POST", JOBS, json=named("Job", "any", "", "batch/v1", spec=JOB)),
    "delete a Job": tries("DELETE", f"{JOBS}/any"),
    "create a Secret": tries("POST", f"{CORE}/secrets", json=named("Secret", "any", "")),
    "act as another": tries("POST", f"{CORE}/serviceaccounts/mlops-release/token", json={}),
    "give rights": applies(
        "rbac.authorization.k8s.io/v1", "roles", named("Role", "any", "", "rbac.authorization.k8s.io/v1", rules=[])
    ),
}

SERVING = {f"see {what}" for what in ("SeldonDeployments", "VirtualServices", "DestinationRules", "Deployments")}
OBSERVE = SERVING | {"see Services", "see events", "see pods", "see logs"}
PUT = {"apply a SeldonDeployment", "create a SeldonDeployment"}
MAY: dict[str, set[str]] = {
    "mlops-train": set(),
    "mlops-server": set(),
    "mlops-rollback": OBSERVE | PUT,
    "mlops-release": OBSERVE | PUT | {"delete a SeldonDeployment"},
    "mlops-worker": {"see pods", "see logs", "see Jobs", "create a Job", "delete a Job"},
}


@pytest.fixture(scope="module")
def accounts() -> list[Manifest]:
    """What the file says, without a namespace."""
    text = resources.files("prefect_mlops.deployments.kubernetes").joinpath("rbac.yaml").read_text()
    return list(yaml.safe_load_all(text))


def acting_as(cluster: Cluster, namespace: str, account: str, folder: Path) -> Cluster:
    """The cluster, as a pod of that account sees it."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    token = cluster.client.post(path, json={}).raise_for_status().json()["status"]["token"]
    told = yaml.safe_load(cluster.kubeconfig.read_text())
    told["users"] = [{**one, "user": {"token": token}} for one in told["users"]]
    (folder / "kubeconfig").write_text(yaml.safe_dump(told))
    return Cluster.named(folder / "kubeconfig")


def is_allowed(cluster: Cluster, namespace: str, call: Call) -> bool:
    try:
        call(cluster, namespace)
    except Refused as refused:
        if refused.code == 403:
            return False
        raise
    return True


@pytest.mark.parametrize("account", MAY)
def test_an_account_may_do_just_this(
    cluster: Cluster, namespace: str, accounts: list[Manifest], account: str, tmp_path: Path
) -> None:
    for one in accounts:
        cluster.apply({**one, "metadata": {**one["metadata"], "namespace": namespace}})
    with contextlib.closing(acting_as(cluster, namespace, account, tmp_path)) as acting:
        for what in MAY[account]:
            wait_for(lambda what=what: is_allowed(acting, namespace, CALLS[what]), f"{account} to {what}")
        assert {what for what, call in CALLS.items() if is_allowed(acting, namespace, call)} == MAY[account]


def test_every_account_and_every_right_is_named_here(accounts: list[Manifest]) -> None:
    assert {one["metadata"]["name"] for one in accounts if one["kind"] == "ServiceAccount"} == set(MAY)
    assert not [one for one in accounts if one["kind"].startswith("Cluster")]
    rules = [rule for one in accounts if one["kind"] == "Role" for rule in one["rules"]]
    assert not [rule for rule in rules if "*" in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]]
    bound = [one["metadata"]["name"] for one in accounts if one["kind"] == "RoleBinding"]
    assert bound == [one["metadata"]["name"] for one in accounts if one["kind"] == "Role"]
