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

import yaml
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from tests.cluster.api import Cluster, Manifest, wait_for

FOLDER = resources.files("prefect_mlops.deployments.kubernetes")
AUTH = "team:only-for-tests"


@dataclass(frozen=True)
class Team:
    """What a team has in one namespace."""

    cluster: Cluster
    namespace: str
    image: str

    def put(self, secrets: dict[str, dict[str, str]]) -> None:
        """Apply the manifests, with the values of their Secrets, and wait until every part is ready."""
        for manifest in [*_secrets(secrets), *_parts()]:
            self.cluster.apply(self._here(manifest))
        for name in ("prefect-server", "mlflow", "prefect-worker"):
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
        create = ("work-pool", "create", "mlops", "--type", "kubernetes")
        self._prefect(folder, *create, "--base-job-template", "job-template.json")
        self._prefect(folder, "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml")
        self._prefect(folder, "deployment", "schedule", "pause", "--all")

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
        assert given.keys() == template["stringData"].keys()
        yield {**template, "stringData": given}


def _documents(file: str) -> list[Any]:
    return list(yaml.safe_load_all(FOLDER.joinpath(file).read_text()))


def new_key() -> str:
    """A key that Prefect encrypts blocks with."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()
