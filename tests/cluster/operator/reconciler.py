"""One pass over one SeldonDeployment: make what is missing, and move traffic only when every Deployment is ready."""

from __future__ import annotations

import copy
import json

from tests.cluster import kube
from tests.cluster.kube import Kind, Refused
from tests.cluster.operator import compare, defaults, naming
from tests.cluster.operator.cache import Cache
from tests.cluster.operator.components import BeyondTheStandIn, Components, components
from tests.cluster.operator.istio import NotAWholeNumber
from tests.cluster.operator.naming import Json
from tests.cluster.operator.status import Status

LAST_APPLIED = "seldon.io/last-applied"
NOT_PROGRESSING = "Deployment is no longer progressing and not available."


async def reconcile(cache: Cache, namespace: str, name: str) -> None:
    """Bring one SeldonDeployment closer to what it asks for, and write down its status.

    Raises:
        Refused: If the API server refused something; it is in the status too, unless it was a conflict.
        BeyondTheStandIn: If only the real operator can do this.
        NotAWholeNumber: If an annotation is not the number that it should be.
    """
    sdep = cache.get(kube.SELDON_DEPLOYMENT, namespace, name)
    if sdep is not None and not sdep["metadata"].get("deletionTimestamp"):
        await _Pass(cache, sdep).run()


class _Pass:
    """What one pass knows."""

    def __init__(self, cache: Cache, sdep: Json) -> None:
        self.cache, self.sdep = cache, sdep
        self.namespace: str = sdep["metadata"]["namespace"]
        self.status = Status(sdep.get("status"))
        self.progressing = True

    async def run(self) -> None:
        try:
            ready = await self._carry_out()
        except (Refused, BeyondTheStandIn, NotAWholeNumber) as error:
            if not (isinstance(error, Refused) and error.conflict):
                self.status.state, self.status.description = "Failed", str(error)
                await self._write_status()
            raise
        self.status.state, self.status.description = ready, ""
        if ready == "Failed":
            self.status.description = NOT_PROGRESSING
        await self._write_status()

    async def _carry_out(self) -> str:
        """Do what can be done now; returns the state."""
        wanted_sdep = copy.deepcopy(self.sdep)
        defaults.fill(wanted_sdep)
        wanted = components(wanted_sdep)
        ready = [await self._services(wanted, complete=False)]
        ready.append(await self._beside(kube.HPA, "HPAs", wanted.hpas, wanted))
        self.status.mark("KedaReady", True, "No KEDA resources defined")
        ready.append(await self._beside(kube.PDB, "PDBs", wanted.pdbs, wanted))
        deployed = await self._deployments(wanted)
        if deployed:
            await self._complete(wanted)
        if deployed and all(ready):
            return "Available"
        return "Failed" if not deployed and not self.progressing else "Creating"

    async def _write_status(self) -> None:
        now = self.cache.get(kube.SELDON_DEPLOYMENT, self.namespace, self.sdep["metadata"]["name"])
        if now is not None and Status(now.get("status")).meaning() != self.status.meaning():
            await self.cache.replace(kube.SELDON_DEPLOYMENT, {**self.sdep, "status": self.status.document()}, "status")

    # --- Services ----------------------------------------------------------------------------

    async def _services(self, wanted: Components, *, complete: bool) -> bool:
        ready = True
        for service in wanted.services:
            ready = await self._service(wanted, service) and ready
        done = complete and ready
        self.status.mark("ServicesReady", done, "All services created" if done else "Not all services created")
        return ready

    async def _service(self, wanted: Components, service: Json) -> bool:
        name = service["metadata"]["name"]
        found = self.cache.get(kube.SERVICE, self.namespace, name)
        if found is None:
            await self._create(kube.SERVICE, service)
            return False
        self.status.address = wanted.address
        if compare.same_service(service, found):
            self.status.services.setdefault(name, wanted.details[name])
            return True
        if service["spec"]["selector"] != found["spec"].get("selector"):
            await self.cache.delete(kube.SERVICE, self.namespace, name, "Foreground")
            await self._create(kube.SERVICE, service)
            return False
        meta = {key: service["metadata"][key] for key in ("annotations", "labels")}
        spec = {key: service["spec"][key] for key in ("ports", "type", "sessionAffinity")}
        updated = {**found, "metadata": {**found["metadata"], **meta}, "spec": {**found["spec"], **spec}}
        return compare.same_service(service, await self.cache.replace(kube.SERVICE, updated))

    # --- what scales and what protects -------------------------------------------------------

    async def _beside(self, kind: Kind, plural: str, objects: list[Json], wanted: Components) -> bool:
        """Make the autoscalers or the disruption budgets, and delete those of Deployments that want none."""
        ready = all([await self._spec(kind, one) for one in objects])
        named = {one["metadata"]["name"] for one in objects}
        for deployment in wanted.deployments:
            name = deployment["metadata"]["name"]
            if name not in named and self.cache.get(kind, self.namespace, name):
                await self.cache.delete(kind, self.namespace, name, "Foreground")
        said = f"All {plural} resources ready" if objects else f"No {plural} defined"
        self.status.mark(f"{plural[:-1].capitalize()}sReady", ready, said if ready else f"{plural} not ready")
        return ready

    async def _spec(self, kind: Kind, wanted: Json) -> bool:
        """Make an object, or give it the wanted spec; whether it was there, and is as it was."""
        found = self.cache.get(kind, self.namespace, wanted["metadata"]["name"])
        if found is None:
            await self._create(kind, wanted)
            return False
        if found["spec"] == wanted["spec"]:
            return True
        before = found["spec"]
        return (await self.cache.replace(kind, {**found, "spec": wanted["spec"]}))["spec"] == before

    # --- Deployments -------------------------------------------------------------------------

    async def _deployments(self, wanted: Components) -> bool:
        """Whether every Deployment is there and ready; a Deployment that is not blocks all the others."""
        ready, newest = True, None
        scaled = {one["metadata"]["name"] for one in wanted.hpas}
        for deployment in wanted.deployments:
            found = await self._deployment(deployment, scaled=deployment["metadata"]["name"] in scaled)
            if found is None:
                ready = False
                continue
            self._note(found, wanted)
            available = _condition(found, "Available")
            if _waits(found):
                if ready:
                    self._mark_deployments(available)
                    self.progressing = not _both_false(available, _condition(found, "Progressing"))
                ready = False
            elif ready and (newest is None or _at(newest) < _at(available)):
                newest = available
        if ready:
            self._mark_deployments({"status": "Unknown"} if newest is None else newest)
        return ready

    async def _deployment(self, wanted: Json, *, scaled: bool) -> Json | None:
        """The Deployment as it was found, or None where it was made or changed."""
        name = wanted["metadata"]["name"]
        found = self.cache.get(kube.DEPLOYMENT, self.namespace, name)
        if found is None:
            await self._create(kube.DEPLOYMENT, _annotated(wanted))
            return None
        if wanted["spec"]["selector"] != found["spec"]["selector"]:
            await self.cache.delete(kube.DEPLOYMENT, self.namespace, name, "Foreground")
            await self._create(kube.DEPLOYMENT, wanted)
            return None
        last = json.loads((found["metadata"].get("annotations") or {}).get(LAST_APPLIED, "{}"))
        if not compare.differs(_spec(wanted, scaled), _spec(found, scaled), _spec(last, scaled)):
            return found
        updated = await self.cache.replace(kube.DEPLOYMENT, _updated(found, wanted))
        before, after = (one["spec"]["template"]["spec"] for one in (found, updated))
        return updated if compare.derives(before, after) else None

    def _note(self, found: Json, wanted: Components) -> None:
        name, now = found["metadata"]["name"], found.get("status", {})
        counts = {key: now.get(key, 0) for key in ("replicas", "availableReplicas")}
        known = self.status.deployments.get(name, {})
        if any(known.get(key, 0) != value for key, value in counts.items()):
            self.status.deployments[name] = {key: value for key, value in counts.items() if value}
            if name == wanted.first_deployment:
                self.status.replicas = counts["replicas"]

    def _mark_deployments(self, condition: Json) -> None:
        said = condition.get("reason", ""), condition.get("message", "")
        self.status.mark("DeploymentsReady", condition.get("status", ""), *said)

    # --- when everything is ready ------------------------------------------------------------

    async def _complete(self, wanted: Components) -> None:
        """Every Deployment is ready: move traffic, then delete what is wanted no more."""
        await self._services(wanted, complete=True)
        await self._istio(wanted)
        self.status.mark("AmbassadorMappingsReady", True, "No Ambassador Mappaings defined")
        named = {one["metadata"]["name"] for one in wanted.deployments}
        stale = [name for name in self.status.deployments if name not in named]
        old_services = [name for name in self.status.services if name not in wanted.details]
        for name in stale:
            await self._delete_deployment(name)
        if not stale:
            await self._delete_services(old_services, wanted)

    async def _istio(self, wanted: Components) -> None:
        every = [(kube.VIRTUAL_SERVICE, wanted.virtual_service)]
        every += [(kube.DESTINATION_RULE, one) for one in wanted.destination_rules]
        ready = all([await self._spec(kind, one) for kind, one in every])
        if ready:
            await self._delete_other_routes(wanted.virtual_service["metadata"]["name"])
        said = "All VirtualServices created" if ready else "Not all VirtualServices created"
        self.status.mark("istioVirtualServicesReady", ready, said)

    async def _delete_other_routes(self, name: str) -> None:
        for one in self.cache.list(kube.VIRTUAL_SERVICE, self.namespace):
            owners = {owner["uid"] for owner in one["metadata"].get("ownerReferences", [])}
            if self.sdep["metadata"]["uid"] in owners and one["metadata"]["name"] != name:
                await self.cache.delete(kube.VIRTUAL_SERVICE, self.namespace, one["metadata"]["name"], "Foreground")

    async def _delete_deployment(self, name: str) -> None:
        if self.cache.get(kube.DEPLOYMENT, self.namespace, name) is None:
            del self.status.deployments[name]
            return
        await self.cache.delete(kube.DEPLOYMENT, self.namespace, name, "Foreground")
        for kind in (kube.HPA, kube.PDB):
            await self.cache.delete(kind, self.namespace, name, "Foreground")

    async def _delete_services(self, old: list[str], wanted: Components) -> None:
        for name in old:
            self.status.services.pop(name)
            await self.cache.delete(kube.SERVICE, self.namespace, name)
        mine = naming.deployment_id(self.sdep)
        for one in self.cache.list(kube.SERVICE, self.namespace):
            labels = one["metadata"].get("labels") or {}
            if labels.get("seldon-deployment-id") == mine and one["metadata"]["name"] not in wanted.details:
                await self.cache.delete(kube.SERVICE, self.namespace, one["metadata"]["name"])

    async def _create(self, kind: Kind, wanted: Json) -> None:
        owner = {
            "apiVersion": self.sdep["apiVersion"],
            "kind": self.sdep["kind"],
            "name": self.sdep["metadata"]["name"],
            "uid": self.sdep["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        await self.cache.create(kind, {**wanted, "metadata": {**wanted["metadata"], "ownerReferences": [owner]}})


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
    spec = deployment.get("spec", {})
    return {key: value for key, value in spec.items() if key != "replicas"} if scaled else spec


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
