"""What Seldon and Kubernetes made of a SeldonDeployment: what is routed, what is up, and what is in the way.

`status.state` of a SeldonDeployment proves nothing: it says Available before the routes are there, and never which
generation it speaks of. So what was made of it is looked at: Deployments, pods, and the VirtualService.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from prefect_mlops.blocks._kubernetes import Cluster
from prefect_mlops.blocks._seldon_manifest import CONTAINER, RELEASE, SPEC, Json, release_of
from prefect_mlops.blocks.errors import TargetUnreachable
from prefect_mlops.blocks.split import Split

_HOPELESS = {"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"}
_TRY_AGAIN = 75  # EX_TEMPFAIL: what the model server says while its store cannot be reached
_WRONG = 78  # EX_CONFIG: what it says when what it shall serve is wrong


@dataclass(frozen=True)
class Trouble:
    """What keeps a predictor from being ready, and whether waiting could help."""

    words: str
    hopeless: bool = False


@dataclass(frozen=True)
class Look:
    """Everything that there is of one service at a moment.

    Attributes:
        service: The service.
        manifest: Its SeldonDeployment, or None.
        routing: Its VirtualService, or None.
        deployments: Its Deployments, also those that are on their way out.
        pods: Their pods.
    """

    service: str
    manifest: Json | None
    routing: Json | None
    deployments: list[Json]
    pods: list[Json]

    @classmethod
    async def at(cls, cluster: Cluster, service: str) -> Look:
        """Look now; raises TargetUnreachable if the API server does not answer."""
        selector = f"seldon-deployment-id={service}"
        # The SeldonDeployment is read first: what is older than it could otherwise be taken for its work.
        manifest = await cluster.get("seldondeployments", service)
        found = await asyncio.gather(
            cluster.get("virtualservices", service),
            cluster.list("deployments", labelSelector=selector),
            cluster.list("pods", labelSelector=selector),
        )
        return cls(service, manifest, *found)

    @cached_property
    def predictors(self) -> dict[str, Json]:
        """The predictors that are asked for, by name, in their order."""
        if self.manifest is None:
            return {}
        return {one["name"]: one for one in self.manifest["spec"].get("predictors") or ()}

    @cached_property
    def weights(self) -> dict[str, int]:
        """Percent of the requests that each predictor is routed, where it is more than none."""
        routes = self._http.get("route") or []
        if len(routes) == 1:  # a single destination gets everything, whatever its weight
            return {_subset(routes[0]["destination"]): 100}
        return {_subset(one["destination"]): int(one["weight"]) for one in routes if one.get("weight")}

    @cached_property
    def mirror(self) -> tuple[str, int] | None:
        """The predictor that gets copies, and of how many percent of the requests."""
        if not self._http.get("mirror"):
            return None
        percent = (self._http.get("mirrorPercentage") or {}).get("value", 100)
        return _subset(self._http["mirror"]), int(percent)

    @property
    def _http(self) -> Json:
        if self.manifest is None or self.routing is None:
            return {}
        return (self.routing["spec"].get("http") or [{}])[0]

    def split(self) -> Split:
        """What the routes carry out, in releases.

        Raises:
            TargetUnreachable: If they lead to what is none of ours, or say what no split can.
        """
        arms = [self._arm(name, "live", percent) for name, percent in self.weights.items()]
        if self.mirror is not None:
            name, percent = self.mirror
            arms.append(self._arm(name, "shadow", percent))
        routed = {arm["release"] for arm in arms}
        for name, one in self.predictors.items():
            if not one.get("shadow") and name not in self.weights and release_of(one) not in routed:
                arms.append(self._arm(name, "warm", 0))
        try:
            return Split.model_validate({"arms": arms})
        except ValidationError as error:
            raise TargetUnreachable(self._where, f"its routes say what no split can: {arms} ({error})") from error

    def _arm(self, name: str, role: str, percent: int) -> Json:
        release = self._releases.get(name)
        if release is None:
            reason = f"requests are routed to predictor {name!r}, which is no release of ours"
            raise TargetUnreachable(self._where, reason)
        return {"release": release, "role": role, "percent": percent}

    @property
    def _where(self) -> str:
        return f"the SeldonDeployment {self.service}"

    @cached_property
    def _releases(self) -> dict[str, str]:
        """The release of each predictor, also of those that are on their way out."""
        going = {_version(one): _annotation(one, RELEASE) for one in self.deployments}
        asked = {name: release_of(one) for name, one in self.predictors.items()}
        return {name: release for name, release in (going | asked).items() if release}

    def deployments_of(self, name: str) -> list[Json]:
        """The Deployments of a predictor."""
        return [one for one in self.deployments if _version(one) == name]

    def pods_of(self, name: str) -> list[Json]:
        """The pods of a predictor that hold its model and are not on their way out."""
        pods = self._all_pods_of(name)
        return [pod for pod in pods if any(one["name"] == CONTAINER for one in pod["spec"]["containers"])]

    def _all_pods_of(self, name: str) -> list[Json]:
        pods = (pod for pod in self.pods if _version(pod) == name)
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def answers(self, name: str) -> bool:
        """Whether any pod of a predictor is ready."""
        return any(_is_ready(pod) for pod in self.pods_of(name))

    def is_up(self, name: str) -> bool:
        """Whether every Deployment of a predictor is as it is asked for, and available."""
        return self.lacks(name) is None

    def lacks(self, name: str) -> str | None:
        """What a predictor lacks to be up, in words; None where it is."""
        if name not in self.predictors:
            return "the cluster was not told of it"
        wanted, found = self._spec(name), self.deployments_of(name)
        if not found:
            return f"Seldon's operator made no Deployment for it; {self._failure() or 'is the operator running?'}"
        for one in found:
            if _annotation(one, SPEC) != wanted:
                return (
                    f"Deployment {one['metadata']['name']} is not yet as it is asked for; is Seldon's operator running?"
                )
            status, replicas = one.get("status") or {}, one["spec"].get("replicas", 1)
            if status.get("observedGeneration", 0) < one["metadata"]["generation"]:
                return f"Deployment {one['metadata']['name']} was not looked at yet by its controller"
            counts = [status.get(count, 0) for count in ("replicas", "updatedReplicas", "availableReplicas")]
            if counts != [replicas] * 3:
                return f"Deployment {one['metadata']['name']} has {counts[2]} of {replicas} pods available"
        return None

    def troubles(self, name: str) -> Iterator[Trouble]:
        """What is in the way of a predictor that is asked for, as far as Deployments and pods say."""
        for one in self.deployments_of(name):
            for condition in (one.get("status") or {}).get("conditions") or ():
                if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                    yield Trouble(str(condition.get("message")), hopeless=True)
        for pod in self._all_pods_of(name):
            if _annotation(pod, SPEC) == self._spec(name):  # else it is of what was asked for before
                yield from _pod_troubles(pod)

    def _failure(self) -> str:
        """Why the operator gave up on the whole of it, in its words, which may be about another predictor."""
        said = (self.manifest or {}).get("status") or {}
        return f"it says: {said['description']}" if said.get("state") == "Failed" and said.get("description") else ""

    def _spec(self, name: str) -> str | None:
        return (self.predictors.get(name, {}).get("annotations") or {}).get(SPEC)


def _pod_troubles(pod: Json) -> Iterator[Trouble]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            more = "; a new release needs room beside the one that answers" if "nsufficient" in str(condition) else ""
            yield Trouble(f"pod {name} has no node: {condition.get('message') or condition.get('reason')}{more}")
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        yield from _container_troubles(name, container)


def _container_troubles(pod: str, container: Json) -> Iterator[Trouble]:
    where = f"container {container['name']} of pod {pod}"
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    if reason in _HOPELESS:
        yield Trouble(f"{where}: {reason}: {waiting.get('message') or 'no message'}", hopeless=True)
    ended = _ended(container)
    if ended is None:
        return
    if ended.get("reason") == "OOMKilled":
        yield Trouble(f"{where} was killed for want of memory; give its pods more `memory`", hopeless=True)
        return
    code = ended.get("exitCode")
    again = reason == "CrashLoopBackOff" and code != _TRY_AGAIN
    yield Trouble(f"{where} ended with status {code}", hopeless=again or code == _WRONG)


def _ended(container: Json) -> Json | None:
    """How a container that is not running, or did not stay up, last ended."""
    states: list[Any] = [container.get("state") or {}, container.get("lastState") or {}]
    return next((state["terminated"] for state in states if state.get("terminated")), None)


def _version(thing: Json) -> str:
    return str((thing["metadata"].get("labels") or {}).get("version", ""))


def _annotation(thing: Json, key: str) -> str | None:
    return (thing["metadata"].get("annotations") or {}).get(key)


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _subset(destination: Json) -> str:
    return str(destination["subset"])
