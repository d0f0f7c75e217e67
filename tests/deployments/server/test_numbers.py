"""Every valid row of any signature is answered with the model's own numbers; every other one is refused."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._model import Model
from prefect_mlops.deployments.server._records import Spool
from prefect_mlops.deployments.server._signature import EXACT_FLOAT, INT64, Field, Signature
from prefect_mlops.deployments.server.app import App
from tests.deployments.server.models import RELEASE, SNAPSHOT

DTYPES = {
    ("integer", False): "int64",
    ("integer", True): "float64",
    ("number", False): "float64",
    ("number", True): "float64",
    ("string", False): "str",
    ("string", True): "str",
    ("boolean", False): "bool",
    ("boolean", True): "object",
}
DATATYPES = {"integer": "FP64", "number": "FP64", "string": "BYTES", "boolean": "BOOL"}
EXAMPLES: dict[str, Any] = {"integer": 1, "number": 1.5, "string": "a", "boolean": True}
PATHS = {"inputs": "/v2/models/any/infer"}
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
LIMITED = settings(max_examples=100, deadline=None, suppress_health_check=SLOW)


class Fingerprint:
    """Answers a number made from every value and every type of a row."""

    def predict(self, frame: pd.DataFrame) -> Any:
        hashes = pd.util.hash_pandas_object(
            frame.astype({c: "str" for c in frame if frame[c].dtype == object}), index=False
        )
        return (hashes.to_numpy() % 1_000_003) / 7 + sum(map(len, map(str, frame.dtypes)))


def _values(kind: str, nullable: bool) -> st.SearchStrategy[Any]:
    limit = EXACT_FLOAT if nullable else INT64
    plain: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(-limit, limit - 1) | st.integers(-100, 100).map(float),
        "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000),
        "string": TEXT,
        "boolean": st.booleans(),
    }
    return plain[kind] | st.none() if nullable else plain[kind]


@st.composite
def _asked(draw: st.DrawFn) -> tuple[Signature, list[list[Any]], list[int], str]:
    names = draw(st.lists(TEXT.filter(bool), min_size=1, max_size=6, unique=True))
    kinds = [(draw(st.sampled_from(["integer", "number", "string", "boolean"])), draw(st.booleans())) for _ in names]
    fields = tuple(Field(name, kind, null, EXAMPLES[kind]) for name, (kind, null) in zip(names, kinds, strict=True))
    rows = draw(st.lists(st.tuples(*(_values(*kind) for kind in kinds)).map(list), min_size=1, max_size=5))
    order = draw(st.permutations(range(len(names))))
    form = draw(st.sampled_from(["ndarray", "tensor", "jsonData", "inputs"]))
    return Signature(fields, "values", ("y",)), rows, list(order), form


def _body(signature: Signature, rows: list[list[Any]], order: list[int], form: str) -> dict[str, Any]:
    names = [signature.names[at] for at in order]
    turned = [[row[at] for at in order] for row in rows]
    if form == "jsonData":
        return {"jsonData": [dict(zip(names, row, strict=True)) for row in turned]}
    if form == "ndarray":
        return {"data": {"names": names, "ndarray": turned}}
    if form == "inputs":
        shape, fields = {"shape": [len(rows), 1]}, [(signature.inputs[at], at) for at in order]
        columns = [(field, [row[at] for row in rows]) for field, at in fields]
        return {"inputs": [{"name": f.name, "datatype": DATATYPES[f.type], "data": c, **shape} for f, c in columns]}
    flat = [value for row in turned for value in row]
    return {"data": {"names": names, "tensor": {"shape": [len(rows), len(names)], "values": flat}}}


def _frame(signature: Signature, rows: list[list[Any]]) -> pd.DataFrame:
    """The same data frame, made the slow and obvious way."""
    columns = {
        field.name: pd.Series([row[at] for row in rows], dtype=DTYPES[field.type, field.nullable])
        for at, field in enumerate(signature.inputs)
    }
    return pd.DataFrame(columns)


async def _answer(signature: Signature, rows: list[list[Any]], order: list[int], form: str) -> httpx.Response:
    path = PATHS.get(form, "/api/v1.0/predictions")
    body = json.dumps(_body(signature, rows, order, form)).encode()
    with tempfile.TemporaryDirectory() as name:
        config = Config.parse(
            {
                "service": "any",
                "release": RELEASE,
                "model": SNAPSHOT,
                "folder": name,
                "files": [],
                "port": 0,
                "spool": name,
            }
        )
        spool = Spool(Path(name), {})
        spool.open()
        app = App(config, Model(Fingerprint(), signature), spool)
        transport: Any = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            answer = await client.post(path, content=body, headers={"content-type": "application/json"})
        app.close()
        return answer


@LIMITED
@given(_asked())
def test_every_valid_row_gets_the_models_own_numbers(
    asked: tuple[Signature, list[list[Any]], list[int], str],
) -> None:
    signature, rows, order, form = asked
    answer = asyncio.run(_answer(signature, rows, order, form))
    assert answer.status_code == 200, answer.text
    assert np.array_equal(_values_of(answer.json()), Fingerprint().predict(_frame(signature, rows)))


@LIMITED
@given(_asked(), st.data())
def test_a_row_with_one_value_of_another_type_is_refused(
    asked: tuple[Signature, list[list[Any]], list[int], str], data: st.DataObject
) -> None:
    signature, rows, order, form = asked
    at = data.draw(st.integers(0, len(signature.inputs) - 1))
    field = signature.inputs[at]
    other = data.draw(st.sampled_from([None, True, "text", 1.5, 7, [], {}, 2**70, math.inf]))
    assume(not _fits(field, other))
    rows[-1][at] = other
    answer = asyncio.run(_answer(signature, rows, order, form))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] if form == "inputs" else answer.json()["status"]["info"]


def _values_of(answer: dict[str, Any]) -> list[Any]:
    if "outputs" in answer:
        return answer["outputs"][0]["data"]
    data = answer["data"]
    return data["tensor"]["values"] if "tensor" in data else [row[0] for row in data["ndarray"]]


def _fits(field: Field, value: Any) -> bool:
    if value is None:
        return field.nullable
    if isinstance(value, bool) or field.type == "boolean":
        return isinstance(value, bool) and field.type == "boolean"
    if field.type == "number":
        return isinstance(value, int | float) and math.isfinite(value)
    return value == 7 if field.type == "integer" else isinstance(value, str)
