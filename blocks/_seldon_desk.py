"""Where the SeldonDeployment of a service is written: guarded by the fence, and by the version that was read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from filelock import FileLock
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from prefect_mlops.blocks import _seldon_manifest as manifests
from prefect_mlops.blocks._kubernetes import MANAGER, Cluster, Json, Owned, Stale
from prefect_mlops.blocks._supervisor import write_atomically
from prefect_mlops.blocks.errors import FenceTooLow, TargetUnreachable


class Desk(Protocol):
    """Where the SeldonDeployment of one service is written, on behalf of one log entry."""

    service: str

    async def check(self, seen: Json | None) -> None:
        """Raise FenceTooLow if the cluster shows what was written on behalf of a later entry, or the desk has that."""
        ...

    async def try_out(self, seen: Json | None, predictors: list[Json]) -> None:
        """Have the API server and the webhook judge a list; nothing is changed.

        Raises:
            Owned, Refused: If it could not be written.
        """
        ...

    async def write(self, predictors: list[Json]) -> None:
        """Have this list of predictors.

        Raises:
            FenceTooLow: If somebody with a higher fence wrote. Nothing was changed.
            Owned: If another field manager owns the predictors. Nothing was changed.
            Refused: If it is not taken. Nothing was changed.
            TargetUnreachable: If the API server does not answer.
        """
        ...

    async def delete(self) -> None:
        """Have no SeldonDeployment, and keep the fence; raises what `write` raises."""
        ...


class ClusterDesk:
    """Writes to the API server."""

    def __init__(self, cluster: Cluster, service: str, fence: int) -> None:
        self.service, self._cluster, self._fence = service, cluster, fence

    async def check(self, seen: Json | None) -> None:
        """See `Desk`."""
        _refuse_lower(self.service, self._fence, manifests.fence_of(seen))

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

    async def write(self, predictors: list[Json]) -> None:
        """See `Desk`."""
        async for attempt in _guarded(self._cluster.patience):
            with attempt:
                seen = await self._read()
                await self.check(seen)
                await (self._create(predictors) if seen is None else self._change(seen, predictors))

    async def delete(self) -> None:
        """See `Desk`."""
        async for attempt in _guarded(self._cluster.patience):
            with attempt:
                seen = await self._read()
                await self.check(seen)
                await self._keep_fence()
                if seen is not None:
                    await self._cluster.delete("seldondeployments", seen)

    async def _read(self) -> Json | None:
        return await self._cluster.get("seldondeployments", self.service)

    async def _create(self, predictors: list[Json]) -> None:
        await self._check_kept()
        made = await self._cluster.create("seldondeployments", self._manifest(self._fence, predictors))
        try:  # it may have been made and deleted again, by somebody later, since we looked
            await self._check_kept()
        except FenceTooLow:
            await self._cluster.delete("seldondeployments", made)
            raise

    async def _check_kept(self) -> None:
        _refuse_lower(self.service, self._fence, await kept_fence(self._cluster, self.service))

    async def _change(self, seen: Json, predictors: list[Json]) -> None:
        manifest = self._manifest(self._fence, predictors, seen["metadata"]["resourceVersion"])
        try:
            await self._cluster.apply("seldondeployments", manifest)
        except Owned as owned:
            if set(owned.managers) != {MANAGER}:  # what we made counts as made by another until we first applied it
                raise
            await self._cluster.apply("seldondeployments", manifest, force=True)

    async def _keep_fence(self) -> None:
        kept = await self._cluster.get("configmaps", manifests.tomb_name(self.service))
        tomb = manifests.tomb(self._cluster.namespace, self.service, self._fence)
        if kept is None:
            await self._cluster.create("configmaps", tomb)
        elif int(kept["data"]["fence"]) < self._fence:
            await self._cluster.replace("configmaps", {**kept, "data": tomb["data"]})

    def _manifest(self, fence: int, predictors: list[Json], version: str | None = None) -> Json:
        return manifests.deployment(self._cluster.namespace, self.service, fence, predictors, version)


class FileDesk:
    """Writes to a folder from which others, such as Argo CD, take what the cluster shall have."""

    def __init__(self, cluster: Cluster, service: str, fence: int, folder: Path) -> None:
        self.service, self._cluster, self._fence, self._folder = service, cluster, fence, folder

    async def check(self, seen: Json | None) -> None:
        """See `Desk`."""
        for manifest in (seen, self._read()):
            _refuse_lower(self.service, self._fence, manifests.fence_of(manifest))

    async def try_out(self, seen: Json | None, predictors: list[Json]) -> None:
        """See `Desk`; whoever takes the files owns the predictors, so that is no obstacle."""
        manifest = manifests.deployment(self._cluster.namespace, self.service, 0, predictors)
        await self._cluster.apply("seldondeployments", manifest, force=True, dry_run=True)

    async def write(self, predictors: list[Json]) -> None:
        """See `Desk`."""
        self._put(manifests.deployment(self._cluster.namespace, self.service, self._fence, predictors))

    async def delete(self) -> None:
        """See `Desk`: the file then holds nothing but the fence."""
        self._put(manifests.tomb(self._cluster.namespace, self.service, self._fence))

    def _put(self, manifest: Json) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / f".{self.service}.lock"):
            _refuse_lower(self.service, self._fence, manifests.fence_of(self._read()))
            write_atomically(self._path, manifests.as_text(manifest).encode())

    def _read(self) -> Json | None:
        return manifests.read_text(self._path.read_text()) if self._path.exists() else None

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.service}.yaml"


async def kept_fence(cluster: Cluster, service: str) -> int | None:
    """The highest fence of a SeldonDeployment that was deleted; None if none ever was."""
    tomb = await cluster.get("configmaps", manifests.tomb_name(service))
    return None if tomb is None else int(tomb["data"]["fence"])


def _refuse_lower(service: str, fence: int, highest: int | None) -> None:
    if highest is not None and highest > fence:
        raise FenceTooLow(service, fence, highest)


def _guarded(patience: float) -> AsyncRetrying:
    """Once more as long as somebody, such as Seldon's operator, wrote in between, or nobody answered."""
    return AsyncRetrying(
        retry=retry_if_exception_type((Stale, TargetUnreachable)),
        stop=stop_after_delay(patience),
        wait=wait_fixed(0.1),
        reraise=True,
    )
