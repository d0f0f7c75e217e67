"""Requests that wait at the same time are joined to one call of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from prefect_mlops.deployments.server._errors import ModelFailed
from prefect_mlops.deployments.server._signature import Row

MAX_JOINT_ROWS = 512
REUNION = 0.25
"""Share of a call's duration for which callers that it answered are given time to come back."""

Predict = Callable[[Sequence[Row]], list[Row]]
Outcome = list[Row] | ModelFailed
About = TypeVar("About")


@dataclass(slots=True, eq=False)
class Job(Generic[About]):
    """One request that waits for the model: its rows, and what its answer will need."""

    rows: list[Row]
    about: About


class Batcher(Generic[About]):
    """Calls the model, in a thread of its own, for all requests that came while its previous call ran.

    A caller that is alone is never held back. Callers that ask again as soon as they are answered
    would fall into two groups that wait for each other in turn, so for a moment after each call,
    at most a quarter of what it took, the next one waits until as many requests are there as were
    just answered or already waited.

    Each request gets what it would have got alone: where a joint call fails, every request of it
    is tried by itself.

    Args:
        predict: The model.
        deliver: Gets the jobs of a call with their outcomes, in the event loop's thread.
    """

    def __init__(self, predict: Predict, deliver: Callable[[list[Job[About]], list[Outcome]], None]) -> None:
        self._predict, self._deliver = predict, deliver
        self._waiting: deque[Job[About]] = deque()
        self._running = False
        self._planned: asyncio.Handle | None = None
        self._expected, self._reunion_ends = 0, 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    def put(self, job: Job[About]) -> None:
        """Queue `job`; `deliver` gets it when the model has answered."""
        self._waiting.append(job)
        if not self._running:
            self._plan(asyncio.get_running_loop())

    def close(self) -> None:
        """Wait for the call that runs, then stop the model's thread."""
        self._thread.shutdown(wait=True)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start as soon as all whose bytes have come are read, or wait for the others to come back."""
        if len(self._waiting) < self._expected and loop.time() < self._reunion_ends:
            if self._planned is None:
                self._planned = loop.call_at(self._reunion_ends, self._start, loop)
        elif self._expected or self._planned is None:
            self._expected = 0
            if self._planned is not None:
                self._planned.cancel()
            self._planned = loop.call_soon(self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._planned, self._running, self._expected = None, True, 0
        jobs, began = self._take(), loop.time()
        call = loop.run_in_executor(self._thread, outcomes, self._predict, [job.rows for job in jobs])
        call.add_done_callback(lambda done: self._finish(loop, jobs, began, done))

    def _finish(
        self, loop: asyncio.AbstractEventLoop, jobs: list[Job[About]], began: float, done: asyncio.Future[list[Outcome]]
    ) -> None:
        now = loop.time()
        self._running = False
        self._expected, self._reunion_ends = len(jobs) + len(self._waiting), now + REUNION * (now - began)
        self._deliver(jobs, done.result())
        if self._waiting:
            self._plan(loop)

    def _take(self) -> list[Job[About]]:
        jobs = [self._waiting.popleft()]
        rows = len(jobs[0].rows)
        while self._waiting and rows + len(self._waiting[0].rows) <= MAX_JOINT_ROWS:
            jobs.append(self._waiting.popleft())
            rows += len(jobs[-1].rows)
        return jobs


def outcomes(predict: Predict, requests: list[list[Row]]) -> list[Outcome]:
    """What the model answers to each of `requests`: jointly, or one by one where the joint call fails."""
    try:
        answers = predict([row for rows in requests for row in rows])
    except ModelFailed as error:
        if len(requests) == 1:
            return [error]
        return [outcomes(predict, [rows])[0] for rows in requests]
    parts: list[Outcome] = []
    start = 0
    for rows in requests:
        parts.append(answers[start : start + len(rows)])
        start += len(rows)
    return parts
