"""The model registry: what people look at, never what anything is decided from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class ModelRegistry(Block):
    """Shows runs, versions and aliases in MLflow: a projection of the log for people.

    Example:
        ```python
        from prefect_mlops.blocks import ModelRegistry
        registry = ModelRegistry.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "MLOps Model Registry"
    _block_type_slug = "model-registry"

    tracking_uri: str = Field(
        title="Tracking URI", description="Where MLflow keeps its records: a database URL or a server's URL."
    )
    experiment: str = Field(default="prefect-mlops", title="Experiment", description="Experiment that runs go to.")
    artifacts: str | None = Field(
        default=None,
        title="Artifacts",
        description="Where a new experiment keeps its files; MLflow's default if empty.",
    )

    def client(self) -> MlflowClient:
        """A client of this registry."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri)

    def record(
        self,
        service: str,
        model: Path,
        *,
        release: str,
        params: dict[str, str],
        metrics: dict[str, float],
        tags: dict[str, str],
        requirements: list[str],
        files: Path,
    ) -> int:
        """Show a trained model, and return the version it is shown under.

        Args:
            service: Name of the registered model.
            model: The pickled model, whose very bytes are shown; pickled anew, it might have others.
            release: Digest of the release document.
            params: Parameters of the training.
            metrics: Figures on the hold-out.
            tags: Digests of what the release names.
            requirements: What the model needs; MLflow does not guess.
            files: Folder of files to look at, shown beside the model.
        """
        import cloudpickle
        import mlflow
        import mlflow.sklearn as flavor

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        client = self.client()
        tags = {"release": release, **tags}
        run = self._run(service, release, tags)
        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.start_run(run_id=run)
        try:
            mlflow.log_params(params)
            mlflow.log_metrics(metrics)
            mlflow.log_artifacts(str(files))
            logged = flavor.log_model(
                cloudpickle.loads(model.read_bytes()),
                name="model",
                serialization_format="cloudpickle",
                pip_requirements=requirements,
            )
            client.log_model_artifact(logged.model_id, str(model))
        finally:
            mlflow.end_run()
        if not client.search_registered_models(filter_string=f"name = '{service}'"):
            client.create_registered_model(service)
        shown = client.create_model_version(
            service, source=logged.model_uri, run_id=run, tags=tags, model_id=logged.model_id
        )
        return int(shown.version)

    def version_of(self, service: str, release: str) -> int | None:
        """The version under which a release is shown, if it is."""
        found = self.client().search_model_versions(f"name = '{service}' and tags.release = '{release}'")
        return max((int(version.version) for version in found), default=None)

    def mark(self, service: str, tags: dict[str, dict[str, str]], aliases: dict[str, str | None]) -> None:
        """Tag the versions of releases, and point aliases such as `champion` at them; what is so already stays.

        A release that the registry does not show is left alone: the log is what counts.

        Args:
            service: Name of the registered model.
            tags: Tags of each release.
            aliases: The release that each alias points at; None for one that shall point at none of these.
        """
        client = self.client()
        found = sorted(client.search_model_versions(f"name = '{service}'"), key=lambda one: int(one.version))
        shown = {one.tags["release"]: one for one in found if one.tags.get("release") in tags}
        for release, version in shown.items():
            for name, value in tags[release].items():
                if version.tags.get(name) != value:
                    client.set_model_version_tag(service, version.version, name, value)
        pointed = client.get_registered_model(service).aliases if found else {}
        ours = {int(version.version) for version in shown.values()}
        for alias, release in aliases.items():
            at = int(pointed.get(alias, 0))
            if release is None and at in ours:
                client.delete_registered_model_alias(service, alias)
            elif release in shown and at != int(shown[release].version):
                client.set_registered_model_alias(service, alias, shown[release].version)

    def _run(self, service: str, release: str, tags: dict[str, str]) -> str:
        """The run that a release is shown by: a new one, or that of a process that was killed before it had shown it.

        What such a process logged as the model is taken away: it need not be whole.
        """
        client, experiment = self.client(), self._experiment_id()
        found = client.search_runs([experiment], f"tags.release = '{release}'")
        if not found:
            return client.create_run(experiment, run_name=f"{service} {release[7:15]}", tags=tags).info.run_id
        run = found[0].info.run_id
        for model in client.search_logged_models([experiment], f"source_run_id = '{run}'"):
            client.delete_logged_model(model.model_id)
        return run

    def _experiment_id(self) -> str:
        client = self.client()
        found = client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else client.create_experiment(self.experiment, self.artifacts)
