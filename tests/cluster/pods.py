"""Manifests of the small things that tests of a cluster run on it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.cluster import images
from tests.cluster.api import Cluster, Manifest, wait_for

IMAGE = images.PYTHON if os.environ.get("CLUSTER_NODE") else "python:3.12-slim"
"""A Python that the cluster can start: ours is on our node only."""


def named(kind: str, name: str, namespace: str, version: str = "v1", **parts: Any) -> Manifest:
    """An object labelled `app: NAME`."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}


@contextmanager
def a_namespace(cluster: Cluster) -> Generator[str]:
    """The name of a new namespace, which goes in the end with all that is in it."""
    name = f"test-{secrets.token_hex(4)}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    cluster.create(manifest)
    wait_for(lambda: cluster.read(account), "the account that pods run under")
    yield name
    cluster.delete(manifest)


def runs(*command: str, name: str = "it", **parts: Any) -> Manifest:
    """The specification of a pod with one container that runs a Python, by options or a program's text."""
    container = {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["python", *command]}
    return {"containers": [container | parts], "terminationGracePeriodSeconds": 0}


def events(cluster: Cluster, namespace: str) -> str:
    """What the cluster says happened in a namespace, for the message of a test that fails."""
    found = cluster.get(f"/api/v1/namespaces/{namespace}/events")["items"]
    return "\n".join(f"{one['involvedObject']['name']}: {one['reason']}: {one['message']}" for one in found)
