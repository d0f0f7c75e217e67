"""Serving on Kubernetes: a SeldonDeployment of Seldon Core v1, behind Istio."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import httpx
from anyio.from_thread import start_blocking_portal
from prefect.blocks.core import Block
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from prefect_mlops.blocks import _seldon_manifest as seldon
from prefect_mlops.blocks._canonical import Label
from prefect_mlops.blocks._kubernetes import Access, Cluster, Json, Owned, Refused
from prefect_mlops.blocks._seldon_desk import ClusterDesk, Desk, FileDesk, kept_fence
from prefect_mlops.blocks._seldon_look import Look
from prefect_mlops.blocks._seldon_path import Stage, Standing, path
from prefect_mlops.blocks.errors import (
    ArmNotReady,
    Invalid,
    RoutesNotMoved,
    TargetConflict,
    TargetRefused,
    TargetUnreachable,
)
from prefect_mlops.blocks.graph import graph_of
from prefect_mlops.blocks.split import Address, Arm, Counters, Observed, Split

if TYPE_CHECKING:
    from prefect_mlops.blocks.store import Store

logger = logging.getLogger("prefect_mlops")

POLL_SECONDS = 0.1
ANSWER_SECONDS = 2.0
_T = TypeVar("_T")


class SeldonServing(Block):
    """Serves models on Kubernetes: one SeldonDeployment per service, one predictor per release.

    It reaches pods and gateway directly, so it is used from inside the cluster, or from where its networks are reached.
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
        dead = self._run(lambda cluster: self._dead_now(cluster, service, split))
        return Split(arms=tuple(arm for arm in split.arms if seldon.name_of(arm) not in dead))

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
        return seldon.as_text(
            seldon.deployment(self.namespace, service, fence, self._listed(predictors, _stage(split)))
        )

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
            return Address(url=f"{self.gateway}/seldon/{self.namespace}/{service}")
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

    # --- looking -------------------------------------------------------------------------

    async def _observe(self, cluster: Cluster, service: str) -> Observed:
        look = await Look.at(cluster, service)
        routes = look.split()
        ready, front = await asyncio.gather(
            self._answering(look, routes), self._front_door(service) if routes.live else _nobody()
        )
        live = {arm.release for arm in routes.live}
        if live and front not in live:  # the routes say one thing, and the gateway does another
            ready |= dict.fromkeys(live, 0)
        fence = seldon.fence_of(look.manifest)
        if look.manifest is None:
            fence = await kept_fence(cluster, service)
        return Observed(routes=routes, ready=ready, fence=fence)

    async def _answering(self, look: Look, routes: Split) -> dict[str, int]:
        counts = await asyncio.gather(*(self._ready(look, arm) for arm in routes.arms))
        return dict(zip(routes.releases, counts, strict=True))

    async def _ready(self, look: Look, arm: Arm) -> int:
        """How many pods of an arm answer right now, with its release."""
        pods = look.pods_of(seldon.name_of(arm))
        pages = await asyncio.gather(*(_page(_pod_url(pod, "/ready")) for pod in pods if _ip(pod)))
        return sum(page.get("release") == arm.release for page in pages)

    async def _front_door(self, service: str) -> str | None:
        """The release that answers a client now."""
        return (await _page(f"{self.gateway}/seldon/{self.namespace}/{service}/ready")).get("release")

    async def _address(self, cluster: Cluster, service: str, release: str) -> Address:
        for shadow in (False, True):
            name = f"{service}-{seldon.predictor_name(release, shadow=shadow)}"
            found = await cluster.get("services", name)
            if found is not None:
                return Address(url=f"http://{found['spec']['clusterIP']}:{seldon.HTTP_PORT}")
        raise TargetUnreachable(self._name, f"{service} has no predictor of release {release}")

    async def _counters(self, cluster: Cluster, service: str) -> Counters:
        look = await Look.at(cluster, service)
        pods = [pod for name in look.predictors for pod in look.pods_of(name) if _ip(pod)]
        pages = [page for page in await asyncio.gather(*(_page(_pod_url(pod, "/counters")) for pod in pods)) if page]
        if not pages:
            raise TargetUnreachable(self._name, f"no pod of {service} answers")
        requests, errors = ({page["release"]: 0 for page in pages} for _ in range(2))
        for page in pages:
            requests[page["release"]] += page["requests"]
            errors[page["release"]] += page["errors"]
        return Counters(start=" ".join(sorted(str(page["start"]) for page in pages)), requests=requests, errors=errors)

    async def _services(self, cluster: Cluster) -> tuple[str, ...]:
        selector = ",".join(f"{key}={value}" for key, value in seldon.MANAGED.items())
        found = await cluster.list("seldondeployments", labelSelector=selector)
        return tuple(sorted(one["metadata"]["name"] for one in found))

    # --- the steps of apply --------------------------------------------------------------

    async def _refusals(self, cluster: Cluster, service: str, split: Split, store: Store) -> list[str]:
        desk = self._desk(cluster, service, 0)
        try:
            look = await Look.at(cluster, service)
            await desk.try_out(look.manifest, self._listed(self._predictors(look, split, store), _stage(split)))
        except (Refused, Owned, Invalid) as refused:
            return [str(refused.message if isinstance(refused, Owned) else refused)]
        return []

    async def _apply(self, cluster: Cluster, service: str, split: Split, fence: int, store: Store) -> None:
        desk = self._desk(cluster, service, fence)
        try:
            await (self._serve(cluster, desk, split, store) if split.arms else desk.delete())
        except Refused as refused:
            raise TargetRefused(self._name, service, (str(refused),)) from refused
        except Owned as owned:
            raise TargetConflict(self._name, service, owned.managers, owned.message) from owned

    def _desk(self, cluster: Cluster, service: str, fence: int) -> Desk:
        if self.manifests is None:
            return ClusterDesk(cluster, service, fence)
        return FileDesk(cluster, service, fence, self.manifests)

    async def _serve(self, cluster: Cluster, desk: Desk, split: Split, store: Store) -> None:
        look = await Look.at(cluster, desk.service)
        wanted = _stage(split)
        standing = _standing(look)
        if dead := self._dead(look, wanted):
            words = ", ".join(dead)
            logger.warning("%s: %s does not come up and would hold up every weight; it is dropped", desk.service, words)
            wanted = Stage({name: one for name, one in wanted.percents.items() if name not in dead}, wanted.shadows)
        predictors = self._predictors(look, split, store)
        for stage in path(standing, wanted):
            await desk.write(self._listed(predictors, stage))
            await self._wait_up(cluster, desk, split, [name for name in stage.percents if name in wanted.percents])
            await self._wait_moved(cluster, desk.service, stage)

    def _predictors(self, look: Look, split: Split, store: Store) -> dict[str, Json]:
        """Every predictor that is there or in the split: those that answer as they are, others as they are started."""
        arms = {seldon.name_of(arm): arm for arm in split.arms}
        new = {name: arm for name, arm in arms.items() if name not in look.predictors or not look.answers(name)}
        return look.predictors | {name: self._rendered(look.service, arm, store) for name, arm in new.items()}

    def _rendered(self, service: str, arm: Arm, store: Store) -> Json:
        document = store.release(arm.release)
        if document.service != service:
            raise Invalid(f"release {arm.release}", f"is for {document.service}, not for", service)
        return seldon.predictor(self.namespace, service, arm, self._settings(store), graph_of(store, arm.release))

    def _settings(self, store: Store) -> seldon.PodSettings:
        names = ("image", "replicas", "cpu", "memory", "gpus", "secret", "pull_policy", "start_seconds", "pod")
        names += ("drain_seconds", "max_body_bytes", "container")
        where = {"store": store.url, "endpoint": store.endpoint, "region": store.region}
        return seldon.PodSettings(store=where, **{name: getattr(self, name) for name in names})

    def _listed(self, predictors: dict[str, Json], stage: Stage) -> list[Json]:
        """The list of a stage, in its order."""
        return [{**predictors[name], "traffic": percent} for name, percent in stage.percents.items()]

    async def _dead_now(self, cluster: Cluster, service: str, split: Split) -> list[str]:
        return self._dead(await Look.at(cluster, service), _stage(split))

    def _dead(self, look: Look, wanted: Stage) -> list[str]:
        """Warm predictors that are there, and do not come up."""
        return [
            name
            for name, percent in wanted.percents.items()
            if not percent and name in look.predictors and not look.is_up(name) and self._is_dead(look, name)
        ]

    def _is_dead(self, look: Look, name: str) -> bool:
        born = [datetime.fromisoformat(one["metadata"]["creationTimestamp"]) for one in look.deployments_of(name)]
        old = bool(born) and (datetime.now(UTC) - max(born)).total_seconds() > self.start_seconds
        return old or any(trouble.hopeless for trouble in look.troubles(name))

    async def _wait_up(self, cluster: Cluster, desk: Desk, split: Split, names: list[str]) -> None:
        """Wait until the predictors `names` are up and their pods answer with their releases."""
        began = time.monotonic()
        arms = {seldon.name_of(arm): arm for arm in split.arms}
        while True:
            look = await Look.at(cluster, desk.service)
            await desk.check(look.manifest)
            missing = [name for name in names if not look.is_up(name) or not await self._ready(look, arms[name])]
            if not missing:
                return
            waited = time.monotonic() - began
            for name in missing:
                hopeless = any(trouble.hopeless for trouble in look.troubles(name))
                if hopeless or waited > self.start_seconds + self._sync:
                    words = await self._last_words(cluster, look, name)
                    raise ArmNotReady(desk.service, arms[name].release, waited, words)
            await asyncio.sleep(POLL_SECONDS)

    async def _wait_moved(self, cluster: Cluster, service: str, stage: Stage) -> None:
        """Wait until the routes are those of `stage`."""
        began = time.monotonic()
        while True:
            look = await Look.at(cluster, service)
            if look.weights == stage.weights and look.mirror == stage.mirror:
                return
            waited = time.monotonic() - began
            if waited > self.move_seconds + self._sync:
                down = [f"{name}: {lacks}" for name in look.predictors if (lacks := look.lacks(name))]
                why = "; ".join(down) or "every predictor is up, so Seldon's operator did not act; is it running?"
                raise RoutesNotMoved(self._name, service, waited, str(look.split()), why)
            await asyncio.sleep(POLL_SECONDS)

    async def _last_words(self, cluster: Cluster, look: Look, name: str) -> str:
        """Why a predictor is not up: what is in the way, its pods' last events and log lines."""
        words = [trouble.words for trouble in look.troubles(name)] or [look.lacks(name) or "its pods do not answer"]
        for pod in look.pods_of(name)[:1]:
            pod_name = pod["metadata"]["name"]
            events = await cluster.list("events", fieldSelector=f"involvedObject.name={pod_name}")
            words += [str(event.get("message")) for event in events if event.get("type") == "Warning"][-3:]
            lines = [
                await cluster.last_lines(pod_name, seldon.CONTAINER, previous=previous) for previous in (True, False)
            ]
            words += [" / ".join(text.split("\n")).strip(" /") for text in lines if text.strip()][:1]
        return "; ".join(dict.fromkeys(" ".join(word.split()) for word in words))[:1500]

    # --- what it is made of --------------------------------------------------------------

    @property
    def _sync(self) -> int:
        return 0 if self.manifests is None else self.sync_seconds

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


def _stage(split: Split) -> Stage:
    shadows = frozenset(seldon.name_of(arm) for arm in split.arms if arm.role == "shadow")
    return Stage(seldon.weights(split), shadows)


def _standing(look: Look) -> list[Standing]:
    return [
        Standing(
            name,
            look.weights.get(name, 0),
            answers=look.answers(name),
            is_up=look.is_up(name),
            is_shadow=bool(one.get("shadow")),
        )
        for name, one in look.predictors.items()
    ]


def _ip(pod: Json) -> str:
    return str((pod.get("status") or {}).get("podIP") or "")


def _pod_url(pod: Json, path: str) -> str:
    ip = _ip(pod)
    return f"http://{f'[{ip}]' if ':' in ip else ip}:{seldon.HTTP_PORT}{path}"


async def _page(url: str) -> Json:
    """A page of a model server as JSON; empty where it does not answer with one."""
    try:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            answer = await client.get(url)
        found = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


async def _nobody() -> None:
    return None
