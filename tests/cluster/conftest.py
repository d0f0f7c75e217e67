"""What a test on a cluster asks for: the cluster, a namespace of its own, and the node where it is ours."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.api import Cluster, wait_for
from tests.cluster.ingress import Ingress, running
from tests.cluster.node import Node


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster under test."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("there is no cluster; run `make test-cluster`, or name yours in KUBECONFIG")
    with contextlib.closing(Cluster.named(Path(os.environ["KUBECONFIG"]))) as found:
        yield found


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Node:
    """The node that was started for these tests, to break and mend."""
    if not os.environ.get("CLUSTER_NODE"):
        pytest.skip("this test breaks its node, and the cluster in KUBECONFIG is not ours to break")
    return Node(Path(os.environ["CLUSTER_NODE"]))


@pytest.fixture(scope="session")
def ingress(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    """A real Envoy that does what the node's VirtualServices say."""
    with running(node.kubeconfig, tmp_path_factory.mktemp("ingress")) as found:
        yield found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a namespace that goes with the test."""
    name = f"test-{secrets.token_hex(4)}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    cluster.create(manifest)
    wait_for(lambda: cluster.read(account), "the account that pods run under")
    yield name
    cluster.delete(manifest)
