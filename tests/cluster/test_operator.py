"""The stand-in does what the operator's source says, beyond what the recordings show."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.api import Cluster, Manifest, Refused, wait_for
from tests.cluster.node import Node
from tests.cluster.pods import IMAGE, named

SERVE = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=9000)"
PORTS = [{"name": name, "containerPort": port} for name, port in (("http", 9000), ("grpc", 9500), ("metrics", 6000))]


def predictor(called: str, traffic: int | None = None, /, **parts: Any) -> Manifest:
    """A predictor that is ready as soon as its server listens; `parts` replace what its container says."""
    own = {key: parts.pop(key) for key in ("shadow", "replicas", "annotations") if key in parts}
    component = {key: parts.pop(key) for key in ("hpaSpec", "pdbSpec") if key in parts}
    container = {
        "name": "model",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", SERVE],
        "workingDir": "/tmp",
        "ports": PORTS,
        "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
        **parts,
    }
    made: Manifest = {
        "name": called,
        "graph": {"name": "model", "type": "MODEL"},
        "componentSpecs": [{"spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}, **component}],
        **own,
        "annotations": {"seldon.io/no-engine": "true", **own.get("annotations", {})},
    }
    return made if traffic is None else {**made, "traffic": traffic}


def deployment(namespace: str, *predictors: Manifest, name: str = "credit", **annotations: str) -> Manifest:
    """A SeldonDeployment; `annotations` are Istio's options, without `seldon.io/istio-`."""
    made = named("SeldonDeployment", name, namespace, "machinelearning.seldon.io/v1")
    told = {f"seldon.io/istio-{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {**made, "metadata": {**made["metadata"], "annotations": told}, "spec": {"predictors": list(predictors)}}


def until_available(cluster: Cluster, manifest: Manifest) -> Manifest:
    """Apply it and wait until it is carried out; its status."""
    applied = cluster.apply(manifest)

    def carried_out() -> Manifest:
        status = cluster.read(manifest).get("status", {})
        conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
        return status if status.get("state") == "Available" and conditions["Ready"] == "True" else {}

    assert applied["metadata"]["generation"] >= 1
    return wait_for(carried_out, "the SeldonDeployment to be available", seconds=60)


def failed(cluster: Cluster, manifest: Manifest) -> str:
    """Apply what cannot be carried out; what its status says."""
    cluster.apply(manifest)
    return wait_for(lambda: cluster.read(manifest).get("status", {}).get("description"), "the reason")


def names(cluster: Cluster, namespace: str, group: str, plural: str) -> list[str]:
    """The names of a namespace's objects of one kind."""
    return sorted(one["metadata"]["name"] for one in cluster.get(f"/{group}/namespaces/{namespace}/{plural}")["items"])


def pods(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The pods that are not being deleted, by uid."""
    found = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    alive = [one["metadata"] for one in found if "deletionTimestamp" not in one["metadata"]]
    return {one["uid"]: one["name"] for one in alive}


def http_route(cluster: Cluster, namespace: str, name: str = "credit") -> Manifest:
    """The route for HTTP."""
    return cluster.read(named("VirtualService", name, namespace, "networking.istio.io/v1"))["spec"]["http"][0]


def test_a_change_in_place_replaces_the_pod_and_not_the_route(cluster: Cluster, namespace: str) -> None:
    until_available(cluster, deployment(namespace, predictor("a", 100)))
    before, route = pods(cluster, namespace), http_route(cluster, namespace)
    until_available(cluster, deployment(namespace, predictor("a", 100, env=[{"name": "NEW", "value": "1"}])))
    wait_for(lambda: len(pods(cluster, namespace)) == 1 and pods(cluster, namespace) != before, "another pod")
    assert http_route(cluster, namespace) == route


def test_what_is_said_of_the_whole_restarts_no_pod(cluster: Cluster, namespace: str) -> None:
    until_available(cluster, deployment(namespace, predictor("a", 100), retries="3", retries_timeout="2"))
    before = pods(cluster, namespace)
    until_available(cluster, deployment(namespace, predictor("a", 100), retries="5", retries_timeout="2"))
    wait_for(lambda: http_route(cluster, namespace)["retries"]["attempts"] == 5, "five attempts")
    assert http_route(cluster, namespace)["retries"]["perTryTimeout"] == "2s"
    assert pods(cluster, namespace) == before


def test_metrics_ports_that_are_not_pinned_are_numbered_across_predictors(cluster: Cluster, namespace: str) -> None:
    both = [predictor(name, 50, ports=[]) for name in "ab"]
    until_available(cluster, deployment(namespace, *both))

    def metrics_of(name: str) -> int:
        read = cluster.read(named("Deployment", f"credit-{name}-0-model", namespace, "apps/v1"))
        ports = read["spec"]["template"]["spec"]["containers"][0]["ports"]
        return next(one["containerPort"] for one in ports if one["name"] == "metrics")

    assert [metrics_of("a"), metrics_of("b")] == [6000, 6001]
    until_available(cluster, deployment(namespace, predictor("b", 100, ports=[])))
    wait_for(lambda: metrics_of("b") == 6000, "the survivor to be renumbered")


def test_every_replica_must_be_ready(cluster: Cluster, namespace: str) -> None:
    status = until_available(cluster, deployment(namespace, predictor("a", replicas=2)))
    assert status["deploymentStatus"] == {"credit-a-0-model": {"replicas": 2, "availableReplicas": 2}}
    assert status["replicas"] == 2
    assert "weight" not in http_route(cluster, namespace)["route"][0]


def test_a_quantity_written_in_another_way_is_no_change(cluster: Cluster, namespace: str) -> None:
    requests = {"cpu": "0.01", "memory": "32768Ki"}
    until_available(cluster, deployment(namespace, predictor("a", 100, resources={"requests": requests})))
    made = named("Deployment", "credit-a-0-model", namespace, "apps/v1")
    before = cluster.read(made)["metadata"]["resourceVersion"]
    until_available(cluster, deployment(namespace, predictor("a", 100, resources={"requests": requests}), retries="2"))
    wait_for(lambda: http_route(cluster, namespace).get("retries"), "the retries")
    assert cluster.read(made)["metadata"]["resourceVersion"] == before


def test_names_that_are_too_long_are_hashed(cluster: Cluster, namespace: str) -> None:
    long = "credit-" * 8 + "x"
    cluster.apply(deployment(namespace, predictor("version-1", 100), name=long))
    wait_for(lambda: names(cluster, namespace, "apis/apps/v1", "deployments"), "a Deployment")
    # by md5sum, of LONG-version-1-0-model, LONG-version-1 and LONG-version-1-model
    assert names(cluster, namespace, "apis/apps/v1", "deployments") == ["seldon-9f774c456c1abf2acef4648384d1ec1b"]
    services = ["seldon-854699f9181a69bf8371a47b19ece491", "seldon-eba13db71961ced5d9ff4a6d327a967d"]
    assert names(cluster, namespace, "api/v1", "services") == sorted(services)


def test_scaling_and_protection_come_and_go(cluster: Cluster, namespace: str) -> None:
    scaled = predictor("a", 100, hpaSpec={"minReplicas": 1, "maxReplicas": 2}, pdbSpec={"maxUnavailable": 1})
    until_available(cluster, deployment(namespace, scaled))
    kinds = [("apis/autoscaling/v2", "horizontalpodautoscalers"), ("apis/policy/v1", "poddisruptionbudgets")]
    assert [names(cluster, namespace, *kind) for kind in kinds] == [["credit-a-0-model"]] * 2
    until_available(cluster, deployment(namespace, predictor("a", 100)))
    wait_for(lambda: not any(names(cluster, namespace, *kind) for kind in kinds), "both to go")


def test_a_time_with_a_unit_fails_the_whole(cluster: Cluster, namespace: str) -> None:
    manifest = deployment(namespace, predictor("a", 100), retries="3", retries_timeout="2s")
    assert failed(cluster, manifest) == 'strconv.Atoi: parsing "2s": invalid syntax'
    assert names(cluster, namespace, "apis/apps/v1", "deployments") == []


def test_what_only_the_real_operator_can_do_is_said(cluster: Cluster, namespace: str) -> None:
    manifest = deployment(namespace, predictor("a", 100, annotations={"seldon.io/no-engine": "false"}))
    assert "stand-in" in failed(cluster, manifest)


def test_a_quota_is_told_in_the_status(cluster: Cluster, namespace: str) -> None:
    quota = named("ResourceQuota", "none", namespace, spec={"hard": {"count/deployments.apps": "0"}})
    cluster.create(quota)
    wait_for(lambda: cluster.read(quota).get("status", {}).get("hard"), "the quota to hold")
    assert "exceeded quota: none" in failed(cluster, deployment(namespace, predictor("a", 100)))
    assert cluster.read(deployment(namespace))["status"]["state"] == "Failed"
    cluster.delete(quota)
    until_available(cluster, deployment(namespace, predictor("a", 100)))


# --- the webhook -----------------------------------------------------------------------------

SHADOW = {"shadow": True}


@pytest.mark.parametrize(
    ("predictors", "said"),
    [
        ([], "Graph contains no predictors"),
        ([predictor("a", 50), predictor("a", 50)], "Duplicate predictor name"),
        ([predictor("a", 50), predictor("b", 40)], "Traffic must sum to 100 for multiple predictors"),
        ([predictor("a", 40)], "Traffic must sum be 100 for a single predictor when set"),
        ([predictor("a", **SHADOW)], "Shadow can not exist as only predictor"),
        (
            [predictor("a", 100), predictor("b", 10, **SHADOW), predictor("c", 10, **SHADOW)],
            "Multiple shadows are not allowed",
        ),
        (
            [predictor("a", 100), predictor("b", 101, **SHADOW)],
            r"shadow traffic is illegal, the traffic number should be between \[0, 100\]",
        ),
        ([predictor("a", name="other")], "t find container for Predictive Unit"),
    ],
)
def test_the_webhook_refuses(cluster: Cluster, namespace: str, predictors: list[Manifest], said: str) -> None:
    with pytest.raises(Refused, match=rf'denied the request: SeldonDeployment\.[a-z.]+ "" is invalid: .*{said}'):
        cluster.apply(deployment(namespace, *predictors))


@pytest.mark.parametrize(
    "predictors",
    [
        [predictor("a", 150), predictor("b", -50)],
        [predictor("a", 250)],
        [predictor("a", 37), predictor("b", 100, **SHADOW)],
    ],
)
def test_the_webhook_lets_through(cluster: Cluster, namespace: str, predictors: list[Manifest]) -> None:
    assert cluster.apply(deployment(namespace, *predictors))["metadata"]["generation"] == 1


def test_nothing_is_accepted_while_the_operator_is_down(node: Node, cluster: Cluster, namespace: str) -> None:
    manifest = deployment(namespace, predictor("a", 100))
    node.stop("operator")
    try:
        with pytest.raises(Refused, match="failed calling webhook"):
            cluster.apply(manifest)
    finally:
        node.start("operator")
    wait_for(lambda: cluster.apply(manifest), "the operator")
    until_available(cluster, manifest)
