"""Deployments as the operator writes them: the predictor's pods, with what it adds to them."""

from __future__ import annotations

import copy
import json

from tests.cluster.operator import naming
from tests.cluster.operator.defaults import PODINFO, port_of, speaks_grpc
from tests.cluster.operator.naming import Json

USER = 8888
METRICS_PATH = "/prometheus"
_ROLES = {
    "ROUTER": "router",
    "COMBINER": "combiner",
    "MODEL": "model",
    "TRANSFORMER": "transformer",
    "OUTPUT_TRANSFORMER": "output-transformer",
}


def deployment(sdep: Json, predictor: Json, component: Json, name: str) -> Json:
    """The Deployment of one component, before its containers are attended to."""
    meta = component.get("metadata") or {}
    labels = {"seldon-deployment-id": naming.deployment_id(sdep), "app": name, "fluentd": "true"}
    asked = [sdep["spec"].get("annotations"), predictor.get("annotations"), meta.get("annotations")]
    annotations = {key: value for each in asked for key, value in (each or {}).items()}
    more = {**(predictor.get("labels") or {}), **(meta.get("labels") or {})}
    scrape = {"prometheus.io/path": METRICS_PATH, "prometheus.io/scrape": "true"}
    shadow = {"seldon.io/shadow": "true"} if predictor.get("shadow") else {}
    spec: Json = {
        "selector": {"matchLabels": {"seldon-deployment-id": labels["seldon-deployment-id"]}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": {**labels, **shadow, **more}, "annotations": {**scrape, **annotations}},
            "spec": _pod(component),
        },
    }
    if predictor.get("progressDeadlineSeconds") is not None:
        spec["progressDeadlineSeconds"] = predictor["progressDeadlineSeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": sdep["metadata"]["namespace"],
            "labels": {**labels, **more},
            "annotations": annotations,
        },
        "spec": spec,
    }


def _pod(component: Json) -> Json:
    pod = copy.deepcopy(component["spec"])
    if pod.get("securityContext") is None:
        pod["securityContext"] = {"runAsUser": USER}
    for key, value in {
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
    }.items():
        pod[key] = pod.get(key) or value
    pod.setdefault("terminationGracePeriodSeconds", 20)
    volumes = pod.setdefault("volumes", [])
    if all(one["name"] != PODINFO for one in volumes):
        field = {"apiVersion": "v1", "fieldPath": "metadata.annotations"}
        items = [{"path": "annotations", "fieldRef": field}]
        volumes.append({"name": PODINFO, "downwardAPI": {"items": items, "defaultMode": 420}})
    return pod


def set_label(made: Json, key: str, value: str, *, selected: bool = False) -> None:
    """Label a Deployment and its pods; `selected`: it selects its pods by that label too."""
    made["metadata"]["labels"][key] = value
    made["spec"]["template"]["metadata"]["labels"][key] = value
    if selected:
        made["spec"]["selector"]["matchLabels"][key] = value


def role_labels(predictor: Json, unit: Json | None) -> dict[str, str]:
    """The labels that say what a Deployment or a Service is for."""
    labels = dict(naming.MANAGED_BY)
    role = _ROLES.get((unit or {}).get("type") or "")
    if role:
        labels[f"seldon.io/{role}"] = "true"
    if predictor.get("shadow"):
        labels["seldon.io/shadow"] = "true"
    return labels


def complete_container(sdep: Json, predictor: Json, unit: Json, container: Json) -> None:
    """Give a node's container its ports, probes, drain and environment, where it has none of its own."""
    ports = container.setdefault("ports", [])
    for name in ("http", "grpc"):
        if port_of(container, name) is None:
            ports.append({"name": name, "containerPort": unit["endpoint"][f"{name}Port"], "protocol": "TCP"})
    probed = unit["endpoint"]["grpcPort" if speaks_grpc(sdep["spec"], unit) else "httpPort"]
    for probe, delay in (("livenessProbe", 60), ("readinessProbe", 20)):
        if container.get(probe) is None:
            container[probe] = _probe(probed, delay)
    if container.get("lifecycle") is None:
        container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "/bin/sleep 10"]}}}
    _complete_environment(sdep, predictor, unit, container)


def _probe(port: int, delay: int) -> Json:
    return {
        "tcpSocket": {"port": port},
        "initialDelaySeconds": delay,
        "periodSeconds": 5,
        "successThreshold": 1,
        "failureThreshold": 3,
        "timeoutSeconds": 1,
    }


def _complete_environment(sdep: Json, predictor: Json, unit: Json, container: Json) -> None:
    environment: list[Json] = container.setdefault("env", [])
    endpoint, name = unit["endpoint"], container["name"]
    unless_set = {
        "PREDICTIVE_UNIT_SERVICE_PORT": endpoint["service_port"],
        "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": endpoint["httpPort"],
        "MLSERVER_HTTP_PORT": endpoint["httpPort"],
        "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": endpoint["grpcPort"],
        "MLSERVER_GRPC_PORT": endpoint["grpcPort"],
    }
    if unit.get("parameters"):
        unless_set["PREDICTIVE_UNIT_PARAMETERS"] = _compact(
            [{key: one.get(key, "") for key in ("name", "value", "type")} for one in unit["parameters"]]
        )
    named = {one["name"] for one in environment}
    always = {
        "PREDICTIVE_UNIT_ID": name,
        "MLSERVER_MODEL_NAME": name,
        "PREDICTIVE_UNIT_IMAGE": container.get("image", ""),
        "PREDICTOR_ID": predictor["name"],
        "PREDICTOR_LABELS": _compact(dict(sorted(predictor["labels"].items()))),
        "SELDON_DEPLOYMENT_ID": sdep["metadata"]["name"],
        "SELDON_EXECUTOR_ENABLED": "true",
    }
    metrics = port_of(container, "metrics")
    if metrics is not None:
        always |= {
            "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": str(metrics),
            "PREDICTIVE_UNIT_METRICS_ENDPOINT": METRICS_PATH,
            "MLSERVER_METRICS_PORT": str(metrics),
            "MLSERVER_METRICS_ENDPOINT": METRICS_PATH,
        }
    environment += [{"name": key, "value": str(value)} for key, value in unless_set.items() if key not in named]
    environment += [{"name": key, "value": value} for key, value in always.items()]


def _compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))
