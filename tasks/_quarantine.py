"""Parting a table: the rows that are kept, and those set aside with their address and what is against them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.tasks._tables import ArrowColumn, ArrowSchema, ArrowTable, Table

ROW_GROUP = 65_536
"""Rows that a writer holds until it has enough; all columns of them are in memory, more than once."""

Rows = npt.NDArray[np.int64]

ADDRESS = pa.schema(
    [("_commit", pa.string()), ("_path", pa.string()), ("_row", pa.int64()), ("_failed", pa.list_(pa.string()))]
)
"""What stands before the columns of a row that was set aside: where it is, and what it does not meet."""


def check_names(table: Table) -> None:
    """Refuse a table whose columns would be taken for addresses.

    Raises:
        Invalid: If a column is called as one of `ADDRESS` is.
    """
    if taken := sorted(set(ADDRESS.names) & set(table.schema.names)):
        advice = "rename them; if these rows come out of a quarantine, drop them"
        raise Invalid(f"the columns of {table.path}", f"are not called {', '.join(ADDRESS.names)}", taken, advice)


def union(bad: Mapping[str, Rows]) -> Rows:
    """All rows that something is against, each once, in their order."""
    return np.unique(np.concatenate(list(bad.values()))) if bad else np.empty(0, np.int64)


def part(table: Table, commit: str, bad: Mapping[str, Rows], aside: Path, kept: Path | None) -> None:
    """Write the bad rows to one Parquet file, and the others to another, in one pass.

    Args:
        table: The table.
        commit: Id of the commit that it is.
        bad: By what is expected, where the rows are that do not meet it: from 0, in order.
        aside: File for the bad rows, which say where they come from and why they are there.
        kept: File for the others; None if nobody wants them.
    """
    gone = union(bad)
    with ExitStack() as files:
        quarantine = files.enter_context(_writer(aside, pa.schema([*ADDRESS, *table.schema])))
        rest = files.enter_context(_writer(kept, table.schema)) if kept else None
        start = 0
        for batch in replace(table, batch=min(table.batch, ROW_GROUP)).batches():
            here = _within(gone, start, batch.num_rows)
            if here.size:
                quarantine.write_table(_addressed(table.path, commit, bad, batch.take(here), here + start))
            if rest:
                rest.write_table(batch.filter(_others(here, batch.num_rows)))
            start += batch.num_rows


def _writer(path: Path, schema: ArrowSchema) -> pq.ParquetWriter:
    """Pages are cut where the content says, so that the store keeps what two versions share only once."""
    return pq.ParquetWriter(path, schema, compression="zstd", use_content_defined_chunking=True)


def _within(rows: Rows, start: int, count: int) -> Rows:
    low, high = np.searchsorted(rows, [start, start + count])
    return rows[low:high] - start


def _others(here: Rows, count: int) -> ArrowColumn:
    mask = np.ones(count, bool)
    mask[here] = False
    return pa.array(mask)


def _addressed(path: str, commit: str, bad: Mapping[str, Rows], rows: ArrowTable, places: Rows) -> ArrowTable:
    against = np.stack([np.isin(places, which, assume_unique=True) for which in bad.values()], axis=1)
    offsets = np.concatenate([[0], np.cumsum(against.sum(axis=1))]).astype(np.int32)
    names = pa.array(list(bad), pa.string()).take(pa.array(np.nonzero(against)[1]))
    address = [
        pa.repeat(pa.scalar(commit), len(places)),
        pa.repeat(pa.scalar(path), len(places)),
        pa.array(places + 1),
        pa.ListArray.from_arrays(pa.array(offsets), names),
    ]
    return pa.table([*address, *rows.columns], schema=pa.schema([*ADDRESS, *rows.schema]))
