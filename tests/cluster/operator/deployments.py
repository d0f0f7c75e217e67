"""The Deployments of a SeldonDeployment, and whether all of them are ready: one that is not blocks the others."""

from __future__ import annotations

import copy
import json

from tests.cluster import kube
from tests.cluster.kube import Json
from tests.cluster.operator import compare
from tests.cluster.operator.components import Components
from tests.cluster.operator.work import Work

LAST_APPLIED = "seldon.io/last-applied"


async def ensure_deployments(work: Work, wanted: Components) -> tuple[bool, bool]:
    """Make or change them; whether every one is ready, and whether they still make progress."""
    scaled = {one["metadata"]["name"] for one in wanted.hpas}
    ready, progressing, newest = True, True, None
    for deployment in wanted.deployments:
        found = await _ensure(work, deployment, scaled=deployment["metadata"]["name"] in scaled)
        if found is None:
            ready = False
            continue
        _note(work, found, wanted)
        available = _condition(found, "Available")
        if _waits(found):
            if ready:
                _mark(work, available)
                progressing = not _both_false(available, _condition(found, "Progressing"))
            ready = False
        elif newest is None or _at(newest) < _at(available):
            newest = available
    if ready:
        _mark(work, {"status": "Unknown"} if newest is None else newest)
    return ready, progressing


async def _ensure(work: Work, wanted: Json, *, scaled: bool) -> Json | None:
    """The Deployment as it was found, or None where it was made or its pods will be replaced."""
    name = wanted["metadata"]["name"]
    found = work.find(kube.DEPLOYMENT, name)
    if found is None:
        await work.create(kube.DEPLOYMENT, _annotated(wanted))
        return None
    if wanted["spec"]["selector"] != found["spec"]["selector"]:
        await work.delete(kube.DEPLOYMENT, name)
        await work.create(kube.DEPLOYMENT, wanted)
        return None
    last = json.loads((found["metadata"].get("annotations") or {}).get(LAST_APPLIED, "{}"))
    if not compare.differs(_spec(wanted, scaled), _spec(found, scaled), _spec(last, scaled)):
        return found
    updated = await work.cache.replace(kube.DEPLOYMENT, _updated(found, wanted))
    before, after = (one["spec"]["template"]["spec"] for one in (found, updated))
    return updated if compare.derives(before, after) else None


def _annotated(wanted: Json) -> Json:
    made = copy.deepcopy(wanted)
    made["metadata"]["annotations"][LAST_APPLIED] = json.dumps(wanted, separators=(",", ":"))
    return made


def _updated(found: Json, wanted: Json) -> Json:
    made = _annotated(wanted)
    meta = {**found["metadata"], **{key: made["metadata"][key] for key in ("labels", "annotations")}}
    kept = {"replicas": found["spec"].get("replicas")} if "replicas" not in wanted["spec"] else {}
    return {**found, "metadata": meta, "spec": {**wanted["spec"], **kept}}


def _spec(deployment: Json, scaled: bool) -> Json:
    """What of a Deployment is compared: how many replicas it has is the autoscaler's affair."""
    spec = deployment.get("spec", {})
    return {key: value for key, value in spec.items() if key != "replicas"} if scaled else spec


def _note(work: Work, found: Json, wanted: Components) -> None:
    name, now = found["metadata"]["name"], found.get("status", {})
    counts = {key: now.get(key, 0) for key in ("replicas", "availableReplicas")}
    known = work.status.deployments.get(name, {})
    if any(known.get(key, 0) != value for key, value in counts.items()):
        work.status.deployments[name] = {key: value for key, value in counts.items() if value}
        if name == wanted.first_deployment:
            work.status.replicas = counts["replicas"]


def _mark(work: Work, condition: Json) -> None:
    said = condition.get("reason", ""), condition.get("message", "")
    work.status.mark("DeploymentsReady", condition.get("status", ""), *said)


def _waits(deployment: Json) -> bool:
    status = deployment.get("status", {})
    return not status.get("readyReplicas") or bool(status.get("unavailableReplicas"))


def _condition(deployment: Json, name: str) -> Json:
    conditions = deployment.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == name), {})


def _both_false(*conditions: Json) -> bool:
    return all(one.get("status") == "False" for one in conditions)


def _at(condition: Json) -> str:
    return condition.get("lastTransitionTime", "")
