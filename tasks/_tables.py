"""Tables that may be larger than memory: one CSV or Parquet file, read in batches, a few columns at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from prefect_mlops.blocks.commit import Column
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.store import Store

# Arrow says nothing of its types.
ArrowTable: TypeAlias = Any
ArrowColumn: TypeAlias = Any
ArrowSchema: TypeAlias = Any
ArrowType: TypeAlias = Any

BATCH = 125_000
"""How many rows are in memory at a time."""

MISSING = ("", "?")
"""Texts in a CSV that stand for a missing value, unless a recipe says otherwise."""


@dataclass(frozen=True)
class Table:
    """A table on disk.

    Attributes:
        path: Its path in the snapshot that it comes from.
        parts: Parquet files whose rows, one after the other, are its rows.
        schema: The columns. A part may have a narrower type than the table, such as integers for numbers.
        rows: How many rows it has.
        batch: How many of them are in memory at a time.
    """

    path: str
    parts: tuple[Path, ...]
    schema: ArrowSchema
    rows: int
    batch: int = BATCH

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, as a commit describes them."""
        return _columns(self.schema)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[ArrowTable]:
        """The rows in their order, a batch at a time, with the columns in the order asked for; all if None."""
        names = self.schema.names if columns is None else list(columns)
        schema = pa.schema([self.schema.field(name) for name in names], metadata=self.schema.metadata)
        for part in self.parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(batch_size=self.batch, columns=names):
                    yield pa.Table.from_batches([batch]).select(names).cast(schema, safe=False)
        pa.default_memory_pool().release_unused()

    def frames(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """The same as frames, whose index counts the rows of the table from 0."""
        start = 0
        for batch in self.batches(columns):
            index = pd.RangeIndex(start, start + batch.num_rows)
            yield batch.to_pandas(ignore_metadata=True).set_axis(index)
            start += batch.num_rows


def check_out(store: Store, snapshot: str, folder: Path, what: str = "a table") -> Path:
    """Write the one file of a snapshot, which is to be `what`, into the new folder `folder`.

    Raises:
        Invalid: If it is more than one.
        ObjectMissing, ObjectDamaged: If the snapshot is not whole.
    """
    files = store.snapshot(snapshot).files
    if len(files) != 1:
        raise Invalid(what, "is one file", [file.path for file in files], "merge the files into one first")
    store.checkout(snapshot, folder)
    return folder / files[0].path


def read(path: Path, missing: Iterable[str] = MISSING) -> pd.DataFrame:
    """A CSV or Parquet file as a frame, whole.

    Args:
        path: The file; Parquet if it ends so, else CSV with a header line, in UTF-8.
        missing: Texts in a CSV that stand for a missing value.

    Raises:
        Invalid: If it is neither.
    """
    try:
        return pd.read_parquet(path) if _is_parquet(path) else _aligned(_csv(path, missing))
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def open_table(path: Path, folder: Path, missing: Iterable[str] = MISSING, batch: int = BATCH) -> Table:
    """A CSV or Parquet file as a table; a CSV is parsed once, into Parquet files in the new folder `folder`.

    A column has the type that `read` gives it, so that text in one row makes it text in all.

    Args:
        path: The file.
        folder: For the parsed CSV; must not exist.
        missing: Texts in a CSV that stand for a missing value.
        batch: How many rows are in memory at a time.

    Raises:
        Invalid: If it is neither.
    """
    try:
        return _parquet(path, batch) if _is_parquet(path) else _converted(path, folder, list(missing), batch)
    except (ValueError, OSError) as error:  # an ArrowInvalid is a ValueError
        raise _unreadable(path, error) from error


def shape(path: Path) -> tuple[tuple[Column, ...], int | None]:
    """Columns and number of rows of a CSV or Parquet file; none and None where it is no such table.

    A CSV file is streamed, and its types are what its first rows suggest.
    """
    try:
        if path.is_file() and _is_parquet(path):
            with pq.ParquetFile(path) as file:
                return _columns(file.schema_arrow), file.metadata.num_rows
        return _csv_shape(path) if path.is_file() and path.suffix == ".csv" else ((), None)
    except (pa.ArrowException, UnicodeDecodeError):
        return (), None


def _csv_shape(path: Path) -> tuple[tuple[Column, ...], int]:
    with csv.open_csv(path) as beginning:
        schema = beginning.schema
    first = schema.names[:1]
    texts = csv.ConvertOptions(column_types=dict.fromkeys(first, pa.string()), include_columns=first)
    with csv.open_csv(path, convert_options=texts) as whole:
        return _columns(schema), sum(batch.num_rows for batch in whole)


def _columns(schema: ArrowSchema) -> tuple[Column, ...]:
    return tuple(Column(name=field.name, type=str(field.type)) for field in schema)


def write_frame(frame: pd.DataFrame, path: Path) -> Path:
    """Write `frame` as Parquet in which an edit of some rows leaves the other pages' bytes as they are.

    Raises:
        Invalid: If it holds what Parquet has no type for.
    """
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        advice = "give every column one type, and names that are text"
        raise Invalid("a frame", "can be written as Parquet", str(error).splitlines()[0], advice) from error
    rows = max(1, len(frame))  # one row group: its boundaries would not move along with an edit
    pq.write_table(table, path, row_group_size=rows, use_content_defined_chunking=True)
    return path


def _is_parquet(path: Path) -> bool:
    return path.suffix in {".parquet", ".pq"}


def _unreadable(path: Path, error: Exception) -> Invalid:
    if isinstance(error, Invalid):
        return error
    advice = "give it a header line and the same number of fields in every row, in UTF-8"
    return Invalid(path.name, "is a CSV or Parquet file", str(error).splitlines()[0], advice)


def _csv(path: Path, missing: Iterable[str], **more: Any) -> Any:
    return pd.read_csv(path, skipinitialspace=True, na_values=list(missing), keep_default_na=False, **more)


def _aligned(frame: pd.DataFrame) -> pd.DataFrame:
    """Refuse what pandas would take for an index: a first field that the header does not name."""
    if isinstance(frame.index, pd.RangeIndex):
        return frame
    raise ValueError(f"the rows have more fields than the {len(frame.columns)} that the header names")


def _parquet(path: Path, batch: int) -> Table:
    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise Invalid(f"the columns of {path.name}", "have names of their own", twice, "rename them")
    return Table(path.name, (path,), schema, rows, batch)


def _converted(path: Path, folder: Path, missing: list[str], batch: int) -> Table:
    folder.mkdir()
    texts: set[str] = set()
    while True:
        parts, schemas, rows = _parts(path, folder, missing, texts, batch)
        types = {name: _common(schema.field(name).type for schema in schemas) for name in schemas[0].names}
        found = {name for name, kind in types.items() if kind is None}
        if not found:
            return Table(path.name, tuple(parts), pa.schema(list(types.items())), rows, batch)
        texts |= found


def _parts(
    path: Path, folder: Path, missing: list[str], texts: set[str], batch: int
) -> tuple[list[Path], list[ArrowSchema], int]:
    """Parse a CSV batch by batch, the columns of `texts` as text, the others as what a batch looks like."""
    parts: list[Path] = []
    schemas: list[ArrowSchema] = []
    rows = 0
    with _csv(path, missing, dtype=dict.fromkeys(texts, "str"), chunksize=batch, low_memory=False) as chunks:
        for chunk in chunks:
            table = _arrow(_aligned(chunk))
            part = folder / f"{len(parts):06}.parquet"
            pq.write_table(table, part, compression="lz4", write_statistics=False)
            parts.append(part)
            schemas.append(table.schema)
            rows += table.num_rows
    return parts, schemas, rows


def _arrow(chunk: pd.DataFrame) -> ArrowTable:
    """A batch as a table in which a column without a single value has no type yet."""
    try:
        table = pa.Table.from_pandas(chunk, preserve_index=False)
    except OverflowError:  # integers that no integer type holds
        texts = dict.fromkeys([name for name, kind in chunk.dtypes.items() if kind.kind == "O"], "str")
        table = pa.Table.from_pandas(chunk.astype(texts), preserve_index=False)
    columns = {name: _narrowed(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    return pa.table(columns)


def _narrowed(column: ArrowColumn) -> ArrowColumn:
    if column.null_count == len(column):
        return pa.nulls(len(column))
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _common(types: Iterable[ArrowType]) -> ArrowType | None:
    """The type that pandas gives a column whose parts look like `types`; None if that is text and no part is."""
    kinds = {kind for kind in types if not pa.types.is_null(kind)}
    if len(kinds) <= 1:
        return next(iter(kinds), pa.float64())
    return pa.float64() if kinds == {pa.int64(), pa.float64()} else None
