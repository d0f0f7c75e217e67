"""Seldon Core on a node: what its resources are, and what its operator needs before and after it starts."""

from __future__ import annotations

import base64
import json
import os
import socket
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.api import Cluster, Manifest, wait_for
from tests.cluster.daemons import WEBHOOK_PORT

SYSTEM = "seldon-system"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
_VALIDATE = f"https://127.0.0.1:{WEBHOOK_PORT}/validate-machinelearning-seldon-io-v1-seldondeployment"


def definitions(home: Path) -> list[Manifest]:
    """The resources of Istio's that Seldon writes, and Seldon's own from the file that `SELDON_CRD` names, if any."""
    named = os.environ.get("SELDON_CRD") or Path(__file__).parent / "seldondeployment.yaml"
    return [*json.loads((home / "programs" / "istio.json").read_text()), yaml.safe_load(Path(named).read_text())]


def prepare(cluster: Cluster) -> None:
    """Make the namespace and the configuration that Seldon's Helm chart would."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
    metadata = {"name": "seldon-config", "namespace": SYSTEM}
    data = {name: json.dumps(value) for name, value in _CONFIG.items()}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def wait_until_up(cluster: Cluster, home: Path) -> None:
    """Wait until the operator's webhook judges SeldonDeployments; the stand-in registers its own when it listens."""
    if os.environ.get("SELDON_OPERATOR"):
        wait_for(_listens, "Seldon's operator", seconds=60)
        cluster.apply(_webhook((home / "ca.crt").read_bytes()))
    wait_for(lambda: cluster.get(WEBHOOKS)["items"], "the webhook of Seldon's operator", seconds=60)


def _listens() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", WEBHOOK_PORT)) == 0


def _webhook(authority: bytes) -> Manifest:
    rule = {
        "apiGroups": ["machinelearning.seldon.io"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["seldondeployments"],
    }
    webhook = {
        "name": "v1.vseldondeployment.kb.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {"url": _VALIDATE, "caBundle": base64.b64encode(authority).decode()},
        "rules": [rule],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    return {**kind, "metadata": {"name": "seldon"}, "webhooks": [webhook]}


_CONFIG: dict[str, Any] = {
    "predictor_servers": {"SKLEARN_SERVER": {"protocols": {"v2": {"image": "mlserver", "defaultImageVersion": "1"}}}},
    "explainer": {"image": "alibiexplainer:1", "image_v2": "mlserver:1-alibi-explain"},
    "storageInitializer": {
        "image": "rclone:1",
        "memoryRequest": "100Mi",
        "memoryLimit": "1Gi",
        "cpuRequest": "100m",
        "cpuLimit": "1",
    },
    "credentials": {"s3": {"s3AccessKeyIDName": "awsAccessKeyID", "s3SecretAccessKeyName": "awsSecretAccessKey"}},
}
"""The keys that the operator does not start without; none of the images is ever pulled."""
