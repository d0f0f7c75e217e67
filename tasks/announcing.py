"""Telling Prefect that a branch moved: a hint for those who wait for data, never what anything rests on."""

from __future__ import annotations

from prefect.events import emit_event

from prefect_mlops.blocks.commit import Move
from prefect_mlops.tasks.runs import current_run

BRANCH_MOVED = "prefect-mlops.branch.moved"


def announce(move: Move) -> None:
    """Emit an event about a move that is durable, where there is a run to emit it from.

    Automations match its resource's labels `prefect-mlops.branch` and `prefect-mlops.store`. Whoever moves a branch
    without Prefect tells nobody: a scheduled run looks at the branch itself.
    """
    if current_run() is None:
        return
    emit_event(
        BRANCH_MOVED,
        resource={
            "prefect.resource.id": f"prefect-mlops.branch.{move.store}.{move.branch}",
            "prefect.resource.name": move.branch,
            "prefect-mlops.branch": move.branch,
            "prefect-mlops.store": move.store,
        },
        payload={"move": move.seq, "commit": move.commit, "reason": move.reason},
    )
