"""Where the SeldonDeployment of a service is written: guarded by the fence, and by the version that was read."""

from __future__ import annotations

import json
from typing import Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from prefect_mlops.blocks import _seldon_manifest as manifests
from prefect_mlops.blocks._kubernetes import MANAGER, Cluster, Json, Owned, Stale
from prefect_mlops.blocks.errors import FenceTooLow, TargetUnreachable

TRIES = 20
_TOMB = "prefect-mlops-fence"


class Desk(Protocol):
    """Where a SeldonDeployment is written."""

    service: str

    def check(self, seen: Json | None) -> None:
        """Raise FenceTooLow if what was seen was written on behalf of a later entry than ours."""
        ...

    async def write(self, fence: int, predictors: list[Json]) -> None:
        """Have this list of predictors; raises FenceTooLow."""
        ...


class ClusterDesk:
    """Writes to the API server."""

    def __init__(self, cluster: Cluster, service: str) -> None:
        self.service, self._cluster, self._fence = service, cluster, -1

    async def read(self) -> Json | None:
        """The SeldonDeployment, or None."""
        return await self._cluster.get("seldondeployments", self.service)

    def check(self, seen: Json | None) -> None:
        """Raise FenceTooLow if what was seen was written on behalf of a later entry than ours."""
        highest = manifests.fence_of(seen)
        if highest is not None and highest > self._fence:
            raise FenceTooLow(self.service, self._fence, highest)

    async def try_out(self, seen: Json | None, predictors: list[Json]) -> None:
        """Have the API server and the webhook judge a list; nothing is changed.

        Raises:
            Owned, Refused: If it could not be written.
        """
        if seen is None:
            await self._cluster.create("seldondeployments", self._manifest(0, predictors), dry_run=True)
            return
        manifest = self._manifest(manifests.fence_of(seen) or 0, predictors)
        try:
            await self._cluster.apply("seldondeployments", manifest, dry_run=True)
        except Owned as owned:
            if set(owned.managers) != {MANAGER}:
                raise

    async def write(self, fence: int, predictors: list[Json]) -> None:
        """Have this list of predictors.

        Raises:
            FenceTooLow: If somebody with a higher fence wrote. Nothing was changed.
            Owned: If another field manager owns the predictors. Nothing was changed.
            Refused: If the API server or the webhook does not take it. Nothing was changed.
            TargetUnreachable: If the API server does not answer.
        """
        self._fence = fence
        async for attempt in _guarded():
            with attempt:
                seen = await self.read()
                if seen is None:
                    await self._create(predictors)
                else:
                    self.check(seen)
                    await self._change(seen, predictors)

    async def delete(self, fence: int) -> None:
        """Have no SeldonDeployment, and keep the fence; raises what `write` raises."""
        self._fence = fence
        async for attempt in _guarded():
            with attempt:
                seen = await self.read()
                self.check(seen)
                await self._keep_fence()
                if seen is not None:
                    await self._cluster.delete("seldondeployments", seen)

    async def kept_fence(self) -> int | None:
        """The highest fence of a SeldonDeployment that was deleted; None if none ever was."""
        tomb = await self._cluster.get("configmaps", self._tomb)
        return None if tomb is None else int(tomb["data"]["fence"])

    async def _create(self, predictors: list[Json]) -> None:
        await self._check_kept()
        made = await self._cluster.create("seldondeployments", self._manifest(self._fence, predictors))
        try:  # it may have been made and deleted again, by somebody later, since we looked
            await self._check_kept()
        except FenceTooLow:
            await self._cluster.delete("seldondeployments", made)
            raise

    async def _check_kept(self) -> None:
        highest = await self.kept_fence()
        if highest is not None and highest > self._fence:
            raise FenceTooLow(self.service, self._fence, highest)

    async def _change(self, seen: Json, predictors: list[Json]) -> None:
        manifest = self._manifest(self._fence, predictors, seen["metadata"]["resourceVersion"])
        try:
            await self._cluster.apply("seldondeployments", manifest)
        except Owned as owned:
            if set(owned.managers) != {MANAGER}:  # what we made counts as made by another until we first applied it
                raise
            await self._cluster.apply("seldondeployments", manifest, force=True)

    async def _keep_fence(self) -> None:
        tomb = await self._cluster.get("configmaps", self._tomb)
        data = {"fence": str(self._fence)}
        if tomb is None:
            metadata = {"name": self._tomb, "labels": dict(manifests.MANAGED)}
            await self._cluster.create(
                "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            )
        elif int(tomb["data"]["fence"]) < self._fence:
            await self._cluster.replace("configmaps", {**tomb, "data": data})

    def _manifest(self, fence: int, predictors: list[Json], version: str | None = None) -> Json:
        return manifests.deployment(self._cluster.namespace, self.service, fence, predictors, version)

    @property
    def _tomb(self) -> str:
        return f"{self.service}-{_TOMB}"


def _guarded() -> AsyncRetrying:
    """Once more as long as somebody, such as Seldon's operator, wrote in between, or nobody answered."""
    return AsyncRetrying(
        retry=retry_if_exception_type((Stale, TargetUnreachable)),
        stop=stop_after_attempt(TRIES),
        wait=wait_fixed(0.1),
        reraise=True,
    )


def as_text(manifest: Json) -> str:
    """A manifest as YAML that is the same for ever."""
    import yaml

    return yaml.safe_dump(json.loads(json.dumps(manifest)), sort_keys=True, allow_unicode=True, width=100)
