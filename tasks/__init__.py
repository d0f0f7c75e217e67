"""Verbs: one Prefect task an action, each usable alone in a flow of one's own."""

from prefect_mlops.tasks.probing import probe_release, watch_release
from prefect_mlops.tasks.tracing import Trace, trace_prediction
from prefect_mlops.tasks.traffic import shift_traffic
from prefect_mlops.tasks.training import Candidate, register_model, snapshot_data, train_model

__all__ = [
    "Candidate",
    "Trace",
    "probe_release",
    "register_model",
    "shift_traffic",
    "snapshot_data",
    "trace_prediction",
    "train_model",
    "watch_release",
]
