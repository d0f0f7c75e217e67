"""Serving on Kubernetes: a SeldonDeployment of Seldon Core v1, behind Istio."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from anyio.from_thread import start_blocking_portal
from prefect.blocks.core import Block
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from prefect_mlops.blocks import _seldon_answers as answers
from prefect_mlops.blocks import _seldon_manifest as seldon
from prefect_mlops.blocks._canonical import Label
from prefect_mlops.blocks._kubernetes import Access, Cluster, Owned, Refused
from prefect_mlops.blocks._seldon_apply import Change, Patience, dead, listed, stage_of
from prefect_mlops.blocks._seldon_desk import ClusterDesk, Desk, FileDesk, kept_fence
from prefect_mlops.blocks._seldon_look import Look
from prefect_mlops.blocks.errors import Invalid, TargetConflict, TargetRefused, TargetUnreachable
from prefect_mlops.blocks.graph import graph_of
from prefect_mlops.blocks.split import Address, Arm, Counters, Observed, Split

if TYPE_CHECKING:
    from prefect_mlops.blocks.store import Store

_T = TypeVar("_T")


class SeldonServing(Block):
    """Serves models on Kubernetes: one SeldonDeployment per service, one predictor per release.

    It reaches pods and gateway directly; where their networks are not reached, the API server passes on what it asks
    them, to who may `get` pods/proxy and services/proxy. Probes of a new release need the pods' network.
    What runs is never changed in place: new settings hold for what is started from then on.

    Example:
        ```python
        from prefect_mlops.blocks import SeldonServing
        serving = SeldonServing.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Seldon Serving"
    _block_type_slug = "seldon-serving"
    _documentation_url: ClassVar[Any] = "https://docs.prefect.io/v3/concepts/blocks"
    _description = "Serves models on Kubernetes: Seldon Core v1 behind Istio."

    namespace: str = Field(
        default="mlops", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", title="Namespace",
        description="Namespace of the SeldonDeployments; second part of every service's path.",
    )  # fmt: skip
    gateway: str = Field(
        pattern=r"^https?://[^/]+$", title="Gateway",
        description="URL of Istio's ingress gateway, such as http://istio-ingressgateway.istio-system.",
    )  # fmt: skip
    image: str = Field(
        min_length=1, title="Image", description="Image of the model server, best named by its digest, as name@sha256:…"
    )
    credentials: str | None = Field(
        default=None, title="Credentials",
        description="Block that says how the cluster is reached, as kubernetes-credentials/NAME; if empty, the "
        "service account of the pod that this runs in, else KUBECONFIG.",
    )  # fmt: skip
    secret: str = Field(default="", title="Secret", description="Secret with the keys of the store's bucket, for pods.")
    replicas: int = Field(default=1, ge=1, le=100, title="Replicas", description="Pods per release.")
    cpu: str = Field(default="250m", title="CPU", description="CPUs that a pod asks for, as Kubernetes writes them.")
    memory: str = Field(default="1Gi", title="Memory", description="Memory of a pod, as Kubernetes writes it.")
    gpus: int = Field(default=0, ge=0, le=64, title="GPUs", description="Graphics processors of a pod.")
    pull_policy: str = Field(
        default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", title="Pull policy",
        description="When the image is pulled.",
    )  # fmt: skip
    pod: dict[str, Any] = Field(
        default={}, title="Pod", description="More fields of the pod: volumes, node selector, tolerations."
    )
    container: dict[str, Any] = Field(
        default={}, title="Container", description="More fields of its container: environment, volume mounts."
    )
    start_seconds: int = Field(default=60, ge=1, title="Start seconds", description="Time for a release to get ready.")
    drain_seconds: int = Field(default=10, ge=0, title="Drain seconds", description="Time for a pod's last answers.")
    move_seconds: int = Field(default=20, ge=1, title="Move seconds", description="Time for the routes to follow.")
    manifests: Path | None = Field(
        default=None, title="Manifests",
        description="Folder that others, such as Argo CD, take the SeldonDeployments from: they are written there, "
        "and the cluster itself is only looked at. If empty, the cluster is told.",
    )  # fmt: skip
    sync_seconds: int = Field(default=300, ge=1, title="Sync seconds", description="Time for others to take them.")
    max_body_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1, le=16 * 1024 * 1024, title="Largest request",
        description="Longest request body in bytes; a longer one is answered 413.",
    )  # fmt: skip

    @field_validator("pod", "container", mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        """The log of an environment keeps them as JSON."""
        return json.loads(value) if isinstance(value, str) else value

    # --- the target's interface ----------------------------------------------------------

    def refusals(self, service: str, split: Split, store: Store) -> list[str]:
        """What of `split` it cannot do, as sentences; empty if it can. Nothing is changed.

        The API server and Seldon's webhook are asked too, by a dry run of the very manifest.

        Raises:
            TargetUnreachable: If the API server does not answer.
        """
        try:
            TypeAdapter(Label).validate_python(service)
        except ValidationError:
            return [f"a service's name is a DNS label of at most 30 characters, got {service!r}"]
        if not split.arms:
            return []
        if not split.live:
            return [f"Seldon gives a single predictor all requests, so {split} needs a live arm"]
        return self._run(lambda cluster: self._refusals(cluster, service, split, store))

    def tenable(self, service: str, split: Split) -> Split:
        """`split` without the warm arms that are there already and do not come up: they would hold up every weight."""
        if all(arm.role != "warm" for arm in split.arms):
            return split
        gone = self._run(lambda cluster: self._dead(cluster, service, split))
        return Split(arms=tuple(arm for arm in split.arms if seldon.name_of(arm) not in gone))

    def apply(self, service: str, split: Split, *, fence: int, store: Store) -> None:
        """Serve `split` from now on: start what is missing, move the traffic, end what is not needed.

        Args:
            service: The service, a DNS label.
            split: What to serve. With an empty one its SeldonDeployment is deleted.
            fence: Number of the log entry on whose behalf this is done.
            store: Holds the releases and the models.

        Raises:
            TargetRefused: If it cannot do this; see `refusals`. Nothing was changed.
            TargetConflict: If somebody else owns the predictors now. Nothing of theirs was changed.
            FenceTooLow: If a higher fence was seen. Nothing was changed.
            ArmNotReady: If a release does not come up. Traffic was not moved; apply what was there to be rid of it.
            RoutesNotMoved: If the routes do not follow in time.
            TargetUnreachable: If the API server does not answer.
        """
        self._run(lambda cluster: self._apply(cluster, service, split, fence, store))

    def render(self, service: str, split: Split, *, fence: int, store: Store) -> str:
        """The manifest that serves `split`, as YAML; the same bytes for the same split, fence and settings.

        Args:
            service: The service.
            split: What to serve.
            fence: Number of the log entry on whose behalf it is.
            store: Holds the releases.

        Raises:
            Invalid: If a release is for another service.
            ObjectMissing, ObjectDamaged, StoreUnreachable: If the store does not give a release.
        """
        if not split.arms:
            return seldon.as_text(seldon.tomb(self.namespace, service, fence))
        predictors = {seldon.name_of(arm): self._rendered(service, arm, store) for arm in split.arms}
        return seldon.as_text(seldon.deployment(self.namespace, service, fence, listed(predictors, stage_of(split))))

    def observe(self, service: str) -> Observed:
        """What is really served: the routes in place, the pods that answer, and who answers at the front door.

        Raises:
            TargetUnreachable: If the API server does not answer, or the routes are none that a split could mean.
        """
        return self._run(lambda cluster: self._observe(cluster, service))

    def address(self, service: str, release: str | None = None) -> Address:
        """Where clients send requests for `service`, or where exactly `release` is reached.

        Raises:
            TargetUnreachable: If `release` is not there, or the API server does not answer.
        """
        if release is None:
            return Address(url=self.gateway + self._path(service))
        return self._run(lambda cluster: self._address(cluster, service, release))

    def counters(self, service: str) -> Counters:
        """Answers by release since the pods that are there now were started: live ones, pinned ones and a shadow's.

        Raises:
            TargetUnreachable: If no pod answers.
        """
        return self._run(lambda cluster: self._counters(cluster, service))

    def mend(self) -> None:
        """Nothing: Kubernetes itself keeps up what was asked for."""

    def services(self) -> tuple[str, ...]:
        """Every service that it was asked to serve, and not to serve nothing since."""
        return self._run(self._services)

    def records(self) -> list[Path]:
        """None here: its pods put what they record into the store."""
        return []

    # --- how it does it ------------------------------------------------------------------

    async def _observe(self, cluster: Cluster, service: str) -> Observed:
        look = await Look.at(cluster, service)
        routes = look.split()
        ready = await answers.answering(cluster, look, routes)
        live = [arm.release for arm in routes.live]
        if live and await answers.release_at(cluster, self.gateway, self._path(service)) not in live:
            ready |= dict.fromkeys(live, 0)  # the routes say one thing, and the gateway does another
        fence = seldon.fence_of(look.manifest) if look.manifest else await kept_fence(cluster, service)
        return Observed(routes=routes, ready=ready, fence=fence)

    async def _address(self, cluster: Cluster, service: str, release: str) -> Address:
        for shadow in (False, True):
            name = f"{service}-{seldon.predictor_name(release, shadow=shadow)}"
            found = await cluster.get("services", name)
            if found is not None:
                return Address(url=f"http://{found['spec']['clusterIP']}:{seldon.HTTP_PORT}")
        raise TargetUnreachable(self._name, f"{service} has no predictor of release {release}")

    async def _counters(self, cluster: Cluster, service: str) -> Counters:
        found = await answers.counted(cluster, await Look.at(cluster, service))
        if found is None:
            raise TargetUnreachable(self._name, f"no pod of {service} answers")
        return found

    async def _services(self, cluster: Cluster) -> tuple[str, ...]:
        selector = ",".join(f"{key}={value}" for key, value in seldon.MANAGED.items())
        found = await cluster.list("seldondeployments", labelSelector=selector)
        return tuple(sorted(one["metadata"]["name"] for one in found))

    async def _refusals(self, cluster: Cluster, service: str, split: Split, store: Store) -> list[str]:
        try:
            await self._change(cluster, service, split, 0, store).refusals()
        except Owned as owned:
            return [str(self._conflict(service, owned))]
        except (Refused, Invalid) as refused:
            return [str(refused)]
        return []

    async def _dead(self, cluster: Cluster, service: str, split: Split) -> list[str]:
        return dead(await Look.at(cluster, service), split, self.start_seconds)

    async def _apply(self, cluster: Cluster, service: str, split: Split, fence: int, store: Store) -> None:
        change = self._change(cluster, service, split, fence, store)
        try:
            await (change.carry_out() if split.arms else change.desk.delete())
        except Refused as refused:
            raise TargetRefused(self._name, service, (str(refused),)) from refused
        except Owned as owned:
            raise self._conflict(service, owned) from owned

    def _conflict(self, service: str, owned: Owned) -> TargetConflict:
        return TargetConflict(self._name, service, owned.managers, owned.message)

    def _change(self, cluster: Cluster, service: str, split: Split, fence: int, store: Store) -> Change:
        desk: Desk = ClusterDesk(cluster, service, fence)
        more = 0
        if self.manifests is not None:
            desk, more = FileDesk(cluster, service, fence, self.manifests), self.sync_seconds
        patience = Patience(start=self.start_seconds + more, move=self.move_seconds + more)
        return Change(self._name, cluster, desk, split, lambda arm: self._rendered(service, arm, store), patience)

    def _rendered(self, service: str, arm: Arm, store: Store) -> seldon.Json:
        document = store.release(arm.release)
        if document.service != service:
            raise Invalid(f"release {arm.release}", f"is for {document.service}, not for", service)
        return seldon.predictor(self.namespace, service, arm, self._settings(store), graph_of(store, arm.release))

    def _settings(self, store: Store) -> seldon.PodSettings:
        names = {field.name for field in fields(seldon.PodSettings)} - {"store"}
        where = {"store": store.url, "endpoint": store.endpoint, "region": store.region}
        return seldon.PodSettings(store=where, **{name: getattr(self, name) for name in names})

    def _path(self, service: str) -> str:
        return f"/seldon/{self.namespace}/{service}"

    @property
    def _name(self) -> str:
        return f"Seldon serving in namespace {self.namespace}"

    def _access(self) -> Access:
        if self.credentials is None:
            return Access()
        from prefect_kubernetes.credentials import KubernetesCredentials

        block = cast(KubernetesCredentials, Block.load(self.credentials))
        if block.cluster_config is None:
            return Access()
        return Access(block.cluster_config.config, block.cluster_config.context_name)

    def _run(self, work: Callable[[Cluster], Awaitable[_T]]) -> _T:
        """Do some work with the cluster, from wherever this is called."""
        access = self._access()

        async def connected() -> _T:
            async with Cluster.open(access, self.namespace, patience=float(self.move_seconds)) as cluster:
                return await work(cluster)

        with start_blocking_portal() as portal:
            return portal.call(connected)
