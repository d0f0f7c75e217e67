"""What waits until every Deployment is ready: traffic moves, and what is wanted no more goes."""

from __future__ import annotations

from tests.cluster import kube
from tests.cluster.operator import naming
from tests.cluster.operator.components import Components
from tests.cluster.operator.services import ensure_services
from tests.cluster.operator.work import Work


async def complete(work: Work, wanted: Components) -> None:
    """Move traffic, then delete the Deployments that are wanted no more, and, once they are gone, their Services."""
    await ensure_services(work, wanted, complete=True)
    await _move_traffic(work, wanted)
    work.status.mark("AmbassadorMappingsReady", True, "No Ambassador Mappaings defined")
    named = {one["metadata"]["name"] for one in wanted.deployments}
    stale = [name for name in work.status.deployments if name not in named]
    for name in stale:
        await _delete_deployment(work, name)
    if not stale:
        await _delete_services(work, wanted)


async def _move_traffic(work: Work, wanted: Components) -> None:
    every = [(kube.VIRTUAL_SERVICE, wanted.virtual_service)]
    every += [(kube.DESTINATION_RULE, one) for one in wanted.destination_rules]
    ready = all([await work.ensure_spec(kind, one) for kind, one in every])
    if ready:
        await _delete_other_routes(work, wanted.virtual_service["metadata"]["name"])
    said = "All VirtualServices created" if ready else "Not all VirtualServices created"
    work.status.mark("istioVirtualServicesReady", ready, said)


async def _delete_other_routes(work: Work, name: str) -> None:
    for one in work.cache.list(kube.VIRTUAL_SERVICE, work.namespace):
        owners = {owner["uid"] for owner in one["metadata"].get("ownerReferences", [])}
        if work.sdep["metadata"]["uid"] in owners and one["metadata"]["name"] != name:
            await work.delete(kube.VIRTUAL_SERVICE, one["metadata"]["name"])


async def _delete_deployment(work: Work, name: str) -> None:
    if work.find(kube.DEPLOYMENT, name) is None:
        del work.status.deployments[name]
        return
    for kind in (kube.DEPLOYMENT, kube.HPA, kube.PDB):
        await work.delete(kind, name)


async def _delete_services(work: Work, wanted: Components) -> None:
    for name in [name for name in work.status.services if name not in wanted.details]:
        del work.status.services[name]
        await work.cache.delete(kube.SERVICE, work.namespace, name)
    mine = naming.deployment_id(work.sdep)
    for one in work.cache.list(kube.SERVICE, work.namespace):
        labels = one["metadata"].get("labels") or {}
        if labels.get("seldon-deployment-id") == mine and one["metadata"]["name"] not in wanted.details:
            await work.cache.delete(kube.SERVICE, work.namespace, one["metadata"]["name"])
