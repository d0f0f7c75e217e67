"""A Kubernetes API server as plain JSON: read, write, and follow changes, for the doubles and the tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, ApiException

Json = dict[str, Any]
Query = Sequence[tuple[str, str]]
APPLY = "application/apply-patch+yaml"
_ANSWERED = dict.fromkeys((200, 201, 202), "object")


@dataclass(frozen=True)
class Kind:
    """One kind of object, and where the API server keeps it."""

    name: str
    api_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", part: str = "") -> str:
        """The path of one object, of all in `namespace`, or of all there are."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [self.api_version, f"namespaces/{namespace}" if namespace and self.namespaced else "", self.plural]
        return root + "/".join(one for one in [*parts, name, part] if one)


SELDON_DEPLOYMENT = Kind("SeldonDeployment", "machinelearning.seldon.io/v1", "seldondeployments")
VIRTUAL_SERVICE = Kind("VirtualService", "networking.istio.io/v1", "virtualservices")
DESTINATION_RULE = Kind("DestinationRule", "networking.istio.io/v1", "destinationrules")
DEPLOYMENT = Kind("Deployment", "apps/v1", "deployments")
SERVICE = Kind("Service", "v1", "services")
ENDPOINT_SLICE = Kind("EndpointSlice", "discovery.k8s.io/v1", "endpointslices")
POD = Kind("Pod", "v1", "pods")
HPA = Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers")
PDB = Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets")
NAMESPACE = Kind("Namespace", "v1", "namespaces", namespaced=False)
WEBHOOKS = Kind(
    "ValidatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", False
)


class Refused(Exception):
    """The API server refused a request; `status` is its answer, a `Status` object."""

    def __init__(self, code: int, status: Json) -> None:
        super().__init__(code, status)
        self.code, self.status = code, status

    def __str__(self) -> str:
        return str(self.status.get("message") or self.status)

    @property
    def conflict(self) -> bool:
        """Whether the object was changed in between (and not: exists already)."""
        return self.status.get("reason") == "Conflict"


@dataclass(frozen=True)
class Event:
    """One change of one object; `kind` is ADDED, MODIFIED or DELETED."""

    kind: str
    object: Json


class Client:
    """The API server of one cluster."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def request(self, method: str, path: str, body: Json | None = None, query: Query = ()) -> Json:
        """The answer to one request.

        Raises:
            Refused: If the API server says no.
        """
        content = APPLY if method == "PATCH" else "application/json"
        try:
            answer = await self._client.call_api(
                path, method, query_params=list(query), body=body,
                header_params={"Accept": "application/json", "Content-Type": content},
                response_types_map=_ANSWERED, auth_settings=["BearerToken"],
                _return_http_data_only=True, _request_timeout=30,
            )  # fmt: skip
        except ApiException as error:
            raise Refused(int(error.status or 0), _status(error.body)) from None
        return cast("Json", answer)

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """One object, or None where there is none."""
        try:
            return await self.request("GET", kind.path(namespace, name))
        except Refused as error:
            if error.code == 404:
                return None
            raise

    async def list(self, kind: Kind, namespace: str = "", labels: str = "") -> list[Json]:
        """All objects of a kind, each with its kind and version."""
        return (await self._list(kind, namespace, labels))[0]

    async def _list(self, kind: Kind, namespace: str, labels: str = "") -> tuple[list[Json], str]:
        query = [("labelSelector", labels)] if labels else []
        found = await self.request("GET", kind.path(namespace), query=query)
        whole = [{"apiVersion": kind.api_version, "kind": kind.name, **one} for one in found["items"]]
        return whole, found["metadata"]["resourceVersion"]

    async def kind_of(self, body: Json) -> Kind:
        """What kind of object a manifest is, as the API server lists it.

        Raises:
            LookupError: If the API server knows no such kind.
        """
        version, name = body["apiVersion"], body["kind"]
        found = await self.request("GET", ("/apis/" if "/" in version else "/api/") + version)
        for one in found["resources"]:
            if one["kind"] == name and "/" not in one["name"]:
                return Kind(name, version, one["name"], one["namespaced"])
        raise LookupError(f"the API server knows no {name} of {version}")

    async def create(self, kind: Kind, body: Json) -> Json:
        """Put a new object there."""
        return await self.request("POST", kind.path(body["metadata"].get("namespace", "")), body)

    async def replace(self, kind: Kind, body: Json, part: str = "") -> Json:
        """Replace an object, or its part `status`; refused if it was changed in between."""
        meta = body["metadata"]
        return await self.request("PUT", kind.path(meta.get("namespace", ""), meta["name"], part), body)

    async def apply(self, kind: Kind, body: Json, manager: str) -> Json:
        """Apply `body` server-side, strictly, as `manager`."""
        meta = body["metadata"]
        query = (("fieldManager", manager), ("fieldValidation", "Strict"), ("force", "true"))
        return await self.request("PATCH", kind.path(meta.get("namespace", ""), meta["name"]), body, query)

    async def delete(self, kind: Kind, namespace: str, name: str, policy: str = "Background") -> None:
        """Delete an object, if it is there."""
        try:
            await self.request("DELETE", kind.path(namespace, name), {"propagationPolicy": policy})
        except Refused as error:
            if error.code != 404:
                raise

    async def follow(self, kind: Kind, namespace: str = "") -> AsyncIterator[Event | None]:
        """What there is, as ADDED, then None, and then each change, for ever; lists anew when it lost track.

        An object that vanished while nobody watched is reported as DELETED, as it was seen last.
        """
        known: dict[str, Json] = {}
        while True:
            try:
                found, version = await self._list(kind, namespace)
                now = {one["metadata"]["uid"]: one for one in found}
                for uid in known.keys() - now.keys():
                    yield Event("DELETED", known.pop(uid))
                for uid, one in now.items():
                    yield Event("MODIFIED" if uid in known else "ADDED", one)
                known = now
                yield None
                async for event in self._watch(kind, namespace, version):
                    uid = event.object["metadata"]["uid"]
                    if event.kind == "DELETED":
                        known.pop(uid, None)
                    else:
                        known[uid] = event.object
                    yield event
            except (Refused, OSError, TimeoutError, ValueError, aiohttp.ClientError):
                await asyncio.sleep(0.2)

    async def _watch(self, kind: Kind, namespace: str, version: str) -> AsyncIterator[Event]:
        query = [("watch", "true"), ("resourceVersion", version), ("timeoutSeconds", "300")]
        response = await self._client.call_api(
            kind.path(namespace), "GET", query_params=query, header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True,
            _request_timeout=aiohttp.ClientTimeout(total=330),
        )  # fmt: skip
        stream = cast("aiohttp.ClientResponse", response)
        async with stream:
            async for line in stream.content:
                said = json.loads(line)
                if said["type"] == "ERROR":
                    return
                yield Event(said["type"], said["object"])


def _status(body: object) -> Json:
    try:
        found = json.loads(cast("str", body))
    except (TypeError, ValueError):
        return {"message": str(body)}
    return found if isinstance(found, dict) else {"message": str(body)}


@asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncGenerator[Client]:
    """The cluster that a kubeconfig file names; nothing of the process is changed."""
    settings = await config.new_client_from_config(config_file=str(kubeconfig))
    async with settings as client:
        yield Client(client)
