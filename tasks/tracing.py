"""From one answer back to what led to it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from prefect_mlops.blocks import Actor, Entry, Environment, ReleaseLog, Run
from prefect_mlops.blocks._canonical import Value
from prefect_mlops.blocks.entry import Asked
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.blocks.records import Record, records_of
from prefect_mlops.blocks.state import fold
from prefect_mlops.tasks._runtime import CODE, ORIGIN, PYTHON, facts_of
from prefect_mlops.tasks.lineage import lineage_of


class NotRecorded(MlopsError):
    """No model server of the environment recorded such a request."""

    def __init__(self, environment: str, request_id: str) -> None:
        super().__init__(environment, request_id)
        self.environment, self.request_id = environment, request_id

    def __str__(self) -> str:
        return (
            f"no prediction with the request id {self.request_id!r} was recorded in {self.environment}; "
            "the id is in the answer's header x-request-id, and what pods record comes some seconds after the answer"
        )


class Trace(Value):
    """All that led to one answer."""

    request_id: str = Field(description="Id that the answer carried.")
    service: str = Field(description="What was asked.")
    records: tuple[Record, ...] = Field(description="Every record of the request: tries, shadows, feedback.")
    release: str = Field(description="Digest of the release that answered.")
    name: str = Field(description="The release as people call it.")
    run: Run | None = Field(description="The flow run that made it answer; none where it was done without Prefect.")
    actor: Actor = Field(description="On whose behalf that was done.")
    entry: int = Field(description="Number of the log entry that asked for it.")
    reason: str = Field(description="Why, as it was said then.")
    model: str = Field(description="Digest of the model's files.")
    data: str = Field(description="Digest of the training data.")
    files: tuple[str, ...] = Field(description="The files of the training data.")
    commit: str | None = Field(description="Id of the commit that has them; None where the log does not say.")
    source: str = Field(description="Where they came from: a path, a URL, a query; empty where that is not known.")
    rows: int | None = Field(description="How many rows the commit has; None where that is not known.")
    raw_commit: str | None = Field(description="The commit as it came in, where validation set rows of it aside.")
    raw_rows: int | None = Field(description="How many rows that one has.")
    code: dict[str, Any] = Field(description="The recipe, its commit where git knew, and the digests of the source.")
    runtime: dict[str, Any] = Field(description="Python and the digest of the list of installed packages.")
    metrics: dict[str, float] = Field(description="Figures on the hold-out.")


@task(name="trace-prediction", task_run_name="trace {request_id}", persist_result=False, cache_policy=NO_CACHE)
def trace_prediction(environment: Environment, request_id: str) -> Trace:
    """Say which release, run, code and data led to one answer.

    Args:
        environment: Where the request was answered.
        request_id: The answer's header `x-request-id`, or the caller's own id.

    Raises:
        NotRecorded: If no model server recorded such a request.
        ObjectMissing, ObjectDamaged: If what it leads to is not whole.
    """
    records = records_of(environment.records(), request_id)
    answers = [record for record in records if record.kind == "prediction" and record.role != "shadow"]
    if not answers:
        raise NotRecorded(environment.name, request_id)
    return _traced(environment, request_id, answers[-1], records)


def _traced(environment: Environment, request_id: str, answer: Record, records: Iterable[Record]) -> Trace:
    store = environment.store_block
    entries = list(ReleaseLog(store, environment.name).entries())
    document = store.release(answer.release)
    asked, origin = _asked(environment, entries, answer), lineage_of(store, entries, answer.release)
    code, runtime = store.snapshot(document.code), store.snapshot(document.runtime)
    return Trace(
        request_id=request_id,
        service=answer.service,
        records=tuple(records),
        release=answer.release,
        name=fold(entries).service(answer.service).named(answer.release),
        run=asked.run,
        actor=asked.actor,
        entry=asked.seq,
        reason=asked.reason,
        model=document.model,
        data=document.data,
        files=tuple(file.path for file in store.snapshot(document.data).files),
        commit=origin.commit,
        source=origin.data.source if origin.data else "",
        rows=origin.data.rows if origin.data else None,
        raw_commit=origin.raw_commit,
        raw_rows=origin.raw.rows if origin.raw else None,
        code={**facts_of(store, document.code, CODE, ORIGIN), "files": {f.path: f.digest for f in code.files}},
        runtime={**facts_of(store, document.runtime, PYTHON), "files": {f.path: f.digest for f in runtime.files}},
        metrics=json.loads(store.get(document.tests))["metrics"],
    )


def _asked(environment: Environment, entries: Iterable[Entry], answer: Record) -> Entry:
    """The newest entry before the answer that asked for its release in the role in which it answered."""
    found: Entry | None = None
    for entry in entries:
        if entry.time > answer.time and found is not None:
            break
        if isinstance(entry.body, Asked) and entry.service == answer.service:
            before, after = entry.body.before.arm(answer.release), entry.body.after.arm(answer.release)
            if after is not None and after != before and (after.role == answer.role or found is None):
                found = entry
    if found is None:
        raise NotRecorded(environment.name, answer.request_id)
    return found
