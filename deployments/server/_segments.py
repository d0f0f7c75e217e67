"""Sealing: a spool file becomes a segment, Parquet under the digest of its bytes, and is then deleted.

A segment is called `segment-<time>-<digest>.parquet`, by the newest `time` in it as `20261121T101300123456Z`
and the sha256 of its bytes, so that readers need not open what is too old for them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from prefect_mlops.deployments.server._say import say

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("request_id", pa.string()),
        ("client_request_id", pa.string()),
        ("attempt", pa.int32()),
        ("time", pa.timestamp("us", "UTC")),
        ("namespace", pa.string()),
        ("service", pa.string()),
        ("release", pa.string()),
        ("model", pa.string()),
        ("role", pa.string()),
        ("instance", pa.string()),
        ("rows", pa.int32()),
        ("input_names", pa.string()),
        ("inputs", pa.string()),
        ("output_names", pa.string()),
        ("outputs", pa.string()),
        ("latency_ms", pa.float64()),
        ("status", pa.int32()),
        ("error", pa.string()),
        ("feedback_id", pa.string()),
        ("reward", pa.float64()),
        ("truth", pa.string()),
    ]
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seal(path: Path) -> Path | None:
    """Turn the spool file `path` into a segment beside it, and delete it.

    Safe to repeat: the same spool file gives a segment of the same bytes, which is then there already.

    Returns:
        The segment, or None where there was no record in it, or its writer is still alive.

    Raises:
        OSError: If the disk does not take it; the spool file is then still there.
    """
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.fdopen(os.dup(source), "rb") as file:
            data = _whole_lines(path, file.read())
        table = _records(path, data) if data else None
        segment = _write(path.parent, table) if table is not None else None
        path.unlink(missing_ok=True)
        return segment
    except BlockingIOError:
        return None
    finally:
        os.close(source)


def _whole_lines(path: Path, data: bytes) -> bytes:
    whole, line_end, torn = data.rpartition(b"\n")
    if torn:
        say(f"{path.name}: dropped a last line of {len(torn)} bytes that was never finished, so never answered")
    return whole + line_end


def _records(path: Path, data: bytes) -> Any:
    """The table of the lines that can be read, or None where none can."""
    try:
        return _table(data)
    except pa.ArrowInvalid:
        readable = _readable(path, data)
        return _table(readable) if readable else None


def _table(data: bytes) -> Any:
    """The Arrow table of some lines; Arrow gives no types to say so."""
    options = pa_json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore")
    reading = pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    return pa_json.read_json(pa.BufferReader(data), read_options=reading, parse_options=options)


def _readable(path: Path, data: bytes) -> bytes:
    """The lines that are records by themselves; a disk that filled up may have left half a line between them."""
    lines = data.splitlines(keepends=True)
    good = [line for line in lines if _is_record(line)]
    say(f"{path.name}: dropped {len(lines) - len(good)} of {len(lines)} lines that cannot be read")
    return b"".join(good)


def _is_record(line: bytes) -> bool:
    try:
        _table(line)
    except pa.ArrowInvalid:
        return False
    return True


def _write(folder: Path, table: Any) -> Path:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_index=True)
    data = sink.getvalue().to_pybytes()
    segment = folder / f"segment-{_newest(table)}-{hashlib.sha256(data).hexdigest()}.parquet"
    if not segment.exists():
        _put(segment, data)
    return segment


def _newest(table: Any) -> str:
    times = table["time"].drop_null().cast(pa.int64()).to_numpy()
    return (_EPOCH + timedelta(microseconds=int(times.max(initial=0)))).strftime("%Y%m%dT%H%M%S%fZ")


def _put(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")  # whoever else seals the same records writes the same bytes
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
