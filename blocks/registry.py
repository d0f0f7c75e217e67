"""The model registry: what people look at, never what anything is decided from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        model: Any,
        *,
        release: str,
        params: dict[str, str],
        metrics: dict[str, float],
        tags: dict[str, str],
        requirements: list[str],
        signature: Path,
    ) -> int:
        """Show a trained model, and return the version it is shown under.

        A release that is shown already is not shown twice.

        Args:
            service: Name of the registered model.
            model: The fitted model.
            release: Digest of the release document.
            params: Parameters of the training.
            metrics: Figures on the hold-out.
            tags: Digests of data, code, runtime and model.
            requirements: What the model needs; MLflow does not guess.
            signature: File that describes the model's inputs and outputs.
        """
        import mlflow
        import mlflow.sklearn as flavor

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        if (version := self.version_of(service, release)) is not None:
            return version
        client = self.client()
        run = client.create_run(self._experiment_id(), run_name=f"{service} {release[7:15]}", tags=tags).info.run_id
        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.start_run(run_id=run)
        try:
            mlflow.log_params(params)
            mlflow.log_metrics(metrics)
            mlflow.log_artifact(str(signature))
            logged = flavor.log_model(
                model, name="model", serialization_format="cloudpickle", pip_requirements=requirements
            )
        finally:
            mlflow.end_run()
        if not client.search_registered_models(filter_string=f"name = '{service}'"):
            client.create_registered_model(service)
        made = client.create_model_version(
            service, source=logged.model_uri, run_id=run, tags={"release": release, **tags}
        )
        return int(made.version)

    def version_of(self, service: str, release: str) -> int | None:
        """The version under which a release is shown, if it is."""
        found = self.client().search_model_versions(f"name = '{service}' and tags.release = '{release}'")
        return max((int(version.version) for version in found), default=None)

    def mark(self, service: str, release: str, alias: str, tags: dict[str, str]) -> None:
        """Point `alias`, such as `champion`, at the version of a release, and tag that version.

        A release that the registry does not show is left alone: the log is what counts.
        """
        version = self.version_of(service, release)
        if version is None:
            return
        client = self.client()
        client.set_registered_model_alias(service, alias, str(version))
        for name, value in tags.items():
            client.set_model_version_tag(service, str(version), name, value)

    def _experiment_id(self) -> str:
        client = self.client()
        found = client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else client.create_experiment(self.experiment, self.artifacts)
