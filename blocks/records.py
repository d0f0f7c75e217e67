"""Prediction records: what was asked, what was answered, by which release."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from prefect_mlops.blocks._canonical import Value
from prefect_mlops.blocks._recent import Recent
from prefect_mlops.blocks._segments import checked, prefix_of

_KEY = ("kind", "request_id", "release", "role", "attempt", "feedback_id")
_TEXTS = ("input_names", "inputs", "output_names", "outputs", "truth")
_MOST_RECENT = 100_000


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


class Source(Protocol):
    """Where model servers left records: lines in spools that still grow, and segments that never change."""

    @property
    def lanes(self) -> int:
        """How many segments are worth reading at once."""
        ...

    def lines(self) -> Iterator[bytes]:
        """The lines of spools that are not sealed yet, the last of which may not be whole."""
        ...

    def names(self, since: str = "") -> Iterator[str]:
        """The name of every segment that may have records of the time `since` or later."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes of a segment, checked, or None where it is gone."""
        ...


@dataclass(frozen=True)
class Spools:
    """The records of model servers of this machine.

    Attributes:
        folder: Their spool folders, or any folder above them.
    """

    folder: Path
    lanes: int = 2

    def lines(self) -> Iterator[bytes]:
        """Every line in files that are not sealed yet."""
        for path in sorted(self.folder.rglob("open-*.jsonl")):
            try:
                yield from path.read_bytes().splitlines(keepends=True)
            except FileNotFoundError:
                continue

    def names(self, since: str = "") -> Iterator[str]:
        """The path of every segment that may have records of the time `since` or later."""
        begin = prefix_of(since)
        return (str(path) for path in sorted(self.folder.rglob("segment-*.parquet")) if path.name > begin)

    def read(self, name: str) -> bytes | None:
        """The bytes of a segment, or None where it is gone.

        Raises:
            ObjectDamaged: If they are not those that its name says.
        """
        try:
            data = Path(name).read_bytes()
        except FileNotFoundError:
            return None
        return checked(str(self.folder), name, data)


def records_of(sources: Iterable[Source], request_id: str) -> list[Record]:
    """Every record of one request, oldest first; a record that was kept twice is returned once.

    Args:
        sources: Where records are, as `Environment.records` says.
        request_id: The id that the answer carried, or the caller's own.

    Raises:
        ObjectDamaged: If a segment was changed.
        StoreUnreachable: If a store does not answer.
    """
    return _found(sources, _OfRequest(request_id))


def predictions_of(sources: Iterable[Source], releases: Iterable[str], since: str) -> list[Record]:
    """Every prediction of some releases, oldest first; one that was kept twice is returned once.

    Ask again as often as you like: what was read before is not read again.

    Args:
        sources: Where records are, as `Environment.records` says.
        releases: Digests of the releases.
        since: Moment from which on requests had arrived, in UTC with microseconds.

    Raises:
        ObjectDamaged, StoreUnreachable: As in `records_of`.
    """
    return _found(sources, _OfReleases(tuple(releases), since))


class _Query(Protocol):
    """What is looked for. It is equal to another that finds the same."""

    @property
    def since(self) -> str: ...

    def needles(self) -> tuple[str, ...]:
        """Texts of which a line that is wanted has one."""
        ...

    def expression(self, field: Callable[[str], Any]) -> Any:
        """The same of rows in a segment, exactly."""
        ...

    def accepts(self, record: dict[str, Any]) -> bool:
        """The same of a row."""
        ...


@dataclass(frozen=True)
class _OfRequest:
    request_id: str
    since: str = ""

    def needles(self) -> tuple[str, ...]:
        return (self.request_id,)

    def expression(self, field: Callable[[str], Any]) -> Any:
        return (field("request_id") == self.request_id) | (field("client_request_id") == self.request_id)

    def accepts(self, record: dict[str, Any]) -> bool:
        return self.request_id in (record["request_id"], record.get("client_request_id"))


@dataclass(frozen=True)
class _OfReleases:
    releases: tuple[str, ...]
    since: str

    def needles(self) -> tuple[str, ...]:
        return self.releases

    def expression(self, field: Callable[[str], Any]) -> Any:
        begin = datetime.fromisoformat(self.since)
        return field("release").isin(self.releases) & (field("time") >= begin) & (field("kind") == "prediction")

    def accepts(self, record: dict[str, Any]) -> bool:
        wanted = record["kind"] == "prediction" and record["release"] in self.releases
        return wanted and record["time"] >= self.since


_Rows = tuple[tuple[tuple[Any, ...], Record], ...]
"""Records, each with what is the same where it was kept twice."""

_recent: Recent[tuple[_Query, str], _Rows] = Recent(_MOST_RECENT)


def _found(sources: Iterable[Source], query: _Query) -> list[Record]:
    found: dict[tuple[Any, ...], Record] = {}
    for source in sources:
        # Spools first: what is sealed meanwhile is then found twice, never not at all.
        for rows in (_in_spools(source, query), *_in_segments(source, query)):
            for key, record in rows:
                found.setdefault(key, record)
    return sorted(found.values(), key=lambda record: (record.time, record.attempt))


def _in_spools(source: Source, query: _Query) -> _Rows:
    needles = [needle.encode() for needle in query.needles()]
    whole = (line for line in source.lines() if line.endswith(b"\n") and any(needle in line for needle in needles))
    return tuple(_keyed(row) for row in map(json.loads, whole) if query.accepts(row))


def _in_segments(source: Source, query: _Query) -> list[_Rows]:
    with ThreadPoolExecutor(source.lanes) as lanes:
        return list(lanes.map(partial(_in_segment, source, query), source.names(query.since)))


def _in_segment(source: Source, query: _Query, name: str) -> _Rows:
    known = (query, name.rpartition("/")[2])  # its digest, so what it holds
    rows = _recent.get(known)
    if rows is None:
        data = source.read(name)
        rows = () if data is None else tuple(map(_keyed, _selected(data, query)))
        _recent.put(known, rows, 1 + len(rows))
    return rows


def _selected(data: bytes, query: _Query) -> list[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import dataset, parquet

    table = parquet.read_table(pa.BufferReader(data), filters=query.expression(dataset.field), use_threads=False)
    return table.to_pylist()


def _keyed(row: dict[str, Any]) -> tuple[tuple[Any, ...], Record]:
    return tuple(row.get(name) for name in _KEY), _record(row)


def _record(row: dict[str, Any]) -> Record:
    known = {name: value for name, value in row.items() if name in Record.model_fields and value is not None}
    for name in _TEXTS:
        if isinstance(known.get(name), str):
            known[name] = json.loads(known[name])
    if isinstance(known["time"], datetime):
        known["time"] = known["time"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return Record(**known)
