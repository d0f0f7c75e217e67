"""The few calls to a Kubernetes API server that tests need beside the code they test."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from tests.cluster.commands import Failed

T = TypeVar("T")
Manifest = dict[str, Any]
OWNER = "tests"
"""The field manager of what tests apply."""


class Refused(Exception):
    """The API server answered no; its own words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


@dataclass(frozen=True)
class Cluster:
    """A cluster as an administrator sees it."""

    kubeconfig: Path
    client: httpx.Client
    _resources: dict[tuple[str, str], Manifest] = field(default_factory=dict)

    @classmethod
    def named(cls, kubeconfig: Path) -> Cluster:
        """The cluster that any kubeconfig file leads to, whatever it authenticates with."""
        from kubernetes_asyncio import config
        from kubernetes_asyncio.client import Configuration

        told = Configuration()
        asyncio.run(config.load_kube_config(config_file=str(kubeconfig), client_configuration=told))
        context = ssl.create_default_context(cafile=told.ssl_ca_cert)
        if told.cert_file:
            context.load_cert_chain(told.cert_file, told.key_file)
        key = told.api_key.get("BearerToken")
        return cls(kubeconfig, _client(str(told.host), context, key))

    @classmethod
    def ours(cls, kubeconfig: Path) -> Cluster:
        """The same for a file as `settings.kubeconfig` makes it, without the second that the library takes to load."""
        told = yaml.safe_load(kubeconfig.read_text())
        context = ssl.create_default_context(cafile=str(kubeconfig.parent / "ca.crt"))
        key = f"Bearer {told['users'][0]['user']['token']}"
        return cls(kubeconfig, _client(told["clusters"][0]["cluster"]["server"], context, key))

    def close(self) -> None:
        """Let go of its connections."""
        self.client.close()

    def get(self, path: str, **query: Any) -> Any:
        """The document, or the text, at a path such as `/api/v1/namespaces/default/pods`."""
        return self._ask("GET", path, params=query)

    def read(self, manifest: Manifest) -> Manifest:
        """The object that a manifest names, as it now is."""
        return self._ask("GET", self.path(manifest))

    def create(self, manifest: Manifest) -> Manifest:
        """Create an object; a field that nobody knows is refused."""
        folder = self.path(manifest).rpartition("/")[0]
        return self._ask("POST", folder, json=manifest, params={"fieldValidation": "Strict"})

    def apply(self, manifest: Manifest) -> Manifest:
        """Apply an object, server-side; a field that nobody knows is refused."""
        query = {"fieldManager": OWNER, "force": "true", "fieldValidation": "Strict"}
        kind = {"Content-Type": "application/apply-patch+yaml"}
        return self._ask("PATCH", self.path(manifest), json=manifest, params=query, headers=kind)

    def delete(self, manifest: Manifest) -> None:
        """Delete an object, and what it owns behind it."""
        self._ask("DELETE", self.path(manifest), params={"propagationPolicy": "Background"})

    def path(self, manifest: Manifest) -> str:
        """Where the object that a manifest names is found."""
        version, metadata = manifest["apiVersion"], manifest["metadata"]
        resource = self._resource(version, manifest["kind"])
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        place = f"/namespaces/{metadata.get('namespace', 'default')}" if resource["namespaced"] else ""
        return f"{root}{place}/{resource['name']}/{metadata['name']}"

    def _resource(self, version: str, kind: str) -> Manifest:
        if (version, kind) not in self._resources:
            listed = self.get(f"/apis/{version}" if "/" in version else f"/api/{version}")["resources"]
            found = {(version, one["kind"]): one for one in listed if "/" not in one["name"]}
            self._resources.update(found)
        return self._resources[version, kind]

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self.client.request(method, path, **options)
        is_document = answer.headers.get("Content-Type", "").startswith("application/json")
        said: Any = answer.json() if is_document else answer.text
        if answer.is_error:
            raise Refused(answer.status_code, said["message"] if is_document else said)
        return said


def _client(url: str, context: ssl.SSLContext, key: str | None) -> httpx.Client:
    headers = {"Authorization": key} if key else {}
    return httpx.Client(base_url=url, headers=headers, verify=context, timeout=20, trust_env=False)


def wait_for(look: Callable[[], T], what: str, *, seconds: float = 30) -> T:
    """The first answer that is true; what does not answer yet, or says no, is asked again.

    Raises:
        TimeoutError: If it does not come in time: what was waited for, and the last answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        last: Any = None
        try:
            last = look()
        except (httpx.TransportError, Refused, Failed) as error:
            last = error
        else:
            if last:
                return last
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}; the last answer was {last!r}")
        time.sleep(0.05)
