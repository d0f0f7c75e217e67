"""What the gateway knows of the cluster, and who answers for each destination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.cluster import kube
from tests.cluster.kube import Event, Json, Kind

KINDS = (kube.VIRTUAL_SERVICE, kube.DESTINATION_RULE, kube.SERVICE, kube.ENDPOINT_SLICE, kube.POD)
Address = tuple[str, int]


@dataclass(frozen=True, order=True)
class Destination:
    """Some pods of one Service: where a route, or a mirror, sends requests."""

    host: str
    port: int
    subset: str = ""

    @property
    def cluster(self) -> str:
        """Its name in Envoy, as Istio would call it."""
        return f"outbound|{self.port}|{self.subset}|{self.host}"


def destination(document: Json) -> Destination | None:
    """The destination that a VirtualService names; None where it names no port."""
    port = (document.get("port") or {}).get("number")
    return Destination(document["host"], port, document.get("subset", "")) if port else None


@dataclass
class Mesh:
    """The newest state of each object that matters, by kind, namespace and name."""

    _objects: dict[str, dict[tuple[str, str], Json]] = field(
        default_factory=lambda: {kind.name: {} for kind in KINDS},
    )

    def note(self, kind: Kind, event: Event) -> None:
        """Take in one change."""
        meta = event.object["metadata"]
        key = meta["namespace"], meta["name"]
        if event.kind == "DELETED":
            self._objects[kind.name].pop(key, None)
        else:
            self._objects[kind.name][key] = event.object

    def _all(self, kind: Kind) -> Iterator[Json]:
        yield from self._objects[kind.name].values()

    def virtual_services(self) -> list[Json]:
        """The VirtualServices, oldest first: the first route that matches is taken."""
        return sorted(self._all(kube.VIRTUAL_SERVICE), key=_age)

    def destinations(self) -> list[Destination]:
        """Every destination of an existing Service that a VirtualService or a DestinationRule names."""
        named = {one for each in self.virtual_services() for one in _named(each)}
        for rule in self._all(kube.DESTINATION_RULE):
            host = rule["spec"]["host"]
            ports = [one["port"] for one in (self._service(host) or {"spec": {}})["spec"].get("ports", [])]
            subsets = rule["spec"].get("subsets", [])
            named |= {Destination(host, port, one["name"]) for one in subsets for port in ports}
        return sorted(one for one in named if self._port_name(one) is not None)

    def speaks_http2(self, to: Destination) -> bool:
        """Whether a destination's port is one for gRPC."""
        return (self._port_name(to) or "").startswith("grpc")

    def idle_seconds(self, to: Destination) -> int:
        """For how long a connection to a destination is kept without requests."""
        policy = (self._rule(to.host) or {"spec": {}})["spec"].get("trafficPolicy") or {}
        text: str = ((policy.get("connectionPool") or {}).get("http") or {}).get("idleTimeout", "3600s")
        return int(float(text.removesuffix("s")))

    def addresses(self, to: Destination) -> list[Address]:
        """The pods that are ready to answer for a destination."""
        name, namespace = _split(to.host)
        port_name = self._port_name(to)
        found: set[Address] = set()
        for one in self._all(kube.ENDPOINT_SLICE):
            meta = one["metadata"]
            if meta["namespace"] == namespace and _service_of(meta) == name:
                ports = [p["port"] for p in one.get("ports") or [] if (p.get("name") or "") == port_name]
                ready = [e for e in one.get("endpoints") or [] if self._answers(e, namespace, to)]
                found |= {(e["addresses"][0], port) for e in ready for port in ports}
        return sorted(found)

    def _answers(self, endpoint: Json, namespace: str, to: Destination) -> bool:
        if not (endpoint.get("conditions") or {}).get("ready"):
            return False
        wanted = self._labels(to)
        pod = self._objects[kube.POD.name].get((namespace, (endpoint.get("targetRef") or {}).get("name", "")))
        labels: dict[str, str] = ((pod or {}).get("metadata") or {}).get("labels") or {}
        return wanted.items() <= labels.items()

    def _labels(self, to: Destination) -> dict[str, str]:
        subsets: list[Json] = (self._rule(to.host) or {"spec": {}})["spec"].get("subsets", [])
        return next((one.get("labels") or {} for one in subsets if one["name"] == to.subset), {})

    def _rule(self, host: str) -> Json | None:
        return next((one for one in self._all(kube.DESTINATION_RULE) if one["spec"]["host"] == host), None)

    def _service(self, host: str) -> Json | None:
        name, namespace = _split(host)
        return self._objects[kube.SERVICE.name].get((namespace, name))

    def _port_name(self, to: Destination) -> str | None:
        ports = (self._service(to.host) or {"spec": {}})["spec"].get("ports", [])
        return next((one.get("name", "") for one in ports if one["port"] == to.port), None)


def _age(document: Json) -> tuple[str, str, str]:
    meta = document["metadata"]
    return meta["creationTimestamp"], meta["namespace"], meta["name"]


def _named(virtual_service: Json) -> Iterator[Destination]:
    for route in virtual_service["spec"].get("http", []):
        each = [one["destination"] for one in route.get("route", [])]
        found = (destination(one) for one in [*each, *([route["mirror"]] if route.get("mirror") else [])])
        yield from (one for one in found if one)


def _split(host: str) -> tuple[str, str]:
    name, namespace = [*host.split(".", 2), ""][:2]
    return name, namespace


def _service_of(meta: Json) -> str | None:
    return (meta.get("labels") or {}).get("kubernetes.io/service-name")
