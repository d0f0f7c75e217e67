"""The base job template of the work pool, rendered by Prefect's own worker: what may be chosen is what is got."""

from __future__ import annotations

import asyncio
import json
import uuid
from importlib import resources
from typing import Any

import jsonschema
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

from prefect_mlops.blocks import StepResources

TEMPLATE = json.loads(resources.files("prefect_mlops.deployments.kubernetes").joinpath("job-template.json").read_text())
DEFAULT = KubernetesWorker.get_default_base_job_template()
RENAMED = {"cpu_request", "memory_request", "memory_limit"}
"""Ours are `cpu` and `memory`: a run that may take so much memory must also be sure of it."""

OTHER: dict[str, Any] = {
    "name": "nightly",
    "env": {"COLOUR": "green"},
    "labels": {"team": "risk"},
    "command": "prefect version",
    "annotations": {"cost": "risk"},
    "namespace": "elsewhere",
    "image": "mirror/flows@sha256:00",
    "service_account_name": "mlops-release",
    "image_pull_policy": "Always",
    "backoff_limit": 2,
    "finished_job_ttl": 7,
    "active_deadline_seconds": 11,
    "cpu": "3",
    "cpu_limit": "4",
    "memory": "5Gi",
    "gpus": 1,
    "node_selector": {"pool": "big"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "secrets": [{"secretRef": {"name": "bucket"}}],
}
"""For each variable that ends in the manifest, another value than its default."""

WORKER_ONLY = {"job_watch_timeout_seconds": 5, "pod_watch_timeout_seconds": 6, "stream_output": False}


def configured(**values: Any) -> KubernetesWorkerJobConfiguration:
    """What the worker makes of job variables for a run."""
    rendered = KubernetesWorkerJobConfiguration.from_template_and_values
    nobody = PrefectClient("http://127.0.0.1:9/api")  # asked only where a value names a block or a variable
    configuration = asyncio.run(rendered(TEMPLATE, values, client=nobody))
    configuration.prepare_for_flow_run(FlowRun(id=uuid.UUID(int=7), flow_id=uuid.UUID(int=8), name="amber-lynx"))
    return configuration


def manifest(**values: Any) -> dict[str, Any]:
    return configured(**values).job_manifest


def container(**values: Any) -> dict[str, Any]:
    return manifest(**values)["spec"]["template"]["spec"]["containers"][0]


def paths(node: Any, prefix: str = "") -> set[str]:
    """Every key of nested dictionaries and lists, as paths."""
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return {path for key, value in below for path in ({f"{prefix}/{key}"} | paths(value, f"{prefix}/{key}"))}


def test_it_has_every_variable_and_every_field_of_prefects_own() -> None:
    ours, prefects = TEMPLATE["variables"]["properties"], DEFAULT["variables"]["properties"]
    assert set(prefects) - set(ours) == RENAMED
    assert paths(DEFAULT["job_configuration"]) <= paths(TEMPLATE["job_configuration"])
    for name in set(prefects) & set(ours):
        assert ours[name].get("enum") == prefects[name].get("enum"), name


def test_every_variable_is_tried_here() -> None:
    assert set(TEMPLATE["variables"]["properties"]) == {*OTHER, *WORKER_ONLY, "cluster_config"}


@pytest.mark.parametrize("variable", OTHER)
def test_every_variable_changes_the_manifest(variable: str) -> None:
    assert manifest(**{variable: OTHER[variable]}) != manifest()


@pytest.mark.parametrize("variable", WORKER_ONLY)
def test_every_other_variable_reaches_the_worker(variable: str) -> None:
    assert getattr(configured(**{variable: WORKER_ONLY[variable]}), variable) == WORKER_ONLY[variable]


def test_what_is_left_open_is_complete_and_valid() -> None:
    jsonschema.validate({}, TEMPLATE["variables"])
    jsonschema.validate(OTHER | WORKER_ONLY, TEMPLATE["variables"])
    assert "{{" not in json.dumps(manifest())


def test_each_value_is_where_kubernetes_looks_for_it() -> None:
    job = manifest(**OTHER)
    assert (job["metadata"]["namespace"], job["metadata"]["generateName"]) == ("elsewhere", "nightly-")
    spec = job["spec"]
    assert [spec[name] for name in ("backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds")] == [2, 7, 11]
    pod = spec["template"]["spec"]
    assert [pod[name] for name in ("serviceAccountName", "nodeSelector", "tolerations")] == [
        OTHER[name] for name in ("service_account_name", "node_selector", "tolerations")
    ]
    (only,) = pod["containers"]
    assert only["resources"]["requests"] == {"cpu": "3", "memory": "5Gi"}
    assert only["resources"]["limits"] == {"cpu": "4", "memory": "5Gi", "nvidia.com/gpu": 1}
    assert (only["image"], only["imagePullPolicy"]) == (OTHER["image"], "Always")
    assert only["envFrom"] == OTHER["secrets"]
    assert only["args"] == ["prefect", "version"]
    assert job["metadata"]["labels"]["team"] == job["metadata"]["annotations"]["cost"] == "risk"


def test_a_run_is_told_its_image_and_its_size_and_what_its_deployment_says() -> None:
    known = {one["name"]: one for one in container(**OTHER)["env"]}
    assert known["PREFECT_MLOPS_IMAGE"]["value"] == OTHER["image"]
    told = {"PREFECT_MLOPS_CPUS": "requests.cpu", "PREFECT_MLOPS_MEMORY_MIB": "limits.memory"}
    assert {name: known[name]["valueFrom"]["resourceFieldRef"]["resource"] for name in told} == told
    assert known["COLOUR"]["value"] == "green"
    assert known["PREFECT__FLOW_RUN_ID"]["value"]


def test_it_may_write_only_where_nothing_lasts() -> None:
    pod, only = manifest()["spec"]["template"]["spec"], container()
    assert pod["securityContext"]["runAsNonRoot"]
    assert only["securityContext"]["readOnlyRootFilesystem"]
    assert not only["securityContext"]["allowPrivilegeEscalation"]
    assert {one["name"] for one in only["volumeMounts"]} == {one["name"] for one in pod["volumes"]} == {"tmp", "home"}
    home = next(one["value"] for one in only["env"] if one["name"] == "HOME")
    assert {one["mountPath"] for one in only["volumeMounts"]} == {"/tmp", home}


def test_the_resources_of_a_step_are_job_variables() -> None:
    variables = StepResources(cpus=4, memory_mib=512, gpus=2).job_variables()
    jsonschema.validate(variables, TEMPLATE["variables"])
    given = container(**variables)["resources"]
    assert given["requests"] == {"cpu": "4", "memory": "512Mi"}
    assert given["limits"] == {"memory": "512Mi", "nvidia.com/gpu": 2}
    assert StepResources().job_variables() == {}, "what is left open is what the deployment says"
