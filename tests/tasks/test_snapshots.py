"""A snapshot is kept with how it came, takes only the space that is new, and is committed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.commit import Column
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.tasks import snapshot_data

FRAME = pd.DataFrame({"id": range(1000), "amount": [number / 7 for number in range(1000)], "kind": ["a", "b"] * 500})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "store"))


def kept(store: Store) -> int:
    return sum(path.stat().st_size for path in Path(store.url).rglob("*") if path.is_file())


def test_a_commit_names_source_schema_rows_and_what_came_before(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "november.csv"
    FRAME.to_csv(path, index=False)
    first = snapshot_data.fn(store, path, message="as delivered", actor="ana")
    assert (first.rows, first.source, first.message, first.actor.name) == (1000, str(path), "as delivered", "ana")
    assert first.columns == tuple(
        Column(name=name, type=kind) for name, kind in (("id", "int64"), ("amount", "double"), ("kind", "string"))
    )
    FRAME.assign(id=FRAME["id"] + 1).to_csv(path, index=False)
    second = snapshot_data.fn(store, path)
    assert second.parents == (first.id,)
    assert Branch(store, "main").head == second.id
    assert snapshot_data.fn(store, path) == second
    store.checkout(first.snapshot, tmp_path / "out")
    assert (tmp_path / "out" / "november.csv").read_text() == FRAME.to_csv(index=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("late.csv", "a,b\n" + "1,2\n" * 200_000 + "x,2\n"),
        ("quoted.csv", 'a,b\n1,"two\nlines"\n3,4\n'),
        ("ragged.csv", "a,b\n1,2\n3\n"),
        ("empty.csv", ""),
        ("notes.txt", "a,b\n1,2\n"),
        ("broken.parquet", "PAR1"),
        ("latin.csv", b"a,b\n\xe9,2\n"),
    ],
)
def test_what_is_no_sound_table_is_kept_all_the_same(
    store: Store, tmp_path: Path, name: str, content: str | bytes
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    commit = snapshot_data.fn(store, tmp_path / name)
    store.checkout(commit.snapshot, tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
    rows = {"late.csv": 200_001, "quoted.csv": 2}.get(name)
    assert commit.rows == rows
    assert bool(commit.columns) == (rows is not None)


def test_a_folder_is_kept_whole(store: Store, tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / "days").mkdir(exist_ok=True)
        FRAME.to_csv(tmp_path / "days" / f"{day}.csv", index=False)
    commit = snapshot_data.fn(store, tmp_path / "days")
    assert [file.path for file in store.snapshot(commit.snapshot).files] == ["1.csv", "2.csv"]
    assert (commit.rows, commit.columns) == (None, ())


def test_a_frame_is_kept_as_parquet_and_an_edit_of_it_adds_little(store: Store, tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(1), 1_000_000
    frame = pd.DataFrame({"age": draw.integers(17, 90, rows), "id": draw.integers(0, 1 << 60, rows)})
    first = snapshot_data.fn(store, frame)
    before = kept(store)
    edited = frame.copy()
    edited.loc[500_000:500_999, "age"] = 40
    second = snapshot_data.fn(store, edited)
    assert second.snapshot != first.snapshot
    assert (kept(store) - before) / before < 0.25
    store.checkout(second.snapshot, tmp_path / "out")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "data.parquet"), edited)


def test_a_frame_that_parquet_cannot_hold_is_refused(store: Store) -> None:
    with pytest.raises(Invalid, match="can be written as Parquet"):
        snapshot_data.fn(store, pd.DataFrame({"a": [1, "x", object()]}))
    assert Branch(store, "main").head is None


def test_the_extractors_code_is_kept(store: Store, tmp_path: Path) -> None:
    commit = snapshot_data.fn(
        store, FRAME, source="vendor", extractor="prefect_mlops.flows.creditco:census", arguments={"rows": "1000"}
    )
    assert commit.extractor is not None
    assert commit.extractor.code is not None
    assert commit.extractor.arguments == {"rows": "1000"}
    store.checkout(commit.extractor.code, tmp_path / "code")
    assert "def census(" in (tmp_path / "code" / "creditco.py").read_text()
    with pytest.raises(Invalid, match="check its spelling"):
        snapshot_data.fn(store, FRAME, extractor="prefect_mlops.flows.creditco:nothing")
