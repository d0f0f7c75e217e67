"""The Open Inference Protocol against a real server: the same answers, records, limits and sentences as Seldon's."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.deployments.server.models import NUMBERS, RELEASE, SNAPSHOT, census, census_rows, write_config, write_model
from tests.deployments.server.processes import Running, serving

NAMES = list(census(1).columns)
MODEL = "/v2/models/credit"
INFER = f"{MODEL}/infer"
ABOUT = {"release": RELEASE, "model": SNAPSHOT}


def _inputs(rows: list[list[Any]], **changed: dict[str, Any]) -> list[dict[str, Any]]:
    """One tensor per column of the census, some of them with other members."""
    return [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": "INT64" if name in NUMBERS else "BYTES",
            "data": [row[at] for row in rows],
            **changed.get(name, {}),
        }
        for at, name in enumerate(NAMES)
    ]


def _without(member: str) -> list[dict[str, Any]]:
    first, *others = _inputs(ROWS)
    return [{key: value for key, value in first.items() if key != member}, *others]


ROWS = census_rows(2)


def test_the_answers_are_those_of_seldons_protocol_one_tensor_per_output(server: Running) -> None:
    rows = census_rows(20)
    wanted = server.post({"data": {"ndarray": rows}}).json()["data"]
    answer = server.post({"inputs": _inputs(rows)}, INFER)
    outputs = answer.json()["outputs"]
    assert [output["name"] for output in outputs] == wanted["names"]
    assert all((output["shape"], output["datatype"]) == ([20, 1], "FP64") for output in outputs)
    assert list(map(list, zip(*(output["data"] for output in outputs), strict=True))) == wanted["ndarray"]
    assert (answer.headers["x-release"], answer.headers["x-model-digest"]) == (RELEASE, SNAPSHOT)


def test_every_shape_of_a_column_gets_the_same_numbers(server: Running) -> None:
    ages = [row[0] for row in ROWS]
    forms: list[list[dict[str, Any]]] = [
        _inputs(ROWS),
        list(reversed(_inputs(ROWS))),
        _inputs(ROWS, age={"shape": [2]}),
        _inputs(ROWS, age={"data": [[age] for age in ages]}),
        _inputs(ROWS, age={"datatype": "UINT8"}, sex={"parameters": {"content_type": "str", "own": 1}}),
        _inputs(ROWS, age={"datatype": "FP64", "data": [float(age) for age in ages]}),
        _inputs(ROWS, age={"parameters": None}),
    ]
    answers = [server.post({"inputs": form, "parameters": {"content_type": "pd"}}, INFER) for form in forms]
    assert [answer.json()["outputs"] for answer in answers] == [answers[0].json()["outputs"]] * len(forms)


def test_only_the_outputs_that_are_asked_for_are_sent(server: Running) -> None:
    asked = {"inputs": _inputs(ROWS), "outputs": [{"name": ">50K", "parameters": {"binary_data": False}}]}
    assert [output["name"] for output in server.post(asked, INFER).json()["outputs"]] == [">50K"]


def test_an_id_is_given_back_and_without_one_it_is_the_request_id(server: Running) -> None:
    named = server.post({"id": "mine", "inputs": _inputs(ROWS)}, INFER, headers={"x-request-id": "req-1"})
    assert (named.json()["id"], named.headers["x-request-id"]) == ("mine", "req-1")
    assert named.json()["parameters"] == {"request_id": "req-1", **ABOUT}
    plain = server.post({"id": None, "inputs": _inputs(ROWS)}, INFER)
    assert plain.json()["id"] == plain.json()["parameters"]["request_id"] == plain.headers["x-request-id"]


def test_a_record_is_the_same_whatever_the_protocol(census_home: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(census_home / "model")
    files = json.loads((census_home / "server.json").read_text())["files"]
    headers = {"x-request-id": "req-1", "x-mlops-role": "shadow", "x-envoy-attempt-count": "2"}
    with serving(write_config(tmp_path, files)) as running:
        running.post({"data": {"ndarray": ROWS}, "meta": {"puid": "mine"}}, headers=headers)
        running.post({"id": "mine", "inputs": _inputs(ROWS)}, INFER, headers=headers)
        (spool,) = (tmp_path / "spool").glob("open-*.jsonl")
        records = [json.loads(line) for line in spool.read_text().splitlines()]
    varying = {"time", "latency_ms"}
    one, other = ({key: value for key, value in record.items() if key not in varying} for record in records)
    assert one == other
    assert (one["client_request_id"], one["role"], one["attempt"]) == ("mine", "shadow", 2)


BAD_REQUESTS: list[tuple[Any, str]] = [
    ([], "the body must be an object, got an array"),
    ({}, "inputs must be an array, got null"),
    ({"inputs": []}, "missing field age"),
    ({"inputs": {}}, "inputs must be an array, got an object"),
    ({"inputs": [1]}, "inputs[0] must be an object, got 1"),
    ({"inputs": _without("name")}, "name of inputs[0] must be a string, got null"),
    ({"inputs": _without("shape")}, "shape of age must be one or two whole numbers, rows and columns, got null"),
    ({"inputs": _without("datatype")}, "datatype of age must be one of INT8"),
    ({"inputs": _without("data")}, "data of age must be an array, got null"),
    ({"inputs": _inputs(ROWS), "more": 1}, "unknown field more in the body"),
    ({"inputs": _inputs(ROWS, age={"more": 1})}, "unknown field more in inputs[0]"),
    ({"inputs": _inputs(ROWS)[1:]}, "missing field age"),
    ({"inputs": [*_inputs(ROWS), *_inputs(ROWS)[:1]]}, "got age more than once"),
    ({"inputs": _inputs(ROWS, age={"name": "salary"})}, "unknown field salary; the model takes age"),
    ({"inputs": _inputs(ROWS, age={"datatype": "STRING"})}, "BYTES, BOOL, got 'STRING'"),
    ({"inputs": _inputs(ROWS, age={"datatype": "BYTES"})}, "age takes a datatype of numbers, got BYTES"),
    ({"inputs": _inputs(ROWS, sex={"datatype": "INT64"})}, "sex takes BYTES, got INT64"),
    ({"inputs": _inputs(ROWS, age={"shape": [2, 1, 1]})}, "shape of age must be one or two whole numbers"),
    ({"inputs": _inputs(ROWS, age={"shape": [-2]})}, "whole numbers, rows and columns, got [-2]"),
    ({"inputs": _inputs(ROWS, age={"shape": [1.0, 2]})}, "whole numbers, rows and columns, got [1.0,2]"),
    ({"inputs": _inputs(ROWS, age={"shape": [True, 2]})}, "whole numbers, rows and columns, got [true,2]"),
    ({"inputs": _inputs(ROWS, age={"shape": [1, 2]})}, "shape of age must be [rows] or [rows, 1], got 2 columns"),
    ({"inputs": _inputs(ROWS, age={"shape": [3]})}, "age, a tensor of shape [3], must have 3 values, got 2"),
    ({"inputs": _inputs(ROWS, age={"shape": [1], "data": [3]})}, "got 1 of age and 2 of fnlwgt"),
    ({"inputs": _inputs(ROWS, age={"data": [[1], 2]})}, "flat, or one array of 1 values per row, got 2 in row 1"),
    ({"inputs": _inputs(ROWS, age={"data": [[1], [2, 3]]})}, "one array of 1 values per row, got [2,3] in row 1"),
    ({"inputs": _inputs([])}, "there must be at least one row"),
    ({"inputs": _inputs(ROWS, age={"data": [1, "2"]})}, "age must be an integer, got '2' in row 1"),
    ({"inputs": _inputs(ROWS, age={"data": [1, None]})}, "age must be an integer, got null in row 1"),
    ({"inputs": _inputs(ROWS, age={"data": [1, 2.0]})}, "age must be INT64, as its datatype says, got 2.0 in row 1"),
    ({"inputs": _inputs(ROWS, age={"datatype": "UINT8", "data": [1, 256]})}, "age must be UINT8"),
    ({"inputs": _inputs(ROWS, age={"datatype": "FP32", "data": [1, 2.5]})}, "age must be an integer, got 2.5 in row 1"),
    ({"inputs": _inputs(ROWS, sex={"data": ["a", 1]})}, "sex must be a string, got 1 in row 1"),
    (
        {"inputs": _inputs(ROWS, sex={"parameters": {"content_type": "base64"}})},
        "np, pd, str or left out, got 'base64'",
    ),
    ({"inputs": _inputs(ROWS, sex={"parameters": [1]})}, "must be an object, got an array"),
    ({"inputs": _inputs(ROWS), "parameters": {"a": {}}}, "parameter a of the request must be a string"),
    ({"inputs": _inputs(ROWS), "id": 7}, "id must be 1 to 200 visible ASCII characters, got 7"),
    ({"inputs": _inputs(ROWS), "outputs": {}}, "outputs must be an array, got an object"),
    ({"inputs": _inputs(ROWS), "outputs": [{"name": "x"}]}, "unknown output x; the model answers <=50K, >50K"),
    ({"inputs": [{"name": "all", "shape": [1, 14], "datatype": "INT64", "data": [1] * 14}]}, "workclass takes BYTES"),
]


@pytest.mark.parametrize(("body", "sentence"), BAD_REQUESTS, ids=range(len(BAD_REQUESTS)))
def test_a_request_that_breaks_the_protocol_gets_a_sentence(server: Running, body: Any, sentence: str) -> None:
    answer = server.post(body, INFER)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]
    assert len(answer.json()["error"]) < 400


def test_what_no_protocol_allows_is_said_in_this_ones_form(server: Running) -> None:
    long = server.client.post(INFER, content=b" " * 100_001, headers={"content-type": "application/json"})
    assert (long.status_code, "at most 100000 bytes" in long.json()["error"]) == (413, True)
    many = server.post({"inputs": _inputs(ROWS, age={"shape": [10_001], "data": [1] * 10_001})}, INFER)
    assert (many.status_code, "at most 10000 rows, got 10001" in many.json()["error"]) == (413, True)
    twice = server.client.post(INFER, content=b'{"id": "a", "id": "b"}', headers={"content-type": "application/json"})
    assert (twice.status_code, "'id' twice" in twice.json()["error"]) == (400, True)
    plain = server.client.post(INFER, content=b"{}", headers={"content-type": "text/plain"})
    assert (plain.status_code, "application/json" in plain.json()["error"]) == (415, True)


def test_another_model_is_not_there_and_the_sentence_names_the_one_that_is(server: Running) -> None:
    for method, path in (("POST", "/v2/models/debit/infer"), ("GET", "/v2/models/debit"), ("GET", "/v2/models/")):
        answer = server.client.request(method, path, json={} if method == "POST" else None)
        assert answer.status_code == 404
        assert answer.json()["error"].endswith("here, there is credit")
    assert "/openapi.json" in server.client.get(f"{MODEL}/versions/1").json()["error"]
    assert server.client.get(INFER).headers["allow"] == "POST"


def test_health_and_metadata(server: Running) -> None:
    about = server.client.get("/v2").json()
    assert (about["name"], about["extensions"]) == ("prefect-mlops", [])
    assert server.client.get("/v2/health/live").json()["live"] is True
    assert server.client.get("/v2/health/ready").json()["ready"] is True
    assert server.client.get(f"{MODEL}/ready").json() == {"name": "credit", "ready": True}
    metadata = server.client.get(MODEL).json()
    assert [tensor["name"] for tensor in metadata["inputs"]] == NAMES
    assert metadata["inputs"][0] == {"name": "age", "datatype": "INT64", "shape": [-1, 1]}
    assert [(output["name"], output["datatype"]) for output in metadata["outputs"]] == [
        ("<=50K", "FP64"),
        (">50K", "FP64"),
    ]
    assert metadata["parameters"] == ABOUT


class Sorts:
    """Answers with three types of values: which of two numbers is greater, by name and by how much."""

    def predict(self, frame: pd.DataFrame) -> Any:
        answer = np.empty((len(frame), 3), dtype=object)
        if (frame["a"] == 13).any():
            raise ValueError("thirteen")
        for at, (a, b) in enumerate(zip(frame["a"], frame["b"].fillna(5), strict=True)):
            answer[at] = ["a" if a > b else "b", bool(a > b), int(a - b)]
        return answer


@pytest.fixture(scope="module")
def sorter(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """A server of a model of numbers that answers no numbers only."""
    home = tmp_path_factory.mktemp("sorter")
    inputs = [{"name": name, "type": "number", "nullable": name == "b", "example": 1.5} for name in ("a", "b")]
    signature = {"format": 1, "inputs": inputs, "output": {"kind": "values", "names": ["greater", "first", "by"]}}
    with serving(write_config(home, write_model(home / "model", Sorts(), signature))) as running:
        yield running


@pytest.mark.parametrize(
    "data",
    [[[3, 1], [2, None]], [3, 1, 2, None]],
    ids=["nested", "flat"],
)
def test_one_tensor_may_hold_all_columns_where_they_are_of_one_kind(sorter: Running, data: list[Any]) -> None:
    tensor = {"name": "predict", "shape": [2, 2], "datatype": "FP32", "data": data}
    answer = sorter.post({"inputs": [tensor]}, INFER)
    assert [(output["datatype"], output["data"]) for output in answer.json()["outputs"]] == [
        ("BYTES", ["a", "b"]),
        ("BOOL", [True, False]),
        ("INT64", [2, -3]),
    ]
    assert [output["datatype"] for output in sorter.client.get(MODEL).json()["outputs"]] == ["BYTES", "BOOL", "INT64"]


def test_a_model_that_fails_is_named_with_its_release(sorter: Running) -> None:
    answer = sorter.post({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT8", "data": [13, 1]}]}, INFER)
    assert answer.status_code == 500
    assert answer.json() == {"error": f"the model of release {RELEASE} raised ValueError: thirteen"}
