"""What Envoy does with a request: the VirtualServices in its words."""

from __future__ import annotations

from typing import Any

from tests.cluster.gateway.mesh import Destination, Mesh, destination
from tests.cluster.kube import Json

TYPE = "type.googleapis.com/envoy."
_DEFAULT_RETRIES = "connect-failure,refused-stream,unavailable,cancelled"  # what Istio does where nobody says


def route_configuration(mesh: Mesh) -> Json:
    """All routes, by the host that they are for."""
    by_host: dict[str, list[Json]] = {}
    for one in mesh.virtual_services():
        made = [_route(one, route, match) for route in one["spec"].get("http", []) for match in _matches(route)]
        for host in one["spec"].get("hosts") or ["*"]:
            by_host.setdefault(host, []).extend(made)
    return {
        "@type": TYPE + "config.route.v3.RouteConfiguration",
        "name": "gateway",
        "validate_clusters": False,  # like Istio: what is not there answers 503
        "virtual_hosts": [
            {"name": host, "domains": [host], "include_request_attempt_count": True, "routes": routes}
            for host, routes in sorted(by_host.items())
        ],
    }


def _matches(route: Json) -> list[Json]:
    return route.get("match") or [{"uri": {"prefix": "/"}}]


def _route(virtual_service: Json, route: Json, match: Json) -> Json:
    meta = virtual_service["metadata"]
    action: Json = {**_targets(route), "timeout": "0s", "retry_policy": _retries(route.get("retries"))}
    rewrite = (route.get("rewrite") or {}).get("uri")
    if rewrite:
        action["prefix_rewrite"] = rewrite
    if route.get("mirror"):
        action["request_mirror_policies"] = _mirror(route)
    return {"name": f"{meta['namespace']}/{meta['name']}", "match": _match(match), "route": action}


def _match(asked: Json) -> Json:
    uri = asked.get("uri") or {"prefix": "/"}
    (how, text), = uri.items()  # fmt: skip
    said: Json = {"safe_regex": {"regex": text}} if how == "regex" else {"path" if how == "exact" else how: text}
    headers = [_header(name, wanted) for name, wanted in sorted((asked.get("headers") or {}).items())]
    return said | ({"headers": headers} if headers else {})


def _header(name: str, wanted: Json) -> Json:
    (how, text), = wanted.items()  # fmt: skip
    return {"name": name, "string_match": {"safe_regex": {"regex": text}} if how == "regex" else {how: text}}


def _targets(route: Json) -> Json:
    every = [(destination(one["destination"]), one.get("weight", 0)) for one in route.get("route", [])]
    if len(every) == 1:
        return {"cluster": _cluster(every[0][0])}
    weighted = [{"name": _cluster(to), "weight": weight} for to, weight in every if weight > 0]
    return {"weighted_clusters": {"clusters": weighted}} if weighted else {"cluster": _cluster(None)}


def _cluster(to: Destination | None) -> str:
    return to.cluster if to else "nowhere"


def _retries(asked: Json | None) -> Json:
    policy: dict[str, Any] = {
        "retry_on": (asked or {}).get("retryOn") or _DEFAULT_RETRIES,
        "num_retries": (asked or {}).get("attempts", 2),
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }],
        "host_selection_retry_max_attempts": 5,
    }  # fmt: skip
    if (asked or {}).get("perTryTimeout"):
        policy["per_try_timeout"] = (asked or {})["perTryTimeout"]
    return policy


def _mirror(route: Json) -> list[Json]:
    percent = (route.get("mirrorPercentage") or {"value": 100}).get("value", 0)
    share = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
    return [{"cluster": _cluster(destination(route["mirror"])), "runtime_fraction": {"default_value": share}}]
