"""The VirtualService and the DestinationRules of a SeldonDeployment: weights, mirror, retries."""

from __future__ import annotations

import re

from tests.cluster.operator import naming
from tests.cluster.operator.naming import Json

GATEWAY = "istio-system/seldon-gateway"
_GRPC_PATHS = ".*tensorflow.*|.*seldon.protos.*|.*inference.*"
_RETRIED = "gateway-error,connect-failure,refused-stream"

Ports = dict[str, dict[str, int]]


class NotAWholeNumber(Exception):
    """An annotation should hold a whole number; said as Go says it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'strconv.Atoi: parsing "{self.text}": invalid syntax'


def virtual_service(sdep: Json, ports: Ports) -> Json:
    """How requests for a SeldonDeployment are split; `ports` are those of each predictor, by its name."""
    name, namespace = sdep["metadata"]["name"], sdep["metadata"]["namespace"]
    http: Json = {"match": [{"uri": {"prefix": f"/seldon/{namespace}/{name}/"}}], "rewrite": {"uri": "/"}}
    named = {"namespace": {"exact": namespace}, "seldon": {"exact": name}}
    grpc: Json = {"match": [{"uri": {"regex": _GRPC_PATHS}, "headers": named}]}
    retries = _retries(sdep)
    for route, kind in ((http, "http"), (grpc, "grpc")):
        if retries:
            route["retries"] = dict(retries)
        route["route"] = []
        for predictor in sdep["spec"]["predictors"]:
            _send(route, sdep, predictor, ports[predictor["name"]][kind])
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": naming.deployment_id(sdep), "namespace": namespace},
        "spec": {
            "hosts": [naming.option(sdep, "seldon.io/istio-host", "*")],
            "gateways": [naming.option(sdep, "seldon.io/istio-gateway", GATEWAY)],
            "http": [http, grpc],
        },
    }


def _send(route: Json, sdep: Json, predictor: Json, port: int) -> None:
    """Add one predictor to a route: as a destination, or, a shadow, as its mirror."""
    service = naming.predictor_service(sdep, predictor)
    destination: Json = {
        "host": naming.host(service, sdep["metadata"]["namespace"]),
        "subset": predictor["name"],
        "port": {"number": port} if port else {},
    }
    traffic = predictor.get("traffic") or 0
    if not predictor.get("shadow"):
        route["route"].append({"destination": destination} | ({"weight": traffic} if traffic else {}))
        return
    route["mirror"] = destination
    if traffic > 0:
        route["mirrorPercentage"] = {"value": traffic}


def _retries(sdep: Json) -> Json:
    asked = naming.option(sdep, "seldon.io/istio-retries", "")
    if not asked:
        return {}
    attempts = _whole(asked)
    seconds = _whole(naming.option(sdep, "seldon.io/istio-retries-timeout", "1"))
    return {"attempts": attempts, "perTryTimeout": f"{seconds}s", "retryOn": _RETRIED} if attempts > 0 else {}


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        raise NotAWholeNumber(text)
    return int(text)


def destination_rules(sdep: Json) -> list[Json]:
    """One DestinationRule for each predictor, a shadow's too."""
    return [_rule(sdep, predictor) for predictor in sdep["spec"]["predictors"]]


def _rule(sdep: Json, predictor: Json) -> Json:
    service, namespace = naming.predictor_service(sdep, predictor), sdep["metadata"]["namespace"]
    version = predictor["labels"]["version"]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": service, "namespace": namespace},
        "spec": {
            "host": naming.host(service, namespace),
            "subsets": [{"name": predictor["name"], "labels": {"version": version}}],
            "trafficPolicy": {"connectionPool": {"http": {"idleTimeout": "60s"}}},
        },
    }
