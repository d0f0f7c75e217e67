"""Measuring expectations on a table: Great Expectations says which rows and figures are as expected, batch by batch.

No data context is made: it would keep things on disk and speak to whoever collects statistics. An execution
engine, its metrics and an expectation's own judgement are all that is used, so that threads share nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from prefect_mlops.tasks._suites import Expectation
from prefect_mlops.tasks._tables import Table

NO_COLUMN = "there is no such column"

_BASIC = {"result_format": "BASIC"}
_COUNTS_ONLY = {"result_format": "BOOLEAN_ONLY"}
_OF_TYPES = {"column_values.of_type", "column_values.in_type_list"}
"""Said to be about rows, and yet about the column."""


@dataclass
class Measured:
    """What was found of one expectation.

    Attributes:
        success: Whether Great Expectations says that it is met; None if it could not be measured.
        looked_at: How many rows it is about: those that have a value and meet its row condition.
        bad: Where the rows are that do not meet it, from 0; empty if it is not about rows.
        example: What stands in the first of them.
        result: What Great Expectations tells of it beside, such as the figure found; nothing if it is about rows.
        trouble: Why it could not be measured.
        by_row: Whether it is about rows.
    """

    success: bool | None = None
    looked_at: int = 0
    bad: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    example: str = ""
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    trouble: str = ""
    by_row: bool = False


def measure(table: Table, expectations: Sequence[Expectation]) -> list[Measured]:
    """Measure expectations on a table, in as few and as narrow passes over it as they allow."""
    found: dict[Expectation, Measured] = {}
    for group, frames in _passes(table, expectations):
        found |= _measured(group, frames)
    for one, what in found.items():
        if what.trouble and one.type == "expect_column_values_to_be_between":
            _blame_texts(table, one, what)
    absent = Measured(trouble=NO_COLUMN)
    return [found.get(one, absent) for one in expectations]


def _blame_texts(table: Table, one: Expectation, found: Measured) -> None:
    """Where bounds that are numbers met text, say where it stands: one such row makes text of the whole column."""
    bounds = [bound for name in ("min_value", "max_value") if (bound := one.arguments.get(name)) is not None]
    if not all(isinstance(bound, (int, float)) for bound in bounds):
        return
    for frame in table.frames(one.about):
        column = frame[one.about[0]]
        texts = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
        if texts.size and not found.example:
            found.example = plain(texts.iloc[0])
        found.bad = np.concatenate([found.bad, texts.index.to_numpy(np.int64)])
    if found.bad.size:
        rows = f"{found.bad.size:,} of {table.rows:,} rows"
        found.trouble = f"{rows} hold no number, first at row {int(found.bad[0]) + 1:,} ({found.example})"


def _passes(
    table: Table, expectations: Sequence[Expectation]
) -> Iterator[tuple[list[Expectation], Iterable[pd.DataFrame]]]:
    """The expectations that are measured together, each group with the frames that it is measured on."""
    whole: dict[tuple[str, ...], list[Expectation]] = defaultdict(list)
    rows: list[Expectation] = []
    schema: list[Expectation] = []
    for one in expectations:
        columns = _columns(table, one)
        if one.scope == "schema":
            schema.append(one)
        elif columns is not None and one.scope == "rows":
            rows.append(one)
        elif columns is not None:
            whole[columns].append(one)
    if schema:
        yield schema, [pd.DataFrame(columns=table.schema.names)]
    if rows:
        yield rows, _batches(table, tuple(dict.fromkeys(name for one in rows for name in _columns(table, one) or ())))
    for columns, group in whole.items():
        yield group, _whole(table, columns)


def _columns(table: Table, one: Expectation) -> tuple[str, ...] | None:
    """The columns that an expectation needs; None if one of them is not there."""
    wanted = tuple(table.schema.names) if one.columns is None else one.columns
    return wanted if set(wanted) <= set(table.schema.names) else None


def _batches(table: Table, columns: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    """The rows, batch by batch; a single empty one of a table without rows."""
    return table.frames(columns) if table.rows else _whole(table, columns)


def _whole(table: Table, columns: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    """All rows as one frame, which is made when it is asked for, and let go then."""
    if not columns:
        yield pd.DataFrame(index=pd.RangeIndex(table.rows))
        return
    batches = table.batches(columns) if table.rows else [table.schema.empty_table().select(list(columns))]
    yield pa.concat_tables(batches).to_pandas(ignore_metadata=True, self_destruct=True)


def _measured(group: Sequence[Expectation], frames: Iterable[pd.DataFrame]) -> dict[Expectation, Measured]:
    from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine

    engine = PandasExecutionEngine()
    sums = {one: _Sum(one, engine) for one in group}
    for frame in frames:
        engine.load_batch_data("table", frame)  # under the same name, so that the one before is let go
        batch = _Batch(engine, group)
        for one in group:
            sums[one].add(frame, batch)
    judged = {one: total.judged() for one, total in sums.items()}
    engine.load_batch_data("table", pd.DataFrame())
    return judged


class _Batch:
    """All metrics of what an engine has loaded that a group of expectations needs."""

    def __init__(self, engine: Any, group: Sequence[Expectation]) -> None:
        from great_expectations.validator.validation_graph import ValidationGraph

        self._engine = engine
        self.metrics: dict[Expectation, dict[str, Any]] = {}
        self.trouble: dict[Expectation, str] = {}
        graphs = {one: graph for one in group if (graph := self._prepared(one))}
        whole = ValidationGraph(engine)
        for graph in graphs.values():
            for edge in graph.edges:
                whole.add(edge)
        self.values, aborted = whole.resolve(show_progress_bars=False)
        for one, graph in graphs.items():
            if any(metric.id not in self.values for metric in self.metrics[one].values()):
                self.trouble[one] = _reason(graph, aborted)

    def _prepared(self, one: Expectation) -> Any:
        """What leads to the metrics that Great Expectations judges by; None if it has none of them for pandas."""
        from great_expectations.validator.validation_graph import ValidationGraph

        graph = ValidationGraph(self._engine)
        try:
            needs = one.gx.get_validation_dependencies(self._engine, _format(one))
            for metric in needs.metric_configurations.values():
                graph.build_metric_dependency_graph(metric)
        except Exception as error:  # noqa: BLE001 - of each kind of expectation, another one
            self.trouble[one] = _line(error)
            return None
        self.metrics[one] = dict(needs.metric_configurations)
        return graph


def _reason(graph: Any, aborted: dict[Any, Any]) -> str:
    needed = {side.id for edge in graph.edges for side in (edge.left, edge.right) if side}
    told = [one["exception_info"].exception_message for name, one in aborted.items() if name in needed]
    return _line(told[0]) if told else "Great Expectations gave no reason"


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _format(one: Expectation) -> dict[str, Any]:
    return {"result_format": _COUNTS_ONLY if _map_metric(one) else _BASIC}


def _map_metric(one: Expectation) -> str | None:
    """The name of the condition that rows must meet, of an expectation about rows."""
    name = getattr(one.gx, "map_metric", None)
    return None if name in _OF_TYPES else name


class _Sum:
    """One expectation over all batches: counts are summed, and Great Expectations judges the sums."""

    def __init__(self, expectation: Expectation, engine: Any) -> None:
        self._one = expectation
        self._engine = engine
        self._values: dict[Any, Any] = {}
        self._bad: list[npt.NDArray[np.int64]] = []
        self._found = Measured(by_row=_map_metric(expectation) is not None)

    def add(self, frame: pd.DataFrame, batch: _Batch) -> None:
        """Take in what a batch says, unless an earlier one could not be measured."""
        self._found.trouble = self._found.trouble or batch.trouble.get(self._one, "")
        if self._found.trouble:
            return
        metrics = batch.metrics[self._one]
        for metric in metrics.values():
            value = batch.values[metric.id]
            before = self._values.get(metric.id)
            self._values[metric.id] = value if before is None else before + value
        if name := _map_metric(self._one):
            self._locate(frame, name, metrics, batch)

    def _locate(self, frame: pd.DataFrame, name: str, metrics: dict[str, Any], batch: _Batch) -> None:
        """Find the rows that do not meet the condition, in the series that their number was counted from."""
        from great_expectations.validator.metric_configuration import MetricConfiguration

        counted = metrics[f"{name}.unexpected_count"]
        if not batch.values[counted.id]:
            return
        condition = MetricConfiguration(
            f"{name}.condition", counted.metric_domain_kwargs, metric_value_kwargs=counted.metric_value_kwargs
        )
        mask: pd.Series[Any] = batch.values[condition.id][0]
        bad = mask.index.to_numpy()[mask.fillna(value=False).to_numpy(bool)].astype(np.int64)
        if not self._found.example:
            self._found.example = example(frame, int(bad[0]), self._one.about)
        self._bad.append(bad)

    def judged(self) -> Measured:
        """What it comes to."""
        found = self._found
        if found.trouble:
            return found
        try:
            result = self._one.gx.metrics_validate(self._values, _format(self._one), self._engine)
        except Exception as error:  # noqa: BLE001 - whatever an expectation trips over, it could not be measured
            found.trouble = _line(error)
            return found
        found.success = bool(result.success)
        found.result = dict(result.result or {})
        found.bad = np.concatenate(self._bad) if self._bad else found.bad
        found.looked_at = self._looked_at() if found.by_row else 0
        return found

    def _looked_at(self) -> int:
        """Of a condition on rows with values, those that have one; else all that its row condition leaves."""
        counts = {id_[0]: int(value) for id_, value in self._values.items()}
        filtered = [value for name, value in counts.items() if name.endswith(".filtered_row_count")]
        if filtered:
            return filtered[0]
        missing = counts.get("column_values.nonnull.unexpected_count", 0)
        about_nulls = _map_metric(self._one) in {"column_values.nonnull", "column_values.null"}
        return counts.get("table.row_count", 0) - (0 if about_nulls else missing)


def example(frame: pd.DataFrame, row: int, columns: Sequence[str]) -> str:
    """What stands in a row, as a person would write it."""
    cells = {name: frame.at[row, name] for name in columns}
    if len(cells) == 1:
        return plain(next(iter(cells.values())))
    return ", ".join(f"{name} {plain(value)}" for name, value in cells.items())


def plain(value: Any) -> str:
    """A value as a person would write it, at most 60 characters long."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "nothing"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)[:60]
