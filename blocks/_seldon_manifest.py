"""What a release looks like to Seldon Core: names, predictors, and the SeldonDeployment that holds them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from prefect_mlops.blocks._canonical import canonical, digest
from prefect_mlops.blocks.split import Arm, Split

if TYPE_CHECKING:
    from prefect_mlops.blocks.graph import Graph

Json = dict[str, Any]

API = "machinelearning.seldon.io/v1"
FENCE, RELEASE, SPEC = "prefect-mlops/fence", "prefect-mlops/release", "prefect-mlops/spec"
MANAGED = {"app.kubernetes.io/managed-by": "prefect-mlops"}
HTTP_PORT, GRPC_PORT, METRICS_PORT = 9000, 9500, 6000
CONTAINER = "model"
USER = 8888
_GATEWAY_RETRIES = {"seldon.io/istio-retries": "3", "seldon.io/istio-retries-timeout": "30"}


@dataclass(frozen=True)
class PodSettings:
    """What the pods of a release are started with.

    Attributes:
        image: Image of the model server.
        store: URL of the store that holds the release, with its endpoint and region where it is a bucket.
        replicas: Pods per release.
        cpu: CPUs that a pod asks for, as Kubernetes writes them.
        memory: Memory that a pod asks for and may take, as Kubernetes writes it.
        gpus: Graphics processors of a pod.
        secret: Secret with the bucket's keys; empty for none.
        pull_policy: When the image is pulled.
        start_seconds: Time for a server to get ready.
        drain_seconds: Time for its last answers.
        max_body_bytes: Longest request body.
        pod: More fields of the pod, such as volumes or a node selector.
        container: More fields of its container, such as volume mounts.
    """

    image: str
    store: Json
    replicas: int = 1
    cpu: str = "250m"
    memory: str = "1Gi"
    gpus: int = 0
    secret: str = ""
    pull_policy: str = "IfNotPresent"
    start_seconds: int = 60
    drain_seconds: int = 10
    max_body_bytes: int = 16 * 1024 * 1024
    pod: Json = field(default_factory=dict[str, Any])
    container: Json = field(default_factory=dict[str, Any])


def predictor_name(release: str, *, shadow: bool) -> str:
    """The predictor of a release: at most 12 characters, so that Seldon never hashes a name made of it.

    A shadow has one of its own, since Seldon restarts the pods of a shadow that becomes live.
    """
    return ("s" if shadow else "r") + release.removeprefix("sha256:")[:10]


def name_of(arm: Arm) -> str:
    """The predictor that carries out an arm."""
    return predictor_name(arm.release, shadow=arm.role == "shadow")


def weights(split: Split) -> dict[str, int]:
    """What each predictor of a split gets, live ones first; of a shadow, the percent that is mirrored to it."""
    return {name_of(arm): arm.percent for arm in split.arms}


def release_of(predictor: Mapping[str, Any]) -> str | None:
    """The release that a predictor is of; None where it is none of ours."""
    return (predictor.get("annotations") or {}).get(RELEASE)


def predictor(
    namespace: str, service: str, arm: Arm, settings: PodSettings, graph: Graph | None = None, traffic: int = 0
) -> Json:
    """A predictor that serves one release.

    One node has no executor beside it, so that it is ready as soon as its model is. Ports are pinned: by default
    Seldon numbers them across predictors, and a promotion would renumber and restart the one that stays.
    """
    name = name_of(arm)
    own = {"spec": _pod(namespace, service, arm, settings)}
    made: Json = {
        "name": name,
        "replicas": settings.replicas,
        "graph": _node() if graph is None else graph.tree(_node()),
        "componentSpecs": [own, *(graph.component_specs() if graph else ())],
    }
    if arm.role == "shadow":
        made["shadow"] = True
    if graph is not None and graph.explainer and arm.role != "shadow":
        made["explainer"] = copy.deepcopy(graph.explainer)
    annotations = {RELEASE: arm.release, SPEC: digest(canonical(made))}
    if graph is None or not graph.has_nodes:
        annotations["seldon.io/no-engine"] = "true"
    return {**made, "annotations": annotations, "traffic": traffic}


def deployment(
    namespace: str, service: str, fence: int, predictors: Iterable[Json], version: str | None = None
) -> Json:
    """The SeldonDeployment of a service.

    Args:
        fence: Number of the log entry on whose behalf it is written. An annotation of the whole: of a predictor,
            it would restart its pods.
        predictors: In their order, live ones first.
        version: The `resourceVersion` that it must have had.
    """
    metadata: Json = {
        "name": service,
        "namespace": namespace,
        "labels": dict(MANAGED),
        "annotations": {FENCE: str(fence), **_GATEWAY_RETRIES},
    }
    if version is not None:
        metadata["resourceVersion"] = version
    spec = {"protocol": "seldon", "predictors": list(predictors)}
    return {"apiVersion": API, "kind": "SeldonDeployment", "metadata": metadata, "spec": spec}


def tomb_name(service: str) -> str:
    """The ConfigMap that keeps the fence of a service whose SeldonDeployment was deleted."""
    return f"{service}-prefect-mlops-fence"


def tomb(namespace: str, service: str, fence: int) -> Json:
    """What stays of a SeldonDeployment that was deleted, so that nobody who stalled makes it again."""
    metadata = {"name": tomb_name(service), "namespace": namespace, "labels": dict(MANAGED)}
    metadata["annotations"] = {FENCE: str(fence)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"fence": str(fence)}}


def as_text(manifest: Json) -> str:
    """A manifest as YAML; the same bytes for the same manifest."""
    tree = json.loads(json.dumps(manifest))  # what it names twice is written twice, not as a reference
    return yaml.safe_dump(tree, sort_keys=True, allow_unicode=True, width=2**20)


def read_text(text: str) -> Json:
    """The manifest that `as_text` wrote."""
    return yaml.safe_load(text)


def fence_of(manifest: Mapping[str, Any] | None) -> int | None:
    """The number of the log entry on whose behalf a manifest was last written; None where none says so."""
    if manifest is None:
        return None
    said = (manifest["metadata"].get("annotations") or {}).get(FENCE)
    return int(said) if said is not None and said.isdecimal() else None


def _node() -> Json:
    endpoint = {"type": "REST", "httpPort": HTTP_PORT, "grpcPort": GRPC_PORT}
    return {"name": CONTAINER, "type": "MODEL", "endpoint": endpoint}


def _pod(namespace: str, service: str, arm: Arm, settings: PodSettings) -> Json:
    volumes = [{"name": "spool", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    ours: Json = {
        "automountServiceAccountToken": False,
        "containers": [_container(namespace, service, arm, settings)],
        "securityContext": {
            "runAsUser": USER, "runAsNonRoot": True, "fsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": settings.drain_seconds + 40,  # to answer, then to bring its records away
        "volumes": volumes,
    }  # fmt: skip
    return _merged(ours, settings.pod)


def _container(namespace: str, service: str, arm: Arm, settings: PodSettings) -> Json:
    configuration: Json = {
        "service": service, "namespace": namespace, "release": arm.release, **settings.store, "host": "0.0.0.0",  # noqa: S104  # of a pod
        "port": HTTP_PORT, "spool": "/spool", "role": "shadow" if arm.role == "shadow" else None,
        "max_body_bytes": settings.max_body_bytes,
    }  # fmt: skip
    gpus = {"nvidia.com/gpu": str(settings.gpus)} if settings.gpus else {}
    ours: Json = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-P", "-m", "prefect_mlops.deployments.server"],
        "args": [json.dumps(configuration, sort_keys=True)],
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in (("http", HTTP_PORT), ("grpc", GRPC_PORT), ("metrics", METRICS_PORT))
        ],
        "readinessProbe": _probe("/ready", periodSeconds=1, failureThreshold=3),
        "livenessProbe": _probe("/live", periodSeconds=5, failureThreshold=6),
        "startupProbe": _probe("/live", periodSeconds=1, failureThreshold=max(settings.start_seconds, 1)),
        # The gateway goes on sending for a moment after it was told not to.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(min(settings.drain_seconds, 5))]}}},
        "resources": {
            "requests": {"cpu": settings.cpu, "memory": settings.memory, **gpus},
            "limits": {"memory": settings.memory, **gpus},
        },
        "securityContext": {
            "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "spool", "mountPath": "/spool"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }  # fmt: skip
    if settings.secret:
        ours["envFrom"] = [{"secretRef": {"name": settings.secret}}]
    return _merged(ours, settings.container)


def _probe(path: str, **numbers: int) -> Json:
    return {"httpGet": {"path": path, "port": HTTP_PORT, "scheme": "HTTP"}, "timeoutSeconds": 2, **numbers}


def _merged(ours: Json, more: Mapping[str, Any]) -> Json:
    """`ours` with `more` on top: lists of objects are joined, objects merged, anything else replaced."""
    merged = dict(ours)
    for key, value in more.items():
        before = merged.get(key)
        if isinstance(before, list) and isinstance(value, list) and all(isinstance(one, dict) for one in before):
            merged[key] = [*before, *value]
        elif isinstance(before, dict) and isinstance(value, dict):
            merged[key] = _merged(before, value)
        else:
            merged[key] = value
    return merged
