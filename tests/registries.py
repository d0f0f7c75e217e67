"""Real MLflow registries, and all that they show."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect_mlops.blocks import ModelRegistry

DRAWN = re.compile(r"(run_id|model_id|model_uuid|utc_time_created|artifact_path|model_size_bytes):.*")
"""What MLflow draws anew for each run."""


def new_registry(folder: Path) -> ModelRegistry:
    """An empty registry with everything in one folder."""
    folder.mkdir()
    return ModelRegistry(tracking_uri=f"sqlite:///{folder}/mlflow.db", artifacts=(folder / "artifacts").as_uri())


def everything(shown: ModelRegistry, service: str) -> dict[Any, Any]:
    """All that a person can see of the service in a registry, but for what MLflow draws anew for each run."""
    client = shown.client()
    versions = {int(one.version): one for one in client.search_model_versions(f"name = '{service}'")}
    return {
        "aliases": {alias: int(at) for alias, at in client.get_registered_model(service).aliases.items()},
        **{number: _version(shown, versions[number]) for number in sorted(versions)},
    }


def _version(shown: ModelRegistry, version: Any) -> dict[str, Any]:
    run = shown.client().get_run(version.run_id)
    model = shown.client().get_logged_model(version.source.rpartition("/")[2])
    return {
        "tags": version.tags,
        "run": run.info.run_name,
        "run tags": {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")},
        "params": run.data.params,
        "metrics": run.data.metrics,
        "files": _files(run.info.artifact_uri) | _files(model.artifact_location, "model/"),
    }


def _files(uri: str | None, prefix: str = "") -> dict[str, str]:
    folder = Path(urlsplit(uri or "").path)
    return {prefix + path.relative_to(folder).as_posix(): _digest(path) for path in folder.rglob("*") if path.is_file()}


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.name == "MLmodel":
        data = DRAWN.sub("", data.decode()).encode()
    return hashlib.sha256(data).hexdigest()
