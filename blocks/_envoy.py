"""The gateway's configuration, and what its admin interface says; facts about Envoy live here only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect_mlops.blocks import _unix
from prefect_mlops.blocks.split import Arm, Split

RELEASE_HEADER = "x-mlops-release"
ROLE_HEADER = "x-mlops-role"
ROUTES = "gateway"
SHADOW = "/shadow"
REQUEST_SECONDS = 60
BUFFER_BYTES = 32 * 1024 * 1024  # of a shadow's connection: smaller ones let a hung shadow slow the primary
_TYPE = "type.googleapis.com/envoy."
_NOBODY = {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]}

Json = dict[str, Any]


@dataclass(frozen=True)
class Upstream:
    """One release of one service and the sockets of its model servers."""

    service: str
    release: str
    sockets: tuple[Path, ...]
    shadow: bool = False

    @property
    def name(self) -> str:
        """Its cluster's name."""
        return cluster_name(self.service, self.release) + (SHADOW if self.shadow else "")


def cluster_name(service: str, release: str) -> str:
    """The name of a release's cluster."""
    return f"{service}/{release.removeprefix('sha256:')}"


def release_of(name: str) -> str:
    """The release that the cluster `name` serves."""
    return "sha256:" + name.removesuffix(SHADOW).rpartition("/")[2]


# --- bootstrap -------------------------------------------------------------------------------


def bootstrap(name: str, *, admin: Path, port: int, folder: Path) -> bytes:
    """The part of the configuration that never changes while a gateway runs."""
    return _bytes({
        "node": {"id": name, "cluster": "prefect-mlops"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": _watched(folder / "clusters.json")},
        "static_resources": {"listeners": [_listener(port, folder)]},
    })  # fmt: skip


def _watched(path: Path) -> Json:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _listener(port: int, folder: Path) -> Json:
    return {
        "name": "gateway",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "enable_reuse_port": True,  # two gateways on one port: one may be killed
        "filter_chains": [{"filters": [{"name": "http", "typed_config": _http_manager(folder)}]}],
    }


def _http_manager(folder: Path) -> Json:
    return {
        "@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": {"route_config_name": ROUTES, "config_source": _watched(folder / "routes.json")},
        "use_remote_address": True,
        "skip_xff_append": True,
        "internal_address_config": _NOBODY,  # nobody may set Envoy's own headers, nor choose a request id
        "preserve_external_request_id": False,
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": [_keep_callers_id()],
        "normalize_path": True,
        "request_timeout": "30s",
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "local_reply_config": {"body_format": {"json_format": {
            "status": {"code": "%RESPONSE_CODE%", "info": "%LOCAL_REPLY_BODY%", "status": "FAILURE"},
        }}},
        "access_log": [_access_log()],
        "http_filters": [
            {"name": "buffer", "typed_config": {
                "@type": _TYPE + "extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": 16 * 1024 * 1024}},
            {"name": "router", "typed_config": {"@type": _TYPE + "extensions.filters.http.router.v3.Router"}},
        ],
    }  # fmt: skip


def _keep_callers_id() -> Json:
    mutations = [
        {"remove": "x-client-request-id"},
        {"append": {
            "header": {"key": "x-client-request-id", "value": "%REQ(x-request-id)%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
        {"remove": "x-request-id"},
    ]  # fmt: skip
    return {"name": "ids", "typed_config": {
        "@type": _TYPE + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        "mutations": mutations}}  # fmt: skip


def _access_log() -> Json:
    line = {
        "time": "%START_TIME%",
        "request": "%REQ(x-request-id)%",
        "path": "%REQ(x-envoy-original-path?:path)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "milliseconds": "%DURATION%",
    }
    return {"name": "access", "typed_config": {
        "@type": _TYPE + "extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"json_format": line}}}  # fmt: skip


# --- clusters --------------------------------------------------------------------------------


def clusters(version: str, by_name: Mapping[str, Json]) -> bytes:
    """The clusters file: one cluster per release, and one more for a shadow."""
    return _bytes({"version_info": version, "resources": [by_name[name] for name in sorted(by_name)]})


def cluster(upstream: Upstream) -> Json:
    """How a gateway reaches the model servers of one release."""
    sockets = [{"endpoint": {"address": {"pipe": {"path": str(path)}}}} for path in upstream.sockets]
    return {
        "@type": _TYPE + "config.cluster.v3.Cluster",
        "name": upstream.name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": upstream.name, "endpoints": [{"lb_endpoints": sockets}]},
        "health_checks": [_health_check()],
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},  # all dead: still try, and retry
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "circuit_breakers": {"thresholds": [_limits(64 if upstream.shadow else 8192)]},
        "typed_extension_protocol_options": {_TYPE_HTTP: {
            "@type": "type.googleapis.com/" + _TYPE_HTTP,
            "common_http_protocol_options": {"idle_timeout": "4s"},  # before the model server closes, at 5 s
            "explicit_http_config": {"http_protocol_options": {}},
        }},
    }  # fmt: skip


_TYPE_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def _limits(requests: int) -> Json:
    return {"max_connections": 1024, "max_pending_requests": requests, "max_requests": requests, "max_retries": 1024}


def _health_check() -> Json:
    return {
        "timeout": "2s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_interval": "0.25s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/ready"},
    }


# --- routes ----------------------------------------------------------------------------------


def routes(version: str, by_service: Mapping[str, list[Json]]) -> bytes:
    """The routes file: the routes of every service, and a plain answer for everything else."""
    unknown = _answer({"prefix": "/"}, 404, "no such service here; the path is /seldon/NAMESPACE/SERVICE/...")
    every = [route for service in sorted(by_service) for route in by_service[service]]
    return _bytes({"version_info": version, "resources": [{
        "@type": _TYPE + "config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "validate_clusters": True,
        "virtual_hosts": [{
            "name": "services", "domains": ["*"],
            "include_request_attempt_count": True,
            "routes": [*every, unknown],
        }],
    }]})  # fmt: skip


def service_routes(namespace: str, service: str, split: Split, *, max_body_bytes: int) -> list[Json]:
    """What the gateway does with requests for `service` under `split`."""
    match = {"prefix": f"/seldon/{namespace}/{service}/"}
    made = [_pinned(match, service, arm.release) for arm in split.arms]
    no_arm = f"{service} has no arm of the release that the header {RELEASE_HEADER} names"
    made.append(_answer({**match, "headers": [{"name": RELEASE_HEADER, "present_match": True}]}, 404, no_arm))
    if split.live:
        made.append(_live(match, service, split))
    else:
        made.append(_answer(match, 503, f"{service} serves no release at present"))
    for route in made:
        route["name"] = service
        if "route" in route:
            route["typed_per_filter_config"] = {"buffer": {
                "@type": _TYPE + "extensions.filters.http.buffer.v3.BufferPerRoute",
                "buffer": {"max_request_bytes": max_body_bytes}}}  # fmt: skip
    return made


def _pinned(match: Json, service: str, release: str) -> Json:
    pin = {"name": RELEASE_HEADER, "string_match": {"exact": release}}
    action = _action() | {"cluster": cluster_name(service, release)}
    return {"match": {**match, "headers": [pin]}, "route": action, "request_headers_to_add": [_role("warm")]}


def _live(match: Json, service: str, split: Split) -> Json:
    weighted = [
        {
            "name": cluster_name(service, arm.release),
            "weight": arm.percent,
            "request_headers_to_add": [_role("live")],
        }
        for arm in split.live
    ]
    copies = [_copy(service, arm) for arm in split.arms if arm.role == "shadow"]
    action = _action() | {"weighted_clusters": {"clusters": weighted}, "request_mirror_policies": copies}
    return {"match": match, "route": action}


def _copy(service: str, arm: Arm) -> Json:
    return {
        "cluster": cluster_name(service, arm.release) + SHADOW,
        "runtime_fraction": {"default_value": {"numerator": arm.percent, "denominator": "HUNDRED"}},
        "request_headers_mutations": [{"append": _role("shadow")}],
    }


def _role(role: str) -> Json:
    return {"header": {"key": ROLE_HEADER, "value": role}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _action() -> Json:
    return {
        "prefix_rewrite": "/",
        "timeout": f"{REQUEST_SECONDS}s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset",
            "num_retries": 5,
            "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
            "retry_host_predicate": [{"name": "other", "typed_config": {
                "@type": _TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
            "host_selection_retry_max_attempts": 5,
        },
    }  # fmt: skip


def _answer(match: Json, status: int, sentence: str) -> Json:
    return {"match": match, "direct_response": {"status": status, "body": {"inline_string": sentence}}}


# --- reading it back -------------------------------------------------------------------------


def read_split(document: Json, service: str) -> Split:
    """The split that a route configuration carries out for `service`; raises ValueError for one of other shape."""
    hosts = document.get("virtual_hosts", [])
    mine = [route for host in hosts for route in host.get("routes", []) if route.get("name") == service]
    arms: dict[str, Arm] = {}
    for route in mine:
        action = route.get("route", {})
        if "cluster" in action:
            release = release_of(action["cluster"])
            arms.setdefault(release, Arm(release=release, role="warm", percent=0))
        for weighted in action.get("weighted_clusters", {}).get("clusters", []):
            release = release_of(weighted["name"])
            arms[release] = Arm(release=release, role="live", percent=weighted["weight"])
        for copied in action.get("request_mirror_policies", []):
            release = release_of(copied["cluster"])
            percent = copied["runtime_fraction"]["default_value"]["numerator"]
            arms[release] = Arm(release=release, role="shadow", percent=percent)
    return Split(arms=tuple(arms.values()))


@dataclass(frozen=True)
class Gateway:
    """One running Envoy, through its admin socket."""

    name: str
    admin: Path

    def routes(self) -> tuple[str, Json]:
        """The version of the routes that it carries out, and the routes.

        Raises:
            NotListening: If this gateway is down.
            OSError: If it does not answer.
        """
        dump = _unix.get_json(self.admin, "/config_dump?resource=dynamic_route_configs")
        found = [one for one in dump.get("configs", []) if one["route_config"]["name"] == ROUTES]
        if not found:
            raise ConnectionError(f"{self.name} has no routes yet")
        return found[0].get("version_info", ""), found[0]["route_config"]

    def version(self, kind: str) -> str | None:
        """Which version of the `routes` or the `clusters` it carries out; raises as `routes` does."""
        prefix = "cluster_manager.cds" if kind == "clusters" else f"http.gateway.rds.{ROUTES}"
        found = self._stats("^" + _escape(prefix) + r"\.version_text$")
        return found[0]["value"] if found else None

    def healthy(self, clusters: Iterable[str]) -> set[str]:
        """Which of these clusters have a model server that it would send requests to."""
        names = "|".join(_escape(name) for name in clusters)
        found = self._stats(rf"^cluster\.({names})\.membership_healthy$")
        return {one["name"].split(".")[1] for one in found if one["value"]}

    def active(self, clusters: Iterable[str]) -> int:
        """Requests that wait for an answer of these clusters right now."""
        names = "|".join(_escape(cluster) for cluster in clusters)
        found = self._stats(rf"^cluster\.({names})\.upstream_rq_(active|pending_active)$")
        return sum(one["value"] for one in found)

    def answers(self, service: str) -> dict[str, tuple[int, int]]:
        """Answers, and those of status 500 and above, by release."""
        found: dict[str, tuple[int, int]] = {}
        clusters = _escape(service) + r"/[0-9a-f]{64}(/shadow)?"
        for one in self._stats(rf"^cluster\.{clusters}\.upstream_rq_(completed|5xx)$"):
            cluster, _, kind = one["name"].removeprefix("cluster.").rpartition(".")
            every, bad = found.get(release_of(cluster), (0, 0))
            more = (one["value"], 0) if kind == "upstream_rq_completed" else (0, one["value"])
            found[release_of(cluster)] = every + more[0], bad + more[1]
        return found

    def _stats(self, pattern: str) -> list[Json]:
        stats = _unix.get_json(self.admin, f"/stats?format=json&filter={quote(pattern)}")["stats"]
        return [one for one in stats if "name" in one]


def _escape(name: str) -> str:
    return name.replace(".", r"\.")


def _bytes(document: Json) -> bytes:
    return json.dumps(document, indent=1).encode()
