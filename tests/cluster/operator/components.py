"""Everything that one SeldonDeployment should consist of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.cluster.operator import istio, naming, pods
from tests.cluster.operator.defaults import unit_of, units
from tests.cluster.operator.naming import Json

_ENGINE, _TFSERVING = "seldon-container-engine", "tfserving"


class BeyondTheStandIn(Exception):
    """A SeldonDeployment asks for what only the real operator does."""

    def __init__(self, predictor: str, what: str) -> None:
        super().__init__(predictor, what)
        self.predictor, self.what = predictor, what

    def __str__(self) -> str:
        return f"predictor {self.predictor} {self.what}: the tests' stand-in for Seldon's operator cannot do that"


def _objects() -> list[Any]:
    return []


@dataclass
class Components:
    """What should exist, each in the order in which the operator makes it."""

    deployments: list[Json] = field(default_factory=_objects)
    services: list[Json] = field(default_factory=_objects)
    details: dict[str, Json] = field(default_factory=dict[str, Json])
    hpas: list[Json] = field(default_factory=_objects)
    pdbs: list[Json] = field(default_factory=_objects)
    destination_rules: list[Json] = field(default_factory=_objects)
    virtual_service: Json = field(default_factory=dict[str, Any])
    address: str = ""
    first_deployment: str = ""


def components(sdep: Json) -> Components:
    """What `sdep`, with its defaults filled in, should consist of.

    Raises:
        BeyondTheStandIn: If it needs the executor, a prepackaged server or an explainer.
        NotAWholeNumber: If an annotation for Istio is not a whole number.
    """
    made = Components()
    ports: istio.Ports = {}
    for number, predictor in enumerate(sdep["spec"]["predictors"]):
        _refuse(predictor)
        ports[predictor["name"]] = {"http": 0, "grpc": 0}
        for index, component in enumerate(predictor.get("componentSpecs") or []):
            if naming.containers(component):
                first = number == index == 0
                _add_component(made, sdep, predictor, component, (index, first), ports)
    _add_istio(made, sdep, ports)
    return made


def _refuse(predictor: Json) -> None:
    if not naming.without_engine(predictor):
        raise BeyondTheStandIn(predictor["name"], f'has no annotation {naming.NO_ENGINE}: "true"')
    if (predictor.get("explainer") or {}).get("type"):
        raise BeyondTheStandIn(predictor["name"], "has an explainer")
    for unit in units(predictor["graph"]):
        if unit.get("modelUri") or unit.get("implementation") not in {None, "UNKNOWN_IMPLEMENTATION"}:
            raise BeyondTheStandIn(predictor["name"], "has a model URI or a prepackaged server")


def _add_component(
    made: Components, sdep: Json, predictor: Json, component: Json, place: tuple[int, bool], ports: istio.Ports
) -> None:
    index, first = place
    name = naming.deployment(sdep, predictor, component, index)
    if first:
        made.first_deployment = name
    deployment = pods.deployment(sdep, predictor, component, name)
    _scale(made, sdep, predictor, component, deployment)
    if component.get("pdbSpec") is not None:
        made.pdbs.append(_budget(sdep, component["pdbSpec"], name))
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        unit = unit_of(predictor["graph"], container["name"])
        for key, value in pods.role_labels(predictor, unit).items():
            pods.set_label(deployment, key, value)
        if unit is not None and container["name"] not in {_ENGINE, _TFSERVING}:
            ports[predictor["name"]] = _add_services(made, sdep, predictor, deployment, container, unit)
    made.deployments.append(deployment)


def _scale(made: Components, sdep: Json, predictor: Json, component: Json, deployment: Json) -> None:
    if component.get("kedaSpec") is not None:
        raise BeyondTheStandIn(predictor["name"], "is scaled by KEDA")
    if component.get("hpaSpec") is not None:
        made.hpas.append(_autoscaler(sdep, component["hpaSpec"], deployment["metadata"]["name"]))
        return
    for holder in (component, predictor, sdep["spec"]):
        if holder.get("replicas") is not None:
            deployment["spec"]["replicas"] = holder["replicas"]
            return


def _add_services(
    made: Components, sdep: Json, predictor: Json, deployment: Json, container: Json, unit: Json
) -> dict[str, int]:
    """Add the Services of a node, the container's own and the predictor's; returns the node's ports."""
    own = naming.container_service(sdep["metadata"]["name"], predictor, container)
    whole = naming.predictor_service(sdep, predictor)
    key = f"seldon-app-svc-{container['name']}"
    pods.set_label(deployment, key, own, selected=True)
    pods.complete_container(sdep, predictor, unit, container)
    ports = {"http": unit["endpoint"]["httpPort"], "grpc": unit["endpoint"]["grpcPort"]}
    made.services.append(_service(sdep, predictor, unit, own, ports, {key: own, "seldon-app": whole}, {key: own}))
    pods.set_label(deployment, "seldon-app", whole, selected=True)
    labels = {"seldon-app": whole}
    service = _service(sdep, predictor, unit, whole, ports, labels, labels)
    if naming.option(sdep, "seldon.io/headless-svc", "false") != "false":
        service["spec"]["clusterIP"] = "None"
    made.services.append(service)
    for name in (own, whole):
        address = f"{name}.{sdep['metadata']['namespace']}"
        made.details[name] = {
            "svcName": name,
            "httpEndpoint": f"{address}:{ports['http']}",
            "grpcEndpoint": f"{address}:{ports['grpc']}",
        }
    return ports


def _service(
    sdep: Json, predictor: Json, unit: Json, name: str, ports: dict[str, int], labels: Json, selector: Json
) -> Json:
    every = {**labels, "seldon-deployment-id": naming.deployment_id(sdep), **pods.role_labels(predictor, unit)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": sdep["metadata"]["namespace"],
            "labels": every,
            "annotations": dict(predictor.get("annotations") or {}),
        },
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "selector": selector,
            "ports": [
                {"name": kind, "protocol": "TCP", "port": port, "targetPort": port}
                for kind, port in ports.items()
                if port
            ],
        },
    }


def _autoscaler(sdep: Json, asked: Json, name: str) -> Json:
    metrics = asked.get("metricsv2") or [_metric(one) for one in asked.get("metrics") or []]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    spec: Json = {"scaleTargetRef": target, "maxReplicas": asked["maxReplicas"]}
    if asked.get("minReplicas") is not None:
        spec["minReplicas"] = asked["minReplicas"]
    if metrics:
        spec["metrics"] = metrics
    return _beside(sdep, name, "autoscaling/v2", "HorizontalPodAutoscaler", spec)


def _metric(old: Json) -> Json:
    """A resource metric of autoscaling/v2beta1 in the words of autoscaling/v2."""
    resource = old["resource"]
    target: Json = {"type": "AverageValue", "averageValue": resource.get("targetAverageValue")}
    if resource.get("targetAverageUtilization") is not None:
        target = {"type": "Utilization", "averageUtilization": resource["targetAverageUtilization"]}
    return {"type": old["type"], "resource": {"name": resource["name"], "target": target}}


def _budget(sdep: Json, asked: Json, name: str) -> Json:
    limits = {key: asked[key] for key in ("minAvailable", "maxUnavailable") if asked.get(key) is not None}
    selector = {"matchLabels": {"seldon-deployment-id": naming.deployment_id(sdep)}}
    return _beside(sdep, name, "policy/v1", "PodDisruptionBudget", {**limits, "selector": selector})


def _beside(sdep: Json, name: str, version: str, kind: str, spec: Json) -> Json:
    labels = {"seldon-deployment-id": naming.deployment_id(sdep)}
    meta = {"name": name, "namespace": sdep["metadata"]["namespace"], "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


def _add_istio(made: Components, sdep: Json, ports: istio.Ports) -> None:
    made.virtual_service = istio.virtual_service(sdep, ports)
    made.destination_rules = istio.destination_rules(sdep)
    first = sdep["spec"]["predictors"][0]
    host = naming.host(naming.predictor_service(sdep, first), sdep["metadata"]["namespace"])
    made.address = f"http://{host}:{ports[first['name']]['http']}{_path(sdep, first)}"


def _path(sdep: Json, first: Json) -> str:
    protocol = sdep["spec"].get("protocol")
    if protocol == "tensorflow":
        return f"/v1/models/{first['graph']['name']}:predict"
    if protocol in {"v2", "kfserving"}:
        return f"/v2/models/{first['graph']['name']}/infer"
    return "/api/v1.0/predictions"
