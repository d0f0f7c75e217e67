"""A person at the Prefect UI: finds the run that waits, looks at what it shows, and presses Resume."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.types import DateTime

from prefect_mlops.blocks._wait import wait_until

SECONDS = 300
"""How long the run may take until it asks."""


def decided(flow: Callable[[], str], tag: str, decision: dict[str, Any]) -> str:
    """Run a flow that asks a person, and be that person, as the Resume button of its page is.

    Args:
        flow: Calls the flow.
        tag: By which its run is found.
        decision: What to fill in.

    Returns:
        What the flow returns.

    Raises:
        TimeoutError: If it asks nobody.
    """
    outcome: Future[str] = Future()
    began, context = DateTime.now("UTC"), copy_context()  # the context says which Prefect server is meant
    Thread(target=context.run, args=(_carry_out, flow, outcome), daemon=True).start()
    with get_client(sync_client=True) as client:
        waiting: list[UUID] = []

        def asks() -> bool:
            waiting[:] = _waiting(client, tag, began)
            return bool(waiting) or outcome.done()

        if not wait_until(asks, seconds=SECONDS, pause=0.2):
            raise TimeoutError(f"the run asked nobody within {SECONDS} s")
        if waiting:
            client.resume_flow_run(waiting[0], run_input=decision)
    return outcome.result()


def _carry_out(flow: Callable[[], str], outcome: Future[str]) -> None:
    try:
        outcome.set_result(flow())
    except BaseException as error:  # noqa: BLE001 - whoever waits for the outcome gets it
        outcome.set_exception(error)


def _waiting(client: SyncPrefectClient, tag: str, since: DateTime) -> list[UUID]:
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[tag, "prefect-mlops:release"]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])),
            start_time=FlowRunFilterStartTime(after_=since),
        )
    )
    return [run.id for run in runs]
