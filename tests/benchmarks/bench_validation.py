"""Validating five million rows: ours beside plain Great Expectations on pandas, the same file and the same suite.

Each is a process of its own. The peer reads the file whole, as everybody does, and has it validated as it is
installed, which tells how many rows are bad, shows twenty of them, and takes a fingerprint of smaller frames on the
way. Ours takes the file out of a store, looks at it batch by batch, and leaves the bad rows, the others, the evidence
and a commit in the store. Time is without imports; memory is the most that the process ever held, imports and all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks import Benchmark, Unmeasured

ROWS = 5_000_000
AT_ONCE = 250_000


def suite() -> dict[str, Any]:
    def expect(kind: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
        return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity}

    levels = ["HS-grad", "Some-college", "Bachelors", "Masters", "Doctorate"]
    expectations = [
        expect("column_to_exist", column="native-country"),
        expect("table_row_count_to_be_between", min_value=1_000_000),
        expect("column_values_to_be_in_set", column="income", value_set=["<=50K", ">50K"]),
        expect("column_values_to_be_in_set", column="education", value_set=levels),
        expect("column_values_to_be_in_set", column="sex", value_set=["Male", "Female"]),
        expect("column_values_to_be_between", "warning", column="age", min_value=16, max_value=120),
        expect("column_values_to_be_between", "warning", column="hours-per-week", min_value=1, max_value=99),
        expect("column_values_to_be_between", column="education-num", min_value=1, max_value=16),
        expect("column_values_to_not_be_null", column="occupation"),
        expect("column_mean_to_be_between", column="age", min_value=30, max_value=60),
        expect("column_stdev_to_be_between", column="fnlwgt", min_value=1),
        expect(
            "column_distinct_values_to_be_in_set",
            column="race",
            value_set=["White", "Black", "Asian-Pac-Islander", "Other"],
        ),
    ]
    return {"name": "census", "expectations": expectations}


def write(folder: Path) -> None:
    """The same rows as Parquet and as CSV, one age in a thousand impossible."""
    from prefect_mlops.flows.creditco import census

    writer = None
    for number in range(ROWS // AT_ONCE):
        frame = census(AT_ONCE, seed=number)
        frame.loc[::1000, "age"] = 200
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(folder / "census.parquet", table.schema)
        writer.write_table(table)
        frame.to_csv(folder / "census.csv", mode="a", header=number == 0, index=False)
    if writer:
        writer.close()


def keep(path: Path, store: Path) -> None:
    from prefect_mlops.blocks import Store
    from prefect_mlops.blocks.branch import Branch

    place = Store(url=str(store))
    commit, _ = Branch(place, "main").commit(place.pack(path), source=str(path))
    print(commit)


def ours(store: Path, commit: str) -> None:
    import great_expectations.expectations

    from prefect_mlops.blocks import Store
    from prefect_mlops.tasks import validate_data

    assert great_expectations.expectations
    began = time.monotonic()
    validated = validate_data.fn(Store(url=str(store)), commit, suite())
    _tell(began, validated.bad_rows)


def plain(path: Path) -> None:
    import great_expectations as gx

    began = time.monotonic()
    csv = path.suffix == ".csv"
    frame = pd.read_csv(path, na_values=["", "?"], keep_default_na=False) if csv else pd.read_parquet(path)
    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("census")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    result = batch.validate(gx.ExpectationSuite(**suite()))
    _tell(began, sum(one.result.get("unexpected_count", 0) for one in result.results if not one.success))


def _tell(began: float, bad: int) -> None:
    seconds = time.monotonic() - began
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "mb": int(held.split()[1]) / 1000, "bad": bad}))


def _in_a_process(action: str, *arguments: object) -> str:
    command = [sys.executable, "-m", "tests.benchmarks.bench_validation", action, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]


def run() -> Iterator[Benchmark]:
    """Seconds and megabytes, for Parquet and for CSV."""
    if not Path("/proc/self/status").exists():
        raise Unmeasured("the most memory that a process held is read from /proc, which this system has not")
    peer_name = f"great-expectations {metadata.version('great-expectations')} on pandas {metadata.version('pandas')}"
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        _in_a_process("write", folder)
        for kind in ("parquet", "csv"):
            path = folder / f"census.{kind}"
            commit = _in_a_process("keep", path, folder / "store")
            figures = json.loads(_in_a_process("ours", folder / "store", commit))
            peer = json.loads(_in_a_process("plain", path))
            print(f"{kind}: ours {figures}, peer {peer}", file=sys.stderr)
            assert figures["bad"] == peer["bad"]
            yield Benchmark(
                f"validate_{kind}_seconds", figures["seconds"], peer["seconds"], peer_name, "s", 1.0, at_most=True
            )
            yield Benchmark(f"validate_{kind}_memory", figures["mb"], peer["mb"], peer_name, "MB", 1 / 3, at_most=True)


def main(action: str, *arguments: str) -> None:
    """What one process does."""
    places = [Path(one) for one in arguments]
    match action:
        case "write":
            write(places[0])
            print("written")
        case "keep":
            keep(*places)
        case "ours":
            ours(places[0], arguments[1])
        case "plain":
            plain(places[0])
        case _:
            raise SystemExit(f"no action {action}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
