"""The Services of a SeldonDeployment."""

from __future__ import annotations

from tests.cluster import kube
from tests.cluster.kube import Json
from tests.cluster.operator import compare
from tests.cluster.operator.components import Components
from tests.cluster.operator.work import Work


async def ensure_services(work: Work, wanted: Components, *, complete: bool) -> bool:
    """Make or mend them; whether all were there already, which only a complete pass says in the status."""
    ready = True
    for service in wanted.services:
        ready = await _ensure(work, wanted, service) and ready
    done = complete and ready
    work.status.mark("ServicesReady", done, "All services created" if done else "Not all services created")
    return ready


async def _ensure(work: Work, wanted: Components, service: Json) -> bool:
    name = service["metadata"]["name"]
    found = work.find(kube.SERVICE, name)
    if found is None:
        await work.create(kube.SERVICE, service)
        return False
    work.status.address = wanted.address
    if compare.same_service(service, found):
        work.status.services.setdefault(name, wanted.details[name])
        return True
    if service["spec"]["selector"] != found["spec"].get("selector"):
        await work.delete(kube.SERVICE, name)
        await work.create(kube.SERVICE, service)
        return False
    updated = await work.cache.replace(kube.SERVICE, _mended(found, service))
    return compare.same_service(service, updated)


def _mended(found: Json, wanted: Json) -> Json:
    meta = {key: wanted["metadata"][key] for key in ("annotations", "labels")}
    spec = {key: wanted["spec"][key] for key in ("ports", "type", "sessionAffinity")}
    return {**found, "metadata": {**found["metadata"], **meta}, "spec": {**found["spec"], **spec}}
