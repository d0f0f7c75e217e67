"""Prediction records: what was asked, what was answered, by which release."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from prefect_mlops.blocks._canonical import Value

_KEY = ("kind", "request_id", "release", "role", "attempt", "feedback_id")
_TEXTS = ("input_names", "inputs", "output_names", "outputs", "truth")


class Record(Value):
    """One answer of a model server, or one feedback to it."""

    kind: str = Field(description="prediction or feedback.")
    request_id: str = Field(description="Id that the answer carried.")
    attempt: int = Field(description="Which try of the gateway it was, from 1.")
    time: str = Field(description="When the request had arrived.")
    service: str = Field(description="What was asked.")
    release: str = Field(description="Digest of the release that answered.")
    model: str = Field(description="Digest of its model.")
    role: str = Field(description="Role of the arm: live, warm or shadow.")
    status: int = Field(description="Status of the answer.")
    latency_ms: float = Field(description="From the request's arrival to the record.")
    input_names: list[str] | None = Field(default=None, description="The fields of a row.")
    inputs: list[list[Any]] | None = Field(default=None, description="The rows that were asked about.")
    output_names: list[str] | None = Field(default=None, description="The names of the answer's columns.")
    outputs: list[list[Any]] | None = Field(default=None, description="The answer, a row each.")
    reward: float | None = Field(default=None, description="The feedback's reward.")
    truth: Any = Field(default=None, description="The feedback's truth.")


def records_of(folders: Iterable[Path], request_id: str) -> list[Record]:
    """Every record of one request, oldest first; a record that was kept twice is returned once.

    Args:
        folders: Spool folders of model servers; folders below them are read too.
        request_id: The id that the answer carried, or the caller's own.
    """
    needle = request_id.encode()
    rows = _rows(
        folders,
        (needle,),
        lambda field: (field("request_id") == request_id) | (field("client_request_id") == request_id),
    )
    return _once(row for row in rows if request_id in (row["request_id"], row.get("client_request_id")))


def predictions_of(folders: Iterable[Path], releases: Iterable[str], since: str) -> list[Record]:
    """Every prediction of some releases, oldest first; one that was kept twice is returned once.

    Args:
        folders: Spool folders of model servers; folders below them are read too.
        releases: Digests of the releases.
        since: Moment from which on requests had arrived, in UTC with microseconds.
    """
    wanted, begin = list(releases), datetime.fromisoformat(since)
    rows = _rows(
        folders,
        tuple(release.encode() for release in wanted),
        lambda field: field("release").isin(wanted) & (field("time") >= begin) & (field("kind") == "prediction"),
    )
    found = _once(row for row in rows if row["kind"] == "prediction" and row["release"] in wanted)
    return [record for record in found if record.time >= since]


def _once(rows: Iterable[dict[str, Any]]) -> list[Record]:
    found: dict[tuple[Any, ...], Record] = {}
    for row in rows:
        key = tuple(row.get(name) for name in _KEY)
        if key not in found:
            found[key] = _record(row)
    return sorted(found.values(), key=lambda record: (record.time, record.attempt))


def _rows(
    folders: Iterable[Path], needles: tuple[bytes, ...], wanted: Callable[[Callable[[str], Any]], Any]
) -> Iterator[dict[str, Any]]:
    for folder in folders:
        # Spools first: what is sealed meanwhile is then found twice, never not at all.
        yield from _in_spools(folder, needles)
        yield from _in_segments(folder, wanted)


def _in_segments(folder: Path, wanted: Callable[[Callable[[str], Any]], Any]) -> Iterator[dict[str, Any]]:
    paths = sorted(folder.rglob("segment-*.parquet"))
    if not paths:
        return
    from pyarrow import dataset

    yield from dataset.dataset([str(path) for path in paths]).to_table(filter=wanted(dataset.field)).to_pylist()


def _in_spools(folder: Path, needles: tuple[bytes, ...]) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("open-*.jsonl")):
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            continue
        for line in lines:
            if line.endswith(b"\n") and any(needle in line for needle in needles):
                yield json.loads(line)


def _record(row: dict[str, Any]) -> Record:
    known = {name: value for name, value in row.items() if name in Record.model_fields and value is not None}
    for name in _TEXTS:
        if isinstance(known.get(name), str):
            known[name] = json.loads(known[name])
    if isinstance(known["time"], datetime):
        known["time"] = known["time"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return Record(**known)
