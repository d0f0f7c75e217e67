"""What a test on a cluster asks for: the cluster, a namespace of its own, and the node where it is ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_mlops.blocks import Store
from tests.cluster.api import Cluster
from tests.cluster.ingress import Ingress, running
from tests.cluster.node import Node
from tests.cluster.ours import loaded
from tests.cluster.page import Page
from tests.cluster.pods import a_namespace
from tests.cluster.production import Production
from tests.cluster.serving import Place
from tests.cluster.team import IMAGE, Team, a_team


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


def _image(kind: str) -> str:
    """The name of one of our images that the cluster can start."""
    variable = f"CLUSTER_{kind.upper()}_IMAGE"
    if os.environ.get("CLUSTER_NODE") and not os.environ.get(variable):
        return loaded(kind)
    if not os.environ.get(variable):
        pytest.skip(f"name the {kind} image that your cluster can pull in {variable}; `make images` builds it")
    return os.environ[variable]


@pytest.fixture(scope="session")
def serving_image() -> str:
    """The image that serves models."""
    return _image("serving")


@pytest.fixture(scope="session")
def flows_image() -> str:
    """The image that runs flows."""
    return _image("flows")


@pytest.fixture(scope="session")
def page(
    node: Node, ingress: Ingress, flows_image: str, serving_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Page:
    """The documentation's page, to be followed with what the node has."""
    words = {IMAGE: flows_image, "registry.example/team/prefect-mlops-serving@sha256:…": serving_image}
    return Page(
        node, tmp_path_factory.mktemp("team"), words | {"http://istio-ingressgateway.istio-system": ingress.url}
    )


@pytest.fixture(scope="session")
def team(cluster: Cluster, page: Page) -> Iterator[Team]:
    """A team's parts in the namespace of the page: on PostgreSQL, with a bucket."""
    with a_team(cluster, page) as found:
        yield found


@pytest.fixture(scope="session")
def production(team: Team, ingress: Ingress, tmp_path_factory: pytest.TempPathFactory) -> Production:
    """A production environment of that team, in which nothing was released yet."""
    return Production.made(team, ingress.url, tmp_path_factory.mktemp("production"))


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a namespace that goes with the test."""
    with a_namespace(cluster) as name:
        yield name


@pytest.fixture
def place(cluster: Cluster, namespace: str, ingress: Ingress, tmp_path: Path) -> Place:
    """A namespace in which stub servers answer, with its store in a folder."""
    return Place(cluster, namespace, ingress.url, Store(url=str(tmp_path / "store")))
