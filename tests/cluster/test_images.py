"""The image that serves models, in pods as SeldonServing asks for them: a release from a real bucket, answered for."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from prefect_mlops.blocks import _seldon_manifest as manifests
from prefect_mlops.blocks.records import records_of
from prefect_mlops.blocks.split import Arm
from prefect_mlops.blocks.store import Store
from tests.blocks.store.servers import ACCESS, BUCKET, SECRET, s3_server
from tests.cluster.api import Cluster, Manifest, wait_for
from tests.cluster.node import Node
from tests.cluster.pods import a_namespace, events, named
from tests.cluster.settings import NODE_IP
from tests.deployments.server.contract import ROWS, Contract, Served, Superstitious
from tests.deployments.server.models import census_model, census_signature
from tests.deployments.server.releases import put_release

ASK = {"data": {"ndarray": ROWS}}
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}


@dataclass(frozen=True)
class Place:
    """A namespace with a Secret of keys, and a bucket that they open."""

    cluster: Cluster
    namespace: str
    image: str
    store: Store

    def pod(self, release: str) -> Manifest:
        """The pods of a release, as SeldonServing asks Seldon for them."""
        where = {"store": self.store.url, "endpoint": self.store.endpoint, "region": None}
        settings = manifests.PodSettings(self.image, where, secret="keys", drain_seconds=2, cpu="100m")
        arm = Arm(release=release, role="live", percent=100)
        return manifests.predictor(self.namespace, "credit", arm, settings)["componentSpecs"][0]["spec"]

    def serve(self, release: str) -> str:
        """Start a Deployment of a release behind a Service, and give the Service's URL once it is ready."""
        template = {"metadata": {"labels": {"app": "credit"}}, "spec": self.pod(release)}
        spec = {"selector": {"matchLabels": {"app": "credit"}}, "template": template}
        self.cluster.create(named("Deployment", "credit", self.namespace, "apps/v1", spec=spec))
        ports = {"selector": {"app": "credit"}, "ports": [{"port": 9000}]}
        self.cluster.create(named("Service", "credit", self.namespace, spec=ports))
        with self._told_why():
            wait_for(self._is_ready, "a ready pod", seconds=60)
        address = self.cluster.read(named("Service", "credit", self.namespace))["spec"]["clusterIP"]
        url = f"http://{address}:9000"
        wait_for(lambda: httpx.get(f"{url}/ready", trust_env=False).is_success, "the Service's routes")
        return url

    def pods(self) -> list[Manifest]:
        return self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]

    def log(self, pod: Manifest) -> str:
        return self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/log")

    def _is_ready(self) -> bool:
        return any(_conditions(pod).get("Ready") for pod in self.pods())

    @contextlib.contextmanager
    def _told_why(self) -> Generator[None]:
        try:
            yield
        except TimeoutError:
            print(events(self.cluster, self.namespace), *map(self.log, self.pods()))
            raise


def _conditions(pod: Manifest) -> dict[str, str]:
    """Since when each condition of a pod has been true."""
    told = pod["status"].get("conditions", [])
    return {one["type"]: one["lastTransitionTime"] for one in told if one["status"] == "True"}


@contextlib.contextmanager
def _placed(cluster: Cluster, namespace: str, image: str, home: Path) -> Generator[Place]:
    home.mkdir()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": namespace}}
    cluster.create({**secret, "stringData": KEYS})
    with pytest.MonkeyPatch.context() as patch, s3_server(home, host=NODE_IP) as url:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield Place(cluster, namespace, image, Store(url=f"s3://{BUCKET}/store", endpoint=url))


@pytest.fixture
def place(node: Node, cluster: Cluster, namespace: str, serving_image: str, tmp_path: Path) -> Generator[Place]:
    with _placed(cluster, namespace, serving_image, tmp_path / "s3") as made:
        yield made


class TestContract(Contract):
    """Through the cluster's Service it is what it is on a port of this machine."""

    @pytest.fixture(scope="class")
    def served(
        self, node: Node, cluster: Cluster, serving_image: str, tmp_path_factory: pytest.TempPathFactory
    ) -> Generator[Served]:
        """A pod of the model, its release in a bucket."""
        home = tmp_path_factory.mktemp("contract")
        with a_namespace(cluster) as namespace, _placed(cluster, namespace, serving_image, home / "s3") as place:
            release = put_release(place.store, home, Superstitious(census_model()), census_signature())
            with httpx.Client(base_url=place.serve(release), timeout=30, trust_env=False) as client:
                yield Served(client, release, place.store.release(release).model)


def test_what_a_pod_answered_is_in_the_bucket_when_it_is_gone(place: Place, tmp_path: Path) -> None:
    release = put_release(place.store, tmp_path, census_model(), census_signature())
    with httpx.Client(base_url=place.serve(release), trust_env=False) as client:
        answered = [client.post("/api/v1.0/predictions", json=ASK) for _ in range(50)]
    assert {answer.status_code for answer in answered} == {200}
    [pod] = place.pods()
    place.cluster.delete(named("Deployment", "credit", place.namespace, "apps/v1"))
    wait_for(lambda: not place.pods(), "the end of the pod")
    records = place.store.records(place.namespace, "credit")
    for answer in answered:
        [record] = records_of([records], answer.headers["x-request-id"])
        assert (record.release, record.role, record.outputs) == (release, "live", answer.json()["data"]["ndarray"])
    assert {key.split("/")[3] for key in records.names()} == {pod["metadata"]["name"]}


def test_a_release_that_is_not_there_is_said_in_the_pods_last_words(place: Place) -> None:
    place.store.put(b"so that there is a store")
    pod = named("Pod", "lost", place.namespace, spec=place.pod("sha256:" + "1" * 64) | {"restartPolicy": "Never"})
    place.cluster.create(pod)
    wait_for(lambda: place.cluster.read(pod)["status"]["phase"] == "Failed", "the end of the pod")
    [status] = place.cluster.read(pod)["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 78
    assert "the release is missing in s3://" in place.log(pod)


def test_the_image_holds_what_serving_takes_and_no_more(place: Place) -> None:
    look = "import importlib.util as u, os; print(os.getuid(), [n for n in {} if u.find_spec(n)], os.access('/opt', 2))"
    names = ["prefect", "mlflow", "great_expectations", "sklearn", "pandas", "obstore"]
    spec: dict[str, Any] = place.pod("sha256:" + "1" * 64) | {"restartPolicy": "Never"}
    container = {**spec["containers"][0], "command": ["python", "-c", look.format(names)], "args": []}
    for probe in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle"):
        del container[probe]
    pod = named("Pod", "look", place.namespace, spec={**spec, "containers": [container]})
    place.cluster.create(pod)
    wait_for(lambda: place.cluster.read(pod)["status"]["phase"] == "Succeeded", "the end of the pod")
    assert place.log(pod) == "8888 ['sklearn', 'pandas', 'obstore'] False\n"
