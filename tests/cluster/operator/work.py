"""What one pass over a SeldonDeployment has at hand."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cluster.kube import Json, Kind
from tests.cluster.operator.cache import Cache
from tests.cluster.operator.status import Status


@dataclass(frozen=True)
class Work:
    """A SeldonDeployment as it was when the pass began, the status to write at its end, and the cluster."""

    cache: Cache
    sdep: Json
    status: Status

    @property
    def namespace(self) -> str:
        """Where everything of it is."""
        return self.sdep["metadata"]["namespace"]

    def find(self, kind: Kind, name: str) -> Json | None:
        """One of its objects, or None."""
        return self.cache.get(kind, self.namespace, name)

    async def create(self, kind: Kind, wanted: Json) -> None:
        """Make an object that belongs to it."""
        owner = {
            "apiVersion": self.sdep["apiVersion"],
            "kind": self.sdep["kind"],
            "name": self.sdep["metadata"]["name"],
            "uid": self.sdep["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        await self.cache.create(kind, {**wanted, "metadata": {**wanted["metadata"], "ownerReferences": [owner]}})

    async def delete(self, kind: Kind, name: str) -> None:
        """Delete one of its objects, after all that belongs to that."""
        await self.cache.delete(kind, self.namespace, name, "Foreground")

    async def ensure_spec(self, kind: Kind, wanted: Json) -> bool:
        """Make an object, or give it the wanted spec; whether it was there, and is as it was."""
        found = self.find(kind, wanted["metadata"]["name"])
        if found is None:
            await self.create(kind, wanted)
            return False
        if found["spec"] == wanted["spec"]:
            return True
        updated = await self.cache.replace(kind, {**found, "spec": wanted["spec"]})
        return updated["spec"] == found["spec"]
