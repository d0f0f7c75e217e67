"""One pass over one SeldonDeployment: make what is missing, and move traffic only when every Deployment is ready."""

from __future__ import annotations

import copy

from tests.cluster import kube
from tests.cluster.kube import Json, Kind, Refused
from tests.cluster.operator import defaults
from tests.cluster.operator.cache import Cache
from tests.cluster.operator.completion import complete
from tests.cluster.operator.components import BeyondTheStandIn, Components, components
from tests.cluster.operator.deployments import ensure_deployments
from tests.cluster.operator.istio import NotAWholeNumber
from tests.cluster.operator.services import ensure_services
from tests.cluster.operator.status import Status
from tests.cluster.operator.work import Work

ANOTHERS = "seldon.io/controller-id"
NOT_PROGRESSING = "Deployment is no longer progressing and not available."


async def reconcile(cache: Cache, namespace: str, name: str) -> None:
    """Bring one SeldonDeployment closer to what it asks for, and write down its status.

    Raises:
        Refused: If the API server refused something; it is in the status too, unless it was a conflict.
        BeyondTheStandIn: If only the real operator can do this.
        NotAWholeNumber: If an annotation is not the number that it should be.
    """
    sdep = cache.get(kube.SELDON_DEPLOYMENT, namespace, name)
    if (
        sdep is None
        or sdep["metadata"].get("deletionTimestamp")
        or (sdep["metadata"].get("labels") or {}).get(ANOTHERS)
    ):
        return
    work = Work(cache, sdep, Status(sdep.get("status")))
    try:
        state = await _carry_out(work)
    except (Refused, BeyondTheStandIn, NotAWholeNumber) as error:
        if not (isinstance(error, Refused) and error.conflict):
            await _write_status(work, "Failed", str(error))
        raise
    await _write_status(work, state, NOT_PROGRESSING if state == "Failed" else "")


async def _carry_out(work: Work) -> str:
    """Do what can be done now; returns the state."""
    wanted = _wanted(work.sdep)
    ready = [await ensure_services(work, wanted, complete=False)]
    ready.append(await _ensure_beside(work, wanted, kube.HPA, "HPAs", wanted.hpas))
    work.status.mark("KedaReady", True, "No KEDA resources defined")
    ready.append(await _ensure_beside(work, wanted, kube.PDB, "PDBs", wanted.pdbs))
    deployed, progressing = await ensure_deployments(work, wanted)
    if not deployed:
        return "Creating" if progressing else "Failed"
    await complete(work, wanted)
    return "Available" if all(ready) else "Creating"


def _wanted(sdep: Json) -> Components:
    filled = copy.deepcopy(sdep)
    defaults.fill(filled)
    return components(filled)


async def _ensure_beside(work: Work, wanted: Components, kind: Kind, plural: str, objects: list[Json]) -> bool:
    """Make the autoscalers or the disruption budgets, and delete those of Deployments that want none."""
    ready = all([await work.ensure_spec(kind, one) for one in objects])
    named = {one["metadata"]["name"] for one in objects}
    for deployment in wanted.deployments:
        if deployment["metadata"]["name"] not in named:
            await work.delete(kind, deployment["metadata"]["name"])
    said = f"All {plural} resources ready" if objects else f"No {plural} defined"
    work.status.mark(f"{plural[:-1].capitalize()}sReady", ready, said if ready else f"{plural} not ready")
    return ready


async def _write_status(work: Work, state: str, description: str) -> None:
    work.status.state, work.status.description = state, description
    now = work.find(kube.SELDON_DEPLOYMENT, work.sdep["metadata"]["name"])
    if now is not None and Status(now.get("status")).meaning() != work.status.meaning():
        await work.cache.replace(kube.SELDON_DEPLOYMENT, {**work.sdep, "status": work.status.document()}, "status")
