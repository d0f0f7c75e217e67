"""Validating data: what is expected of it decides whether, and how much of, it may be learned from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from pydantic import Field

from prefect_mlops.blocks._canonical import Digest, Value
from prefect_mlops.blocks.commit import Commit, Extractor
from prefect_mlops.blocks.entry import Outcome
from prefect_mlops.blocks.errors import DataRefused
from prefect_mlops.blocks.log import moment, os_user
from prefect_mlops.blocks.store import Store
from prefect_mlops.tasks import _quarantine, _tables, _wording
from prefect_mlops.tasks._expecting import Measured, measure
from prefect_mlops.tasks._scratch import scratch_folder
from prefect_mlops.tasks._suites import Expectation, Severity, read_suite
from prefect_mlops.tasks._tables import Table
from prefect_mlops.tasks.runs import current_run

EXTRACTOR = f"{__name__}:validate_data"
"""What a commit of kept rows names as its extractor."""


class Check(Value):
    """What came of one expectation."""

    column: str = Field(description="The column, or the columns, or `the table`.")
    expected: str = Field(description="What is expected of it.")
    type: str = Field(description="The expectation, as Great Expectations calls it.")
    severity: Severity = Field(description="What a failure means: refused, set aside, or only said.")
    outcome: Outcome = Field(description="What came of it.")
    looked_at: int | None = Field(description="How many rows it is about; None if it is not about rows.")
    bad: int = Field(description="How many of them do not meet it.")
    first_row: int | None = Field(description="The first of them, counted from 1.")
    example: str = Field(description="What stands there.")
    sentence: str = Field(description="All that in a sentence.")
    spread: tuple[int, ...] = Field(description="How many bad rows there are in each tenth of the file.")


class Evidence(Value):
    """What a validation looked at and found; the same for the same data, suite and versions."""

    path: str = Field(description="The file that was looked at.")
    commit: Digest = Field(description="The commit that it is of.")
    suite: Digest = Field(description="The expectations, as a JSON document.")
    suite_name: str = Field(description="What the suite is called.")
    missing: tuple[str, ...] = Field(description="Texts in a CSV that stood for a missing value.")
    verdict: Literal["accepted", "refused"] = Field(description="Whether something may be made of it.")
    rows: int = Field(description="How many rows there are.")
    bad_rows: int = Field(description="How many of them were set aside.")
    quarantine: Digest | None = Field(description="Snapshot of those.")
    kept: Digest | None = Field(description="Snapshot of the others; None if it was refused.")
    checks: tuple[Check, ...] = Field(description="What came of each expectation, in the order of the suite.")
    measured_by: str = Field(description="What measured it.")
    format: Literal[1] = Field(default=1, description="Version of this document's format.")


class Validated(Value):
    """Data that may be learned from."""

    commit: Digest = Field(description="Commit of the rows that are kept; the one that came in if those are all.")
    rows: int = Field(description="How many rows that has.")
    bad_rows: int = Field(description="How many rows were set aside.")
    quarantine: Digest | None = Field(description="Snapshot of the rows that were set aside.")
    evidence: Digest = Field(description="Document of what was looked at and found.")
    results: tuple[Check, ...] = Field(description="What came of each expectation, in the order of the suite.")


def _task_name() -> str:
    return f"validate {str(task_run.parameters['commit']).removeprefix('sha256:')[:8]}"


@task(name="validate-data", task_run_name=_task_name, persist_result=False, cache_policy=NO_CACHE)
def validate_data(
    store: Store,
    commit: str,
    expectations: str | Path | Mapping[str, Any] | Any,
    *,
    missing: Iterable[str] = _tables.MISSING,
) -> Validated:
    """Hold a table against a suite of Great Expectations: refuse it, or set aside its bad rows and go on with the rest.

    What an expectation's failure does is its severity. `critical`: the data is refused as a whole, also where it
    could not be measured. `warning`: the rows that do not meet it are set aside. `info`: it is only said. Rows that
    `mostly` tolerates are kept. Rows set aside, and those for which data is refused, are a snapshot of their own:
    Parquet, with the columns `_commit`, `_path`, `_row` (from 1, the row after the header) and `_failed` before
    their own. No branch is moved.

    Args:
        store: Holds the data, and gets what is kept, what is set aside, and the evidence.
        commit: Id of the commit; its snapshot is one CSV or Parquet file, of any size.
        expectations: A suite: a JSON file, which may lie in a package as `package:file`, what that holds, or an
            `ExpectationSuite`.
        missing: Texts in a CSV that stand for a missing value.

    Returns:
        The commit to go on with, and what was found.

    Raises:
        DataRefused: If the data does not meet what is critical, or no row is left. It says what, where, how many.
        Invalid: If the suite is wrong, before any data is read, or the data is not one CSV or Parquet file.
        ObjectMissing, ObjectDamaged: If the snapshot is not whole.
    """
    suite = read_suite(expectations)
    raw = store.commit_at(commit)
    texts = tuple(missing)
    with scratch_folder() as scratch:
        data = scratch / "data"
        path = _tables.check_out(store, raw.snapshot, data)
        table = _tables.open_table(path, scratch / "table", texts)
        table = replace(table, path=path.relative_to(data).as_posix())
        _quarantine.check_names(table)
        found = measure(table, suite.expectations)
        checks = tuple(_check(one, what, table.rows) for one, what in zip(suite.expectations, found, strict=True))
        reasons = _reasons(checks)
        bad = _bad(checks, found, refused=bool(reasons))
        gone = len(_quarantine.union(bad))
        if 0 < gone == table.rows:
            reasons = reasons or (f"no row is left: something is against each of {gone:,}",)
        aside, kept = _parted(store, table, commit, bad, scratch, refused=bool(reasons))
    evidence = Evidence(
        path=table.path,
        commit=commit,
        suite=store.put(suite.document),
        suite_name=suite.name,
        missing=texts,
        verdict="refused" if reasons else "accepted",
        rows=table.rows,
        bad_rows=gone,
        quarantine=aside,
        kept=None if reasons else (kept or raw.snapshot),
        checks=checks,
        measured_by=f"great-expectations {metadata.version('great-expectations')}",
    )
    name = store.put(evidence.canonical())
    if reasons:
        raise DataRefused(table.path, commit, reasons, gone, aside, name)
    return Validated(
        commit=_committed(store, commit, raw, table, evidence, name),
        rows=table.rows - gone,
        bad_rows=gone,
        quarantine=aside,
        evidence=name,
        results=checks,
    )


def _check(one: Expectation, found: Measured, rows: int) -> Check:
    return Check(
        column=_wording.about(one),
        expected=_wording.expected(one),
        type=one.type,
        severity=one.severity,
        outcome=_outcome(one, found),
        looked_at=found.looked_at if found.by_row else None,
        bad=len(found.bad),
        first_row=int(found.bad[0]) + 1 if found.bad.size else None,
        example=found.example,
        sentence=_wording.sentence(one, found, rows),
        spread=tuple(np.histogram(found.bad, bins=10, range=(0, rows))[0].tolist()) if found.bad.size else (),
    )


def _outcome(one: Expectation, found: Measured) -> Outcome:
    """Great Expectations takes no values for good values; here they say nothing, unless a row condition left none."""
    if found.success is None:
        return "could not be measured"
    if found.by_row and not found.looked_at and not one.conditional:
        return "inconclusive"
    return "passed" if found.success else "failed"


def _reasons(checks: Iterable[Check]) -> tuple[str, ...]:
    """Why the data is refused; several expectations that trip over one missing column are one reason."""
    stopping = (check.sentence for check in checks if check.severity == "critical" and check.outcome != "passed")
    return tuple(dict.fromkeys(stopping))


def _bad(checks: Iterable[Check], found: Iterable[Measured], *, refused: bool) -> dict[str, _quarantine.Rows]:
    """By what is expected, the rows to set aside; as evidence of a refusal, also those that hindered measuring."""
    return {
        f"{check.column}: {check.expected}": what.bad
        for check, what in zip(checks, found, strict=True)
        if check.severity != "info" and what.bad.size and (check.outcome == "failed" or (refused and not what.success))
    }


def _parted(
    store: Store, table: Table, commit: str, bad: dict[str, _quarantine.Rows], folder: Path, *, refused: bool
) -> tuple[str | None, str | None]:
    """Keep the bad rows as a snapshot, and the others, where they go on."""
    if not bad:
        return None, None
    stem = Path(table.path).stem
    aside, kept = folder / f"{stem}.quarantine.parquet", None if refused else folder / f"{stem}.parquet"
    _quarantine.part(table, commit, bad, aside, kept)
    return store.pack(aside).id, store.pack(kept).id if kept else None


def _committed(store: Store, commit: str, raw: Commit, table: Table, evidence: Evidence, name: str) -> str:
    """The commit of what is kept; where that is all, the one that came in."""
    if evidence.kept is None or evidence.kept == raw.snapshot:
        return commit
    kept = Commit(
        snapshot=evidence.kept,
        parents=(commit,),
        source=raw.source,
        extractor=Extractor(name=EXTRACTOR, arguments={"evidence": name}),
        columns=table.columns,
        rows=table.rows - evidence.bad_rows,
        run=current_run(),
        actor=os_user(),
        message=f"{evidence.bad_rows:,} of {table.rows:,} rows set aside as {evidence.quarantine}",
        time=moment(datetime.now(UTC)),
    )
    return store.put(kept.canonical())
