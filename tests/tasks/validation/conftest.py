"""A store, and tables committed to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.branch import Branch

Keep = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "store"))


@pytest.fixture
def keep(store: Store, tmp_path: Path) -> Keep:
    """Commits a frame as CSV, or as Parquet where its name says so, and returns the commit's id."""

    def keep(frame: pd.DataFrame, name: str = "vendor.csv") -> str:
        path = tmp_path / name
        if path.suffix == ".parquet":
            frame.to_parquet(path, index=False)
        else:
            frame.to_csv(path, index=False)
        return Branch(store, "staging").commit(store.pack(path), source=f"vendor:{name}")[0]

    return keep
