"""What `prefect.yaml` defines, put on a Prefect server: the work pool, the deployments, the automations."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import ObjectAlreadyExists
from pydantic import TypeAdapter

_TRIGGERS: TypeAdapter[list[DeploymentTriggerTypes]] = TypeAdapter(list[DeploymentTriggerTypes])


def text() -> str:
    """The file `prefect.yaml`, as it is installed."""
    return resources.files("prefect_mlops.deployments.local").joinpath("prefect.yaml").read_text()


def apply() -> None:
    """Put everything on the server that the current settings name; what is there already is replaced."""
    definitions = yaml.safe_load(text())
    _ensure_work_pool(definitions["definitions"]["work_pool"]["name"])
    for deployment in definitions["deployments"]:
        _deploy(deployment)
    for automation in definitions["automations"]:
        _automate(automation)


def _ensure_work_pool(name: str) -> None:
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            return


def _deploy(wanted: dict[str, Any]) -> None:
    deployment = RunnerDeployment.from_entrypoint(
        entrypoint=wanted["entrypoint"],
        name=wanted["name"],
        description=wanted["description"],
        tags=wanted["tags"],
        parameters=wanted["parameters"],
        schedules=[_schedule(one) for one in wanted.get("schedules", [])],
        triggers=_TRIGGERS.validate_python(wanted.get("triggers", [])),
        work_pool_name=wanted["work_pool"]["name"],
        job_variables=wanted["work_pool"]["job_variables"],
    )
    deployment.apply()


def _schedule(wanted: dict[str, Any]) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(schedule=IntervalSchedule(interval=wanted["interval"]), slug=wanted["slug"])


def _automate(wanted: dict[str, Any]) -> None:
    automation = Automation.model_validate(wanted)
    try:
        automation.id = Automation.read(name=wanted["name"]).id
    except ValueError:
        automation.create()
    else:
        automation.update()
