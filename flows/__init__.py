"""Sentences: the flows that a person triggers or a schedule starts."""

from prefect_mlops.flows.ingest import ingest_data
from prefect_mlops.flows.promote import promote_candidate
from prefect_mlops.flows.reconcile import reconcile_serving
from prefect_mlops.flows.release import release_model
from prefect_mlops.flows.rollback import rollback_release
from prefect_mlops.flows.train import train_candidate

__all__ = [
    "ingest_data",
    "promote_candidate",
    "reconcile_serving",
    "release_model",
    "rollback_release",
    "train_candidate",
]
