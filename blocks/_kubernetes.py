"""One connection to a Kubernetes API server: plain JSON documents in and out, and what its refusals mean."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from prefect_mlops.blocks.errors import MlopsError, ServingError, TargetUnreachable

if TYPE_CHECKING:  # a third of a second, for those who have no cluster
    from kubernetes_asyncio.client import ApiClient, Configuration
    from kubernetes_asyncio.client.exceptions import ApiException

Json = dict[str, Any]
Kind = Literal[
    "configmaps",
    "deployments",
    "events",
    "pods",
    "seldondeployments",
    "services",
    "virtualservices",
]

MANAGER = "prefect-mlops"
CALL_SECONDS = 10.0
_GROUPS: dict[Kind, str] = {
    "configmaps": "/api/v1",
    "deployments": "/apis/apps/v1",
    "events": "/api/v1",
    "pods": "/api/v1",
    "seldondeployments": "/apis/machinelearning.seldon.io/v1",
    "services": "/api/v1",
    "virtualservices": "/apis/networking.istio.io/v1",
}


class Stale(ServingError):
    """The object was changed, made or deleted since it was read; read it again and decide again."""


class Owned(ServingError):
    """Another field manager owns what was to be changed."""

    def __init__(self, managers: tuple[str, ...], message: str) -> None:
        super().__init__(managers, message)
        self.managers, self.message = managers, message

    def __str__(self) -> str:
        return self.message


class Refused(ServingError):
    """The API server, or a webhook that it asked, does not take the request; nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Access:
    """How an API server is reached: a kubeconfig document and a context in it, or else what this process finds."""

    kubeconfig: Mapping[str, Any] | None = None
    context: str | None = None

    async def configuration(self) -> Configuration:
        """Settings of a client of its own; nothing that other code of the process uses is touched.

        Raises:
            TargetUnreachable: If there is neither a service account nor a kubeconfig here.
        """
        from kubernetes_asyncio import config
        from kubernetes_asyncio.client import Configuration

        found = Configuration()
        try:
            if self.kubeconfig is not None:
                await config.load_kube_config_from_dict(
                    config_dict=dict(self.kubeconfig), context=self.context, client_configuration=found
                )
                return found
            try:
                config.load_incluster_config(client_configuration=found)
            except config.ConfigException:
                await config.load_kube_config(client_configuration=found, context=self.context)
        except (config.ConfigException, OSError) as error:
            reason = f"no way to it was found ({error}); run in the cluster, set KUBECONFIG, or name credentials"
            raise TargetUnreachable("the Kubernetes API", reason) from error
        return found


class Cluster:
    """What the API server of one cluster says and takes, in one namespace.

    Args:
        api: A client that is open.
        namespace: Where every object is.
        patience: For how many seconds a server that does not answer is asked again.
    """

    def __init__(self, api: ApiClient, namespace: str, patience: float) -> None:
        self._api, self.namespace, self.patience = api, namespace, patience

    @classmethod
    @asynccontextmanager
    async def open(cls, access: Access, namespace: str, patience: float) -> AsyncGenerator[Cluster]:
        """Connect; raises TargetUnreachable if there is no way to a cluster."""
        from kubernetes_asyncio.client import ApiClient

        async with ApiClient(configuration=await access.configuration()) as api:
            yield cls(api, namespace, patience)

    async def get(self, kind: Kind, name: str) -> Json | None:
        """One object, or None where there is none."""
        return await self._patiently("GET", self._path(kind, name), missing=True)

    async def list(self, kind: Kind, **query: str) -> list[Json]:
        """Every object of a kind that `query` (such as `labelSelector`) selects; none where the kind is not known."""
        found = await self._patiently("GET", self._path(kind), query, missing=True)
        return cast(list[Json], found["items"]) if found else []

    async def passed_on(self, kind: Kind, target: str, path: str, namespace: str | None = None) -> Json:
        """A page that a pod or a Service has for the API server, as JSON; empty where it gives none.

        Args:
            kind: Pods or Services.
            target: Name and port, as name:port or scheme:name:port.
            path: Path of the page.
            namespace: Where it is; the cluster's own namespace if None.
        """
        where = f"/api/v1/namespaces/{namespace or self.namespace}/{kind}/{target}/proxy{path}"
        try:
            found = await self._call("GET", where, {})
        except MlopsError:
            return {}
        return found if isinstance(found, dict) else {}

    async def create(self, kind: Kind, body: Json, *, dry_run: bool = False) -> Json:
        """Make an object that is not there yet.

        Raises:
            Stale: If there is one of its name.
            Refused: If the server does not take it.
        """
        query = _writing(dry_run) | {"fieldManager": MANAGER}
        return await self._call("POST", self._path(kind), query, body)

    async def apply(self, kind: Kind, body: Json, *, force: bool = False, dry_run: bool = False) -> Json:
        """Apply an object server-side, as the owner of each field in it.

        Raises:
            Stale: If it does not have the `resourceVersion` that `body` carries any more.
            Owned: If somebody else owns a field of it, and `force` is not set.
            Refused: If the server does not take it.
        """
        query = _writing(dry_run) | {"fieldManager": MANAGER, "force": str(force).lower()}
        path = self._path(kind, body["metadata"]["name"])
        return await self._call("PATCH", path, query, body, "application/apply-patch+yaml")

    async def replace(self, kind: Kind, body: Json) -> Json:
        """Replace an object; raises Stale if it is not the one that was read."""
        return await self._call("PUT", self._path(kind, body["metadata"]["name"]), _writing(dry_run=False), body)

    async def delete(self, kind: Kind, seen: Json) -> None:
        """Delete the very object that was seen; raises Stale if it was changed since."""
        meta = seen["metadata"]
        conditions = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        await self._call("DELETE", self._path(kind, meta["name"]), {}, {"preconditions": conditions})

    async def last_lines(self, pod: str, container: str, *, previous: bool, lines: int = 8) -> str:
        """What a container logged last; empty where it has not run."""
        query = {"container": container, "previous": str(previous).lower(), "tailLines": str(lines)}
        try:
            return str(await self._call("GET", f"{self._path('pods', pod)}/log", query, text=True))
        except MlopsError:
            return ""

    def _path(self, kind: Kind, name: str = "") -> str:
        path = f"{_GROUPS[kind]}/namespaces/{self.namespace}/{kind}"
        return f"{path}/{name}" if name else path

    async def _patiently(
        self, method: str, path: str, query: Mapping[str, str] | None = None, *, missing: bool = False
    ) -> Any:
        """Read; a server that is being restarted is asked again."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(TargetUnreachable),
            stop=stop_after_delay(self.patience),
            wait=wait_fixed(0.2),
            reraise=True,
        ):
            with attempt:
                return await self._call(method, path, query or {}, missing=missing)
        raise AssertionError(path)  # pragma: no cover: the loop ends by a return or an error

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Json | None = None,
        content: str = "application/json",
        *,
        missing: bool = False,
        text: bool = False,
    ) -> Any:
        from aiohttp import ClientError
        from kubernetes_asyncio.client.exceptions import ApiException

        try:
            return await self._api.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": "application/json, */*", "Content-Type": content},
                body=body,
                response_types_map=dict.fromkeys((200, 201, 202), "str" if text else "object"),
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=CALL_SECONDS,
            )
        except ApiException as error:
            if error.status == 404 and missing:
                return None
            raise self._meaning(error, f"{method} {path}") from error
        except (TimeoutError, ClientError, OSError) as error:
            raise TargetUnreachable(self._name, f"{type(error).__name__}: {error}".rstrip(": ")) from error

    @property
    def _name(self) -> str:
        return f"the Kubernetes API at {self._api.configuration.host}"

    def _meaning(self, error: ApiException, what: str) -> MlopsError:
        document = _document(error)
        message = str(document.get("message") or error.reason or f"status {error.status}")
        if error.status == 409:
            causes: list[Json] = (document.get("details") or {}).get("causes") or []
            conflicts = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
            managers = tuple(_manager(str(cause.get("message"))) for cause in conflicts)
            return Owned(managers, message) if managers else Stale(message)
        if "failed calling webhook" in message:
            return TargetUnreachable("the webhook of an operator, such as Seldon's", message)
        if "failed to create typed patch object" in message:  # a field that is wrong; it comes with status 500
            return Refused(f"{what}: {message}")
        if error.status == 429 or error.status >= 500:
            return TargetUnreachable(self._name, message)
        return Refused(f"{what}: {message}" if message not in {"", "Unauthorized"} else f"{what}: not let in")


def _document(error: ApiException) -> Json:
    try:
        found = json.loads(error.body or "")
    except (TypeError, ValueError):
        return {"message": str(error.body or "")[:500]}
    return found if isinstance(found, dict) else {}


def _manager(message: str) -> str:
    """The manager that a cause such as `conflict with "kubectl-edit" using ...` names."""
    return message.partition('"')[2].partition('"')[0] or message


def _writing(dry_run: bool) -> dict[str, str]:
    return {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
