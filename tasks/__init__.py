"""Verbs: one Prefect task an action, each usable alone in a flow of one's own."""

from prefect_mlops.tasks.comparing import Comparison, compare_predictions
from prefect_mlops.tasks.probing import probe_release, watch_release
from prefect_mlops.tasks.snapshots import move_branch, snapshot_data
from prefect_mlops.tasks.testing import Tested, Verdict, test_model
from prefect_mlops.tasks.tracing import Trace, trace_prediction
from prefect_mlops.tasks.traffic import shift_traffic
from prefect_mlops.tasks.training import Candidate, register_model, train_model
from prefect_mlops.tasks.validation import Validated, validate_data

__all__ = [
    "Candidate",
    "Comparison",
    "Tested",
    "Trace",
    "Validated",
    "Verdict",
    "compare_predictions",
    "move_branch",
    "probe_release",
    "register_model",
    "shift_traffic",
    "snapshot_data",
    "test_model",
    "trace_prediction",
    "train_model",
    "validate_data",
    "watch_release",
]
