"""Reading in batches is reading, whatever the batches are cut like."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.tasks._tables import open_table, read

CSVS = {
    "integers": "a\n1\n2\n3\n",
    "a fraction late": "a\n1\n2\n3.5\n",
    "text late": "a\n1\n2\nx\n",
    "text late, zeros in front": "a\n01\n02\nx\n",
    "an exponent before text": "a\n1\n2\n1e5\nx\n",
    "missing late": "a\n1\n2\n\n?\n4",
    "missing only": "a,b\n,1\n?,2\n,3\n",
    "missing, then text": "a,b\n,x\n,y\n3,z\n",
    "truth": "a\nTrue\nFalse\nTrue\n",
    "truth, then text": "a\nTrue\nFalse\nx\n1\n",
    "truth, then numbers": "a\nTrue\nTrue\n1\n0\n",
    "blanks and quotes": 'a, b\n1, "x, y"\n2, "q ""r"""\n3,"two\nlines"\n',
    "one name twice": "a,a\n1,2\n3,4\n5,x\n",
    "words for nothing": "a\nnan\nNaN\n1\n",
    "infinite": "a\n1\n2\ninf\n",
}


def whole(path: Path, folder: Path, batch: int) -> pd.DataFrame:
    table = open_table(path, folder, batch=batch)
    frames = list(table.frames(table.schema.names))
    assert max(map(len, frames)) <= batch
    return pd.concat(frames)


@pytest.mark.parametrize("text", CSVS.values(), ids=CSVS.keys())
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_a_csv_in_batches_is_what_pandas_reads_at_once(text: str, batch: int, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    pd.testing.assert_frame_equal(whole(path, tmp_path / "parts", batch), read(path), check_index_type=False)


def test_parquet_with_small_and_uneven_row_groups(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(1000), "b.c": [None, *"x" * 999]})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for start, stop in ((0, 10), (10, 700), (700, 1000)):
            writer.write_table(table.slice(start, stop - start))
    opened = open_table(tmp_path / "a.parquet", tmp_path / "unused", batch=64)
    pd.testing.assert_frame_equal(pd.concat(opened.frames(["b.c", "a"])), frame[["b.c", "a"]], check_index_type=False)
    assert (opened.rows, [column.type for column in opened.columns]) == (1000, ["int64", "large_string"])


def test_integers_that_no_type_holds_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n2\n99999999999999999999\n")
    assert whole(path, tmp_path / "parts", 2)["a"].tolist() == ["1", "2", "99999999999999999999"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "No columns"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ("a.csv", b"a,b\n1,2,3\n", "the rows have more fields than the 2 that the header names"),
        ("a.csv", b"a\n\xff\xfe\n", "utf-8"),
        ("a.parquet", b"PAR1 no more", "."),
    ],
)
def test_what_is_no_table_is_refused(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Invalid, match=f"{name} is a CSV or Parquet file, got .*{said}"):
        open_table(path, tmp_path / "parts")
    with pytest.raises(Invalid, match=f"{name} is a CSV or Parquet file, got .*{said}"):
        read(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(Invalid, match=r"have names of their own, got \['a'\]"):
        open_table(tmp_path / "a.parquet", tmp_path / "parts")
