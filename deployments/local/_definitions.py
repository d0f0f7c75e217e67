"""What `prefect.yaml` defines, put on a Prefect server: the work pool, the deployments, the automations."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from importlib import metadata, resources
from typing import Any

import yaml
from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from pydantic import TypeAdapter

_TRIGGERS: TypeAdapter[list[DeploymentTriggerTypes]] = TypeAdapter(list[DeploymentTriggerTypes])


def text() -> str:
    """The file `prefect.yaml`, as it is installed."""
    return resources.files("prefect_mlops.deployments.local").joinpath("prefect.yaml").read_text()


def fingerprint() -> str:
    """Differs whenever another version, or another text of the flows, would put other things on the server."""
    flows = sorted(resources.files("prefect_mlops.flows").iterdir(), key=lambda one: one.name)
    texts = [text(), *(one.read_text() for one in flows if one.name.endswith(".py"))]
    return hashlib.sha256("\0".join([metadata.version("prefect-mlops"), *texts]).encode()).hexdigest()


def apply() -> None:
    """Put everything on the server that the current settings name, as it is defined.

    What people set on a deployment that is there already is kept: its parameters, and its schedules.
    """
    definitions = yaml.safe_load(text())
    with get_client(sync_client=True) as client:
        _ensure_work_pool(client, definitions["definitions"]["work_pool"]["name"])
        for deployment in definitions["deployments"]:
            _deploy(client, deployment)
        for automation in definitions["automations"]:
            _replace(client, AutomationCore.model_validate(automation))


def _ensure_work_pool(client: SyncPrefectClient, name: str) -> None:
    template = ProcessWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _deploy(client: SyncPrefectClient, wanted: dict[str, Any]) -> None:
    flow = load_flow_from_entrypoint(wanted["entrypoint"])
    schema = parameter_schema(flow).model_dump(exclude_unset=True)
    kept = _kept(client, f"{flow.name}/{wanted['name']}")
    schedules = {one["slug"]: _schedule(one) for one in wanted.get("schedules", [])}
    deployment = client.create_deployment(
        client.create_flow_from_name(flow.name),
        wanted["name"],
        entrypoint=wanted["entrypoint"],
        pull_steps=[],
        description=wanted["description"],
        tags=wanted["tags"],
        parameters={**wanted["parameters"], **_known(schema, kept.parameters if kept else {})},
        parameter_openapi_schema=schema,
        enforce_parameter_schema=True,
        schedules=[*{**schedules, **(_schedules(kept) if kept else {})}.values()],
        work_pool_name=wanted["work_pool"]["name"],
        job_variables=wanted["work_pool"]["job_variables"],
        version=flow.version,
    )
    for trigger in _TRIGGERS.validate_python(wanted.get("triggers", [])):
        trigger.set_deployment_id(deployment)
        _replace(client, trigger.as_automation())


def _kept(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    """The deployment as people left it."""
    with suppress(ObjectNotFound):
        return client.read_deployment_by_name(name)
    return None


def _known(schema: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that the flow still takes."""
    return {name: value for name, value in parameters.items() if name in schema["properties"]}


def _schedules(kept: DeploymentResponse) -> dict[str, DeploymentScheduleCreate]:
    """Every schedule as it was left, by its name in `prefect.yaml`, or where it has none by its number."""
    return {
        one.slug or str(one.id): DeploymentScheduleCreate(
            schedule=one.schedule, slug=one.slug, active=one.active, parameters=one.parameters
        )
        for one in kept.schedules
    }


def _schedule(wanted: dict[str, Any]) -> DeploymentScheduleCreate:
    if cron := wanted.get("cron"):
        schedule = CronSchedule(cron=cron, timezone=wanted["timezone"])
    else:
        schedule = IntervalSchedule(interval=wanted["interval"])
    return DeploymentScheduleCreate(schedule=schedule, slug=wanted["slug"], active=wanted.get("active", True))


def _replace(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Have exactly one automation of that name; a deployment that was deleted leaves its own behind."""
    for old in client.read_automations_by_name(automation.name):
        client.delete_automation(old.id)
    client.create_automation(automation)
