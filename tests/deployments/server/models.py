"""Small fitted models with signatures, for tests and benchmarks only; real ones come from `tasks`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

RELEASE = "sha256:" + "1" * 64
SNAPSHOT = "sha256:" + "2" * 64
NUMBERS = {
    "age": (17, 90),
    "fnlwgt": (12_285, 1_484_705),
    "education_num": (1, 16),
    "capital_gain": (0, 99_999),
    "capital_loss": (0, 4_356),
    "hours_per_week": (1, 99),
}
WORDS = {
    "workclass": 8,
    "education": 16,
    "marital_status": 7,
    "occupation": 14,
    "relationship": 6,
    "race": 5,
    "sex": 2,
    "native_country": 41,
}


def census(rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows that look like the census data: six integers and eight categories."""
    random = np.random.default_rng(seed)
    numbers = {name: random.integers(low, high, rows) for name, (low, high) in NUMBERS.items()}
    words = {name: [f"{name}-{at}" for at in random.integers(0, count, rows)] for name, count in WORDS.items()}
    return pd.DataFrame({**numbers, **words})


def census_model(rows: int = 2_000) -> Pipeline:
    """One-hot categories and scaled numbers into a logistic regression."""
    frame = census(rows)
    income = (frame["age"] + 4 * frame["education_num"] > 90).map({True: ">50K", False: "<=50K"})
    columns = ColumnTransformer(
        [("words", OneHotEncoder(handle_unknown="ignore"), list(WORDS)), ("numbers", StandardScaler(), list(NUMBERS))]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=300)).fit(frame, income)


def census_signature() -> dict[str, Any]:
    """The signature of `census_model`."""
    return {
        "format": 1,
        "inputs": [
            {
                "name": name,
                "type": "integer" if name in NUMBERS else "string",
                "nullable": False,
                "example": value,
            }
            for name, value in zip(census(1).columns, census_rows(1)[0], strict=True)
        ],
        "output": {"kind": "probabilities", "names": ["<=50K", ">50K"]},
    }


def census_rows(rows: int, seed: int = 1) -> list[list[Any]]:
    """Rows of `census` as a request carries them."""
    return census(rows, seed).to_numpy(dtype=object).tolist()


def write_model(folder: Path, fitted: Any, signature: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the two files of a model into `folder`; returns what a configuration says about them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model.pkl": cloudpickle.dumps(fitted), "signature.json": json.dumps(signature).encode()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [
        {"path": name, "size": len(data), "digest": "sha256:" + hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]


def write_config(home: Path, files: Sequence[dict[str, Any]], **more: Any) -> Path:
    """Write the configuration of a server whose model lies in `home/model`; it listens on a port of the system's."""
    document = {
        "service": "credit",
        "release": RELEASE,
        "model": SNAPSHOT,
        "folder": str(home / "model"),
        "files": list(files),
        "port": 0,
        "spool": str(home / "spool"),
        "instance": "0",
        **more,
    }
    path = home / "server.json"
    path.write_text(json.dumps(document))
    return path
