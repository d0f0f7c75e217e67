"""Flow runs, as Prefect knows them: this one, and what has become of another."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from prefect_mlops.blocks.entry import Run


def current_run() -> Run | None:
    """The flow run that this code is running in, if any."""
    if not flow_run.id:
        return None
    return Run(id=str(flow_run.id), name=str(flow_run.name), flow=str(flow_run.flow_name))


def state_of(run: Run) -> State[Any] | None:
    """How a run stands; None where Prefect does not know it or does not answer, or this is no flow run itself."""
    if current_run() is None:  # there may be no server, and Prefect would start one
        return None
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(UUID(run.id)).state
    except (ObjectNotFound, httpx.HTTPError, ValueError):
        return None


def has_ended(run: Run) -> bool:
    """Whether Prefect says that a run is over: a hint when to look, never a proof that nothing of it lives."""
    state = state_of(run)
    return state is not None and state.is_final()
