"""A training step as a run of its own, on a machine with what its recipe asks for."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterLevel
from prefect.client.schemas.objects import FlowRun, Log, State
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling
from pydantic import TypeAdapter, ValidationError

from prefect_mlops.blocks import Digest, Environment, Recipe, Store
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import Invalid, StepFailed, StoreUnreachable
from prefect_mlops.flows._reporting import say
from prefect_mlops.tasks import Candidate

PAUSE = 2.0
"""Seconds between two looks at the run."""

LOGS_SECONDS = 30.0
"""How long the worker may take to see and say why a pod died."""

OBSERVER = "prefect.flow_runs.observer"
"""The logger of the worker's part that looks at pods."""

DIAGNOSIS = "Resolution:"
"""What tells its diagnosis from the lines of a dead container, which it logs too; advice for any pod follows."""


def trained_apart(environment: Environment, recipe: Recipe, snapshot: str) -> Candidate:
    """A candidate that the deployment `train-snapshot` of this environment trains with the recipe's resources.

    Of one run it is started once, however often that run is started again; who cancels that run cancels it too.

    Raises:
        Invalid: If nothing of that name is deployed.
        StepFailed: If it does not start in time, fails, crashes, or is cancelled.
        StoreUnreachable: If the store does not answer, to this run or to that one.
    """
    run = _start(environment, recipe, snapshot)
    wanted = ", ".join(f"{name} {value}" for name, value in recipe.resources.job_variables().items())
    say(f"it needs {wanted}: trained in run {run.name} ({run.id})")
    step, store = f"training {recipe.name}", environment.store_block
    with get_client(sync_client=True) as client:
        ended = _end(client, run, step, environment.start_seconds)
        name, message = ended.name or ended.type.name, ended.message or ""
        if ended.is_completed():
            return _candidate(store, message, StepFailed(step, run.name, name, f"its message is {message!r}"))
        if name == StoreUnreachable.__name__:
            raise StoreUnreachable(store.url, f"run {run.name} says: {message}")
        reason = _last_words(client, run.id) if ended.is_crashed() else ""
        raise StepFailed(step, run.name, name, reason or message)


def _start(environment: Environment, recipe: Recipe, snapshot: str) -> FlowRun:
    name = f"train-snapshot/{environment.name}"
    parameters: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "snapshot": snapshot,
        "environment": environment.name,
    }
    try:
        started = run_deployment(
            name,
            parameters=parameters,
            job_variables=recipe.resources.job_variables(),
            timeout=0,
            idempotency_key=f"{flow_run.id}-{snapshot}",
        )
    except ObjectNotFound as error:
        advice = "deploy it beside the flow that needs it, or ask for no more in the recipe than that flow's run has"
        raise Invalid("what trains apart", "is a deployment on the server", name, advice) from error
    return cast(FlowRun, started)  # outside of an event loop it is no coroutine


def _end(client: SyncPrefectClient, run: FlowRun, step: str, start_seconds: float) -> State[Any]:
    """The state in which a run ended.

    Raises:
        StepFailed: If it does not start in time. It is cancelled.
    """
    seen = _Seen(client, run.id)
    if not wait_until(seen.has_begun, seconds=start_seconds, pause=PAUSE):
        client.set_flow_run_state(run.id, Cancelling(message=f"It did not start in {start_seconds} s."))
        why = _last_words(client, run.id) or seen.state.message or ""
        raise StepFailed(step, run.name, f"before it began, after {start_seconds} s", why)
    wait_until(seen.has_ended, seconds=math.inf, pause=PAUSE)
    return seen.state


class _Seen:
    """The state of a run, looked at again and again; while Prefect does not answer, as it was last seen."""

    def __init__(self, client: SyncPrefectClient, run: UUID) -> None:
        self._client, self._run = client, run
        self.state: State[Any] = client.read_flow_run(run).state or Cancelling()

    def has_begun(self) -> bool:
        return self._look().is_running() or self.has_ended()

    def has_ended(self) -> bool:
        return self._look().is_final()

    def _look(self) -> State[Any]:
        with suppress(httpx.HTTPError):
            self.state = self._client.read_flow_run(self._run).state or self.state
        return self.state


def _last_words(client: SyncPrefectClient, run: UUID) -> str:
    """Why the pod of a run died or does not start, as the worker sees it; else what was logged last."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]), level=LogFilterLevel(ge_=logging.WARNING))
    logs: list[Log] = []

    def look() -> bool:
        logs[:] = client.read_logs(wanted, limit=50, sort=LogSort.TIMESTAMP_DESC)
        return any(log.name == OBSERVER for log in logs)

    wait_until(look, seconds=LOGS_SECONDS, pause=PAUSE)
    seen = [log.message.strip() for log in logs if log.name == OBSERVER] or [log.message.strip() for log in logs]
    diagnosed = [words.partition(DIAGNOSIS)[0].strip() for words in seen if DIAGNOSIS in words]
    return next(iter([*diagnosed, *seen]), "")


def _candidate(store: Store, document: str, otherwise: StepFailed) -> Candidate:
    """The candidate whose document a run left in the store."""
    try:
        return Candidate.model_validate_json(store.get(TypeAdapter(Digest).validate_python(document)))
    except ValidationError as error:
        raise otherwise from error
