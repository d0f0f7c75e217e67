"""A team's Prefect, MLflow and worker on the cluster, of the manifests that we give to teams."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.logging.handlers import APILogHandler
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from prefect_mlops.blocks import Environment, Store
from tests.blocks.store.servers import ACCESS, BUCKET, SECRET, s3_server
from tests.cluster.api import Cluster, Manifest, wait_for
from tests.cluster.pods import a_namespace
from tests.cluster.postgres import postgres
from tests.cluster.settings import NODE_IP

FOLDER = resources.files("prefect_mlops.deployments.kubernetes")
AUTH = "team:only-for-tests"


@dataclass(frozen=True)
class Team:
    """What a team has in one namespace."""

    cluster: Cluster
    namespace: str
    image: str

    def put(self, secrets: dict[str, dict[str, str]]) -> None:
        """Apply the manifests with these Secrets; waits for all but the worker, which has no pool yet."""
        for manifest in [*_secrets(secrets), *_parts()]:
            self.cluster.apply(self._here(manifest))
        for name in ("prefect-server", "mlflow"):
            wait_for(lambda name=name: self._is_ready(name), f"{name} to be ready", seconds=180)

    def url(self, service: str, port: int) -> str:
        """Where a Service is reached."""
        found = self.cluster.get(self._path(f"services/{service}"))
        return f"http://{found['spec']['clusterIP']}:{port}"

    def deploy(self, folder: Path) -> None:
        """Make the work pool and deploy the flows, by the commands that stand in prefect.yaml."""
        template = json.loads(FOLDER.joinpath("job-template.json").read_text())
        template["variables"]["properties"]["namespace"]["default"] = self.namespace
        template["variables"]["properties"]["image"]["default"] = self.image
        (folder / "job-template.json").write_text(json.dumps(template))
        (folder / "prefect.yaml").write_text(FOLDER.joinpath("prefect.yaml").read_text())
        create = ("work-pool", "create", "mlops", "--type", "kubernetes", "--overwrite")
        self._prefect(folder, *create, "--base-job-template", "job-template.json")
        self._prefect(folder, "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml")
        self._prefect(folder, "deployment", "schedule", "pause", "--all")
        wait_for(lambda: self._is_ready("prefect-worker"), "the worker to be ready", seconds=180)

    @contextmanager
    def settings(self) -> Generator[None]:
        """Lead this process's Prefect to the team's server."""
        url = {PREFECT_API_URL: f"{self.url('prefect-server', 4200)}/api", PREFECT_API_AUTH_STRING: AUTH}
        with temporary_settings(updates={**url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield

    def pods(self, run: object) -> list[Manifest]:
        """The pods of a flow run."""
        return self.cluster.get(self._path("pods"), labelSelector=f"prefect.io/flow-run-id={run}")["items"]

    def _prefect(self, folder: Path, *words: str) -> None:
        told = {"PREFECT_API_URL": f"{self.url('prefect-server', 4200)}/api", "PREFECT_API_AUTH_STRING": AUTH}
        command = [sys.executable, "-P", "-m", "prefect", *words]
        env = os.environ | told | {"PREFECT_MLOPS_IMAGE": self.image}
        done = subprocess.run(command, check=False, env=env, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def _path(self, plural: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{plural}"

    def _here(self, manifest: Manifest) -> Manifest:
        """A manifest as kustomize would render it for this namespace and this image."""
        moved: Manifest = {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}
        if moved["kind"] == "Deployment":
            (container,) = moved["spec"]["template"]["spec"]["containers"]
            container["image"] = self.image
        return moved

    def _is_ready(self, name: str) -> bool:
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}"
        return self.cluster.get(path)["status"].get("availableReplicas", 0) == 1


def _parts() -> Iterator[Manifest]:
    for file in yaml.safe_load(FOLDER.joinpath("kustomization.yaml").read_text())["resources"]:
        yield from (one for one in _documents(file) if one["kind"] != "Namespace")


def _secrets(values: dict[str, dict[str, str]]) -> Iterator[Manifest]:
    for template in _documents("secrets.template.yaml"):
        given = values[template["metadata"]["name"]]
        assert given.keys() >= template["stringData"].keys()
        yield {**template, "stringData": given}


def _documents(file: str) -> list[Any]:
    return list(yaml.safe_load_all(FOLDER.joinpath(file).read_text()))


def new_key() -> str:
    """A key that Prefect encrypts blocks with."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@contextmanager
def a_team(cluster: Cluster, image: str, folder: Path) -> Generator[Team]:
    """A team's parts in a namespace of their own, whose Prefect this process works with meanwhile."""
    keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    with (
        a_namespace(cluster) as namespace,
        postgres(NODE_IP, "prefect", "mlflow") as database,
        s3_server(folder, host=NODE_IP) as s3,
        pytest.MonkeyPatch.context() as patch,
    ):
        team = Team(cluster, namespace, image)
        team.put(_values(database, keys, s3))
        team.deploy(folder)
        for name, value in keys.items():
            patch.setenv(name, value)
        with team.settings():
            Store(url=f"s3://{BUCKET}/mlops", endpoint=s3).save("production")
            Environment(name="production", store="mlops-store/production", start_seconds=150).save("production")
            yield team
            APILogHandler().flush()  # else it would be tried for a minute after the server is gone


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
