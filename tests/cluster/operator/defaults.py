"""What the operator fills in before it looks at a SeldonDeployment: ports are numbered across all predictors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.cluster.operator import naming
from tests.cluster.operator.naming import Json

FIRST_HTTP, FIRST_GRPC, FIRST_METRICS = 9000, 9500, 6000
PODINFO = "seldon-podinfo"


@dataclass
class _Ports:
    """The next free port of one kind, and the one that each container name has."""

    following: int
    by_name: dict[str, int] = field(default_factory=dict[str, int])

    def of(self, name: str) -> int:
        if name not in self.by_name:
            self.by_name[name] = self.following
            self.following += 1
        return self.by_name[name]


def units(graph: Json) -> Iterator[Json]:
    """The nodes of a graph, from its root."""
    yield graph
    for child in graph.get("children") or []:
        yield from units(child)


def unit_of(graph: Json, name: str) -> Json | None:
    """The node called `name`."""
    return next((one for one in units(graph) if one["name"] == name), None)


def port_of(container: Json, name: str) -> int | None:
    """The port called `name` of a container."""
    return next((one["containerPort"] for one in container.get("ports") or [] if one.get("name") == name), None)


def fill(sdep: Json) -> None:
    """Fill in, in place, what the operator takes for granted."""
    http, grpc = _Ports(FIRST_HTTP), _Ports(FIRST_GRPC)
    metrics = FIRST_METRICS
    for predictor in sdep["spec"]["predictors"]:
        labels = predictor.setdefault("labels", {})
        labels.setdefault("version", predictor["name"])
        for unit in units(predictor["graph"]):
            _fill_unit(unit)
        for component in predictor.get("componentSpecs") or []:
            for container in naming.containers(component):
                ports = http.of(container["name"]), grpc.of(container["name"])
                unit = unit_of(predictor["graph"], container["name"])
                if unit is not None:
                    metrics = _fill_container(sdep["spec"], unit, container, ports, metrics)


def _fill_unit(unit: Json) -> None:
    if all(unit.get(key) is None for key in ("type", "methods", "implementation")):
        unit["type"] = "MODEL"
    if unit.get("implementation") is None:
        unit["implementation"] = "UNKNOWN_IMPLEMENTATION"


def _fill_container(spec: Json, unit: Json, container: Json, ports: tuple[int, int], metrics: int) -> int:
    """Fill in one container and its node; returns the next free metrics port."""
    for key, value in {
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }.items():
        container[key] = container.get(key) or value
    mounts = container.setdefault("volumeMounts", [])
    if all(one["name"] != PODINFO for one in mounts):
        mounts.append({"name": PODINFO, "mountPath": "/etc/podinfo"})
    http, grpc = (port_of(container, "http") or ports[0]), (port_of(container, "grpc") or ports[1])
    if port_of(container, "metrics") is None:
        container.setdefault("ports", []).append({"name": "metrics", "containerPort": metrics, "protocol": "TCP"})
        metrics += 1
    endpoint = unit.setdefault("endpoint", {})
    endpoint["httpPort"], endpoint["grpcPort"] = http, grpc
    endpoint["service_port"] = grpc if speaks_grpc(spec, unit) else http
    return metrics


def speaks_grpc(spec: Json, unit: Json) -> bool:
    """Whether a node is probed on its gRPC port."""
    return (unit.get("endpoint") or {}).get("type") == "GRPC" or spec.get("transport") == "grpc"
