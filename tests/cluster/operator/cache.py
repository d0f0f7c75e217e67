"""What the operator knows of the cluster: read from memory, kept up to date by watches, as the real one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.cluster import kube
from tests.cluster.kube import Client, Json, Kind

KINDS = (
    kube.SELDON_DEPLOYMENT, kube.DEPLOYMENT, kube.SERVICE, kube.VIRTUAL_SERVICE, kube.DESTINATION_RULE, kube.HPA,
    kube.PDB,
)  # fmt: skip

Key = tuple[str, str, str]


class Cache:
    """The objects of the kinds that the operator deals with; what it writes itself it knows at once."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._objects: dict[Key, Json] = {}
        self._gone: dict[Key, int] = {}
        self._unread = set(KINDS)
        self._read = asyncio.Event()

    async def run(self, changed: Callable[[Json], None]) -> None:
        """Follow the cluster until cancelled; `changed` is told of each object once all have been read."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(self._follow(kind, changed))

    async def _follow(self, kind: Kind, changed: Callable[[Json], None]) -> None:
        async for event in self._client.follow(kind, self._namespace):
            if event is None:
                self._unread.discard(kind)
                if not self._unread:
                    self._read.set()
                continue
            if event.kind == "DELETED":
                self._forget(event.object)
            else:
                self._learn(event.object)
            if self._read.is_set():
                changed(event.object)

    async def ready(self) -> list[Json]:
        """Wait until everything has been read; the SeldonDeployments that there are."""
        await self._read.wait()
        return [one for one in self._objects.values() if one["kind"] == kube.SELDON_DEPLOYMENT.name]

    def _learn(self, document: Json) -> None:
        key, version = _key(document), _version(document)
        known = self._objects.get(key)
        newest = self._gone.get(key, 0) if known is None else _version(known)
        if version >= newest:  # the answer to a write may come after the news of what came next
            self._objects[key] = document

    def _forget(self, document: Json) -> None:
        key = _key(document)
        self._gone[key] = _version(document)
        if key in self._objects and self._objects[key]["metadata"]["uid"] == document["metadata"]["uid"]:
            del self._objects[key]

    # --- reading and writing -----------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """One object, or None; not to be changed."""
        return self._objects.get((kind.name, namespace, name))

    def list(self, kind: Kind, namespace: str) -> list[Json]:
        """The objects of one kind in a namespace; not to be changed."""
        return [one for key, one in self._objects.items() if key[:2] == (kind.name, namespace)]

    async def create(self, kind: Kind, body: Json) -> None:
        """Put a new object there."""
        self._learn(await self._client.create(kind, body))

    async def replace(self, kind: Kind, body: Json, part: str = "") -> Json:
        """Replace an object, or its part `status`; as it then is."""
        answer = await self._client.replace(kind, body, part)
        self._learn(answer)
        return answer

    async def delete(self, kind: Kind, namespace: str, name: str, policy: str = "Background") -> None:
        """Delete an object, if it is there."""
        if self.get(kind, namespace, name) is not None:
            await self._client.delete(kind, namespace, name, policy)


def _key(document: Json) -> Key:
    return document["kind"], document["metadata"]["namespace"], document["metadata"]["name"]


def _version(document: Json) -> int:
    return int(document["metadata"]["resourceVersion"])
