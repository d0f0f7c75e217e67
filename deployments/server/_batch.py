"""Requests that wait at the same time are joined to one call of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prefect_mlops.deployments.server._errors import ModelFailed
from prefect_mlops.deployments.server._signature import Row

MAX_JOINT_ROWS = 512

Predict = Callable[[Sequence[Row]], list[Row]]
Outcome = list[Row] | ModelFailed


@dataclass(slots=True, eq=False)
class Job:
    """One request that waits for the model; `done` gets what `deliver` makes of its outcome."""

    rows: list[Row]
    done: asyncio.Future[Any]
    about: Any = field(default=None)


class Batcher:
    """Calls the model for all requests that came while its previous call ran.

    A request alone is not held back. Each request gets what it would have got alone: where a
    joint call fails, every request of it is tried by itself.

    Args:
        predict: The model.
        deliver: Gets the jobs of a call with their outcomes, in the event loop's thread.
    """

    def __init__(self, predict: Predict, deliver: Callable[[list[Job], list[Outcome]], None]) -> None:
        self._predict, self._deliver = predict, deliver
        self._waiting: deque[Job] = deque()
        self._busy = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    def put(self, job: Job) -> None:
        """Queue `job`; its future is set by `deliver`."""
        self._waiting.append(job)
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._next)

    def close(self) -> None:
        """Wait for the call that runs, then stop the model's thread."""
        self._thread.shutdown(wait=True)

    def _next(self) -> None:
        if not self._waiting:
            self._busy = False
            return
        jobs = self._take()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, outcomes, self._predict, [job.rows for job in jobs])
        future.add_done_callback(lambda done: self._finished(jobs, done))

    def _finished(self, jobs: list[Job], done: asyncio.Future[list[Outcome]]) -> None:
        self._deliver(jobs, done.result())
        asyncio.get_running_loop().call_soon(self._next)

    def _take(self) -> list[Job]:
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
