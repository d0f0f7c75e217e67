"""A team's Prefect, MLflow and worker on the cluster, of the manifests that we give to teams."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.logging.handlers import APILogHandler
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from tests.blocks.store.servers import ACCESS, BUCKET, SECRET, s3_server
from tests.cluster.api import Cluster, Manifest
from tests.cluster.page import Page
from tests.cluster.postgres import postgres
from tests.cluster.settings import NODE_IP

NAMESPACE = "mlops"
AUTH = "team:only-for-tests"
IMAGE = "registry.example/team/flows@sha256:…"
"""What the page calls the image of flows."""


@dataclass(frozen=True)
class Team:
    """What a team has in one namespace, by following the page."""

    cluster: Cluster
    namespace: str
    image: str
    page: Page

    def url(self, service: str, port: int) -> str:
        """Where a Service is reached."""
        found = self.cluster.get(self._path(f"services/{service}"))
        return f"http://{found['spec']['clusterIP']}:{port}"

    @contextmanager
    def settings(self) -> Generator[None]:
        """Lead this process's Prefect to the team's server."""
        url = {PREFECT_API_URL: f"{self.url('prefect-server', 4200)}/api", PREFECT_API_AUTH_STRING: AUTH}
        with temporary_settings(updates={**url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield

    def pods(self, run: object) -> list[Manifest]:
        """The pods of a flow run."""
        return self.cluster.get(self._path("pods"), labelSelector=f"prefect.io/flow-run-id={run}")["items"]

    def _path(self, plural: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{plural}"


def new_key() -> str:
    """A key that Prefect encrypts blocks with."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@contextmanager
def a_team(cluster: Cluster, page: Page) -> Generator[Team]:
    """A team that follows the page up to its environment, whose Prefect this process works with meanwhile."""
    keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    with (
        postgres(NODE_IP, "prefect", "mlflow") as database,
        s3_server(page.folder, host=NODE_IP) as s3,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in keys.items():
            patch.setenv(name, value)
        page.words |= {"user:password": AUTH, "s3://models/mlops": f"s3://{BUCKET}/mlops", "https://s3.example": s3}
        team = Team(cluster, NAMESPACE, page.words[IMAGE], page)
        _fill_in(page, _values(database, keys, s3))
        page.type("2. Prefect, MLflow, the worker")
        with team.settings():
            _pause_schedules()
            page.python("3. The environment")
            yield team
            APILogHandler().flush()  # else it would be tried for a minute after the server is gone


def _fill_in(page: Page, secrets: dict[str, dict[str, str]]) -> None:
    """Make the files that the page asks for, of copies of those that we give to teams."""
    here = page.folder / "deployments" / "kubernetes"
    with resources.as_file(resources.files("prefect_mlops.deployments.kubernetes")) as ours:
        shutil.copytree(ours, here)
    templates = list(yaml.safe_load_all((here / "secrets.template.yaml").read_text()))
    assert all(secrets[one["metadata"]["name"]].keys() >= one["stringData"].keys() for one in templates)
    filled = [{**one, "stringData": secrets[one["metadata"]["name"]]} for one in templates]
    (page.folder / "secrets.yaml").write_text(yaml.safe_dump_all(filled))
    names = yaml.safe_load((here / "kustomization.yaml").read_text())
    name, _, tag = page.words[IMAGE].rpartition(":")
    names["images"][0] |= {"newName": name, "newTag": tag}
    (here / "kustomization.yaml").write_text(yaml.safe_dump(names))


def _pause_schedules() -> None:
    """Runs begin when a test says so; a node of two CPUs has no room for more."""
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            client.pause_deployment(deployment.id)


def _values(database: str, keys: dict[str, str], s3: str) -> dict[str, dict[str, str]]:
    """What stands in each Secret."""
    server = {"PREFECT_SERVER_ENCRYPTION_KEY": new_key(), "PREFECT_SERVER_API_AUTH_STRING": AUTH}
    url = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}prefect"}
    mlflow = {"MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://{database}mlflow"}
    artifacts = {"MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/mlflow", "MLFLOW_S3_ENDPOINT_URL": s3}
    return {
        "mlops-run": keys,
        "prefect-server": server | url,
        "prefect-client": {"PREFECT_API_AUTH_STRING": AUTH},
        "mlflow": keys | mlflow | artifacts,
    }
