"""Apply a recording's manifests to a real cluster, step by step, and note every change that follows."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.cluster import kube
from tests.cluster.kube import Client, Event, Json, Kind, Refused
from tests.cluster.recordings import Facts, Moment, Pods, Step

RECORDED_IN = "mlops"
_KINDS = (
    kube.SELDON_DEPLOYMENT, kube.DEPLOYMENT, kube.SERVICE, kube.VIRTUAL_SERVICE, kube.DESTINATION_RULE, kube.HPA,
    kube.PDB, kube.POD,
)  # fmt: skip
_QUIET_SECONDS, _SILENT_SECONDS, _LONGEST_SECONDS = 2.0, 20.0, 90.0


async def replay(cluster: Client, namespace: str, steps: list[Step]) -> tuple[list[str], list[list[Moment]]]:
    """Apply the steps in a namespace of their own; the answers, and for each step what followed."""
    answers: list[str] = []
    replayed: list[list[Moment]] = []
    recorded = Pods(entry for step in steps for entry in step.timeline)
    async with _namespace(cluster, namespace), _watching(cluster, namespace) as watcher:
        for step in steps:
            before = len(watcher.seen)
            answers.append(await _apply(cluster, namespace, step.apply))
            await watcher.quiet(recorded.facts(step.timeline[-1]) if step.timeline else None, recorded.sizes)
            replayed.append(watcher.moments(before))
    return answers, replayed


@asynccontextmanager
async def _namespace(cluster: Client, name: str) -> AsyncGenerator[None]:
    await cluster.create(kube.NAMESPACE, {"metadata": {"name": name}})
    account = Kind("ServiceAccount", "v1", "serviceaccounts")
    async with asyncio.timeout(30):
        while await cluster.get(account, name, "default") is None:
            await asyncio.sleep(0.05)
    try:
        yield
    finally:
        await cluster.delete(kube.NAMESPACE, "", name)


async def _apply(cluster: Client, namespace: str, manifest: Json) -> str:
    """What `kubectl apply --server-side` would say."""
    body: Json = json.loads(json.dumps(manifest).replace(f'"{RECORDED_IN}"', f'"{namespace}"'))
    try:
        kind = await cluster.kind_of(body)
        await cluster.apply(kind, body, "kubectl")
    except Refused as error:
        return _words(error).replace(namespace, RECORDED_IN)
    group = body["apiVersion"].rpartition("/")[0]
    return f"{kind.name.lower()}{group and '.' + group}/{body['metadata']['name']} serverside-applied"


def _words(error: Refused) -> str:
    """A refusal as kubectl prints it."""
    status, details = error.status, error.status.get("details") or {}
    causes = list(dict.fromkeys(f"{one.get('field', '')}: {one['message']}" for one in details.get("causes") or []))
    if status.get("reason") != "Invalid" or not causes:
        reason = f" ({status['reason']})" if status.get("reason") else ""
        return f"Error from server{reason}: {status.get('message')}"
    whole = f'The {details.get("kind", "")} "{details.get("name", "")}" is invalid: '
    return whole + (causes[0] if len(causes) == 1 else "\n" + "\n".join(f"* {one}" for one in causes))


@dataclass(frozen=True)
class _Seen:
    """One event, and when it arrived."""

    event: Event
    at: float

    @property
    def version(self) -> int:
        return int(self.event.object["metadata"]["resourceVersion"])


class _Watcher:
    """Every event of one namespace; the API server's versions put those of all kinds in one order."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.seen: list[_Seen] = []
        self.world: dict[str, Json] = {}
        self.listed = 0

    async def follow(self, cluster: Client, kind: Kind) -> None:
        """Note the events of one kind, until cancelled."""
        async for event in cluster.follow(kind, self._namespace):
            if event is None:
                self.listed += 1
            else:
                self.seen.append(_Seen(event, time.monotonic()))
                _change(self.world, event)

    async def quiet(self, wanted: Facts | None, sizes: dict[str, list[int]]) -> None:
        """Wait until the wanted facts have held for a while, or nothing happens any more."""
        began = time.monotonic()
        while time.monotonic() < began + _LONGEST_SECONDS:
            await asyncio.sleep(0.1)
            reached = wanted is None or self._facts(sizes) == wanted
            changed = max(began, self.seen[-1].at if self.seen else 0.0)
            if time.monotonic() - changed >= (_QUIET_SECONDS if reached else _SILENT_SECONDS):
                return

    def _facts(self, sizes: dict[str, list[int]]) -> Facts:
        """What holds now, with the pods in groups of these sizes."""
        pods = ({"pods": [pod]} for pod in self._pods().values())
        return Pods(pods, sizes).facts(self._renamed(_entry(self.world)))

    def _pods(self) -> dict[str, tuple[str, str]]:
        """The pods that there were, by uid, in the order in which they came: their Deployment, and a name."""
        found: dict[str, tuple[str, str]] = {}
        for one in sorted(self.seen, key=lambda one: one.version):
            meta = one.event.object["metadata"]
            if one.event.object["kind"] == "Pod" and meta["uid"] not in found:
                found[meta["uid"]] = meta["labels"]["app"], f"pod-{len(found) + 1}"
        return found

    def _renamed(self, entry: Json) -> Json:
        """An entry whose pods are called as in a recording."""
        pods = self._pods()
        return {**entry, "pods": [[*pods[uid], *state] for _, uid, *state in entry["pods"]]}

    def moments(self, before: int) -> list[Moment]:
        """What happened after the first `before` events, from the state in which they left the namespace."""
        world: dict[str, Json] = {}
        for one in sorted(self.seen[:before], key=lambda one: one.version):
            _change(world, one.event)
        found = [(_entry(world), self.seen[before - 1].at if before else 0.0, dict(world))]
        for one in sorted(self.seen[before:], key=lambda one: one.version):
            _change(world, one.event)
            entry, at = _entry(world), one.at
            if entry == found[-1][0]:
                found[-1] = (entry, found[-1][1], dict(world))
            else:
                found.append((entry, at, dict(world)))
        ends = [*(at for _, at, _ in found[1:]), time.monotonic()]
        return [
            Moment(self._renamed(entry), end - at, self._named(objects))
            for (entry, at, objects), end in zip(found, ends, strict=True)
        ]

    def _named(self, world: dict[str, Json]) -> dict[str, Json]:
        text = json.dumps({key: value for key, value in world.items() if not key.startswith("Pod/")})
        return json.loads(text.replace(self._namespace, RECORDED_IN))


@asynccontextmanager
async def _watching(cluster: Client, namespace: str) -> AsyncGenerator[_Watcher]:
    watcher = _Watcher(namespace)
    tasks = [asyncio.ensure_future(watcher.follow(cluster, kind)) for kind in _KINDS]
    try:
        async with asyncio.timeout(30):
            while watcher.listed < len(_KINDS):
                await asyncio.sleep(0.02)
        yield watcher
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _change(world: dict[str, Json], event: Event) -> None:
    key = f"{event.object['kind']}/{event.object['metadata']['name']}"
    if event.kind == "DELETED":
        world.pop(key, None)
    else:
        world[key] = event.object


# --- what an entry of a timeline says --------------------------------------------------------

_COUNTS = ("generation", "observedGeneration", "updatedReplicas", "availableReplicas")


def _entry(world: dict[str, Json]) -> Json:
    entry: Json = {"state": None, "ready": None, "pods": []}
    for one in world.values():
        match one["kind"]:
            case "SeldonDeployment":
                entry["state"], entry["ready"] = _state(one)
            case "VirtualService":
                entry |= _routes(one)
            case "Deployment":
                whole = {"generation": one["metadata"]["generation"], **one.get("status", {})}
                entry[f"deployment {one['metadata']['name']}"] = {key: whole.get(key, 0) for key in _COUNTS}
            case "Pod":
                entry["pods"].append(_pod(one))
            case _:
                pass
    return entry


def _state(sdep: Json) -> tuple[str | None, str | None]:
    status = sdep.get("status") or {}
    ready = next((one["status"] for one in status.get("conditions") or [] if one["type"] == "Ready"), None)
    return status.get("state"), ready


def _routes(virtual_service: Json) -> Json:
    name, first = virtual_service["metadata"]["name"], virtual_service["spec"]["http"][0]
    routes = [[_host(one["destination"]), one.get("weight")] for one in first["route"]]
    mirror = [_host(first["mirror"]), first.get("mirrorPercentage")] if first.get("mirror") else None
    return {f"routes {name}": routes, f"mirror {name}": mirror}


def _host(destination: Json) -> str:
    return destination["host"].partition(".")[0]


def _pod(pod: Json) -> list[Any]:
    meta = pod["metadata"]
    phase = (pod.get("status") or {}).get("phase")
    return [meta["labels"]["app"], meta["uid"], phase, bool(meta.get("deletionTimestamp"))]
