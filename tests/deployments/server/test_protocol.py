"""Seldon's REST protocol against a real server: what is answered, and the sentence for what is not."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.deployments.server.models import RELEASE, SNAPSHOT, census, census_model, census_rows
from tests.deployments.server.processes import Running

NAMES = list(census(1).columns)
ROW: list[Any] = census_rows(1)[0]
PREDICT = "/api/v1.0/predictions"


def _row(**changed: Any) -> list[Any]:
    return [changed.get(name, value) for name, value in zip(NAMES, ROW, strict=True)]


def _ndarray(*rows: list[Any], **more: Any) -> dict[str, Any]:
    return {"data": {"names": NAMES, "ndarray": list(rows)}, **more}


def _send(server: Running, body: bytes | str, **headers: str) -> httpx.Response:
    return server.client.post(PREDICT, content=body, headers={"content-type": "application/json", **headers})


def _refusal(answer: httpx.Response) -> str:
    status = answer.json()["status"]
    assert status["status"] == "FAILURE"
    assert status["code"] == answer.status_code
    assert status["reason"].isupper()
    return status["info"]


def test_answers_are_the_models_own(server: Running) -> None:
    answer = server.post(_ndarray(*census_rows(20))).json()
    assert answer["data"]["names"] == ["<=50K", ">50K"]
    assert np.array_equal(answer["data"]["ndarray"], census_model().predict_proba(census(20, 1)))
    assert answer["meta"]["tags"] == {"release": RELEASE, "model": SNAPSHOT}


def test_every_form_of_a_row_gets_the_same_numbers(server: Running) -> None:
    turned = list(reversed(NAMES))
    forms: list[dict[str, Any]] = [
        _ndarray(ROW),
        {"data": {"ndarray": [ROW]}},
        {"data": {"names": turned, "ndarray": [list(reversed(ROW))]}},
        {"data": {"names": NAMES, "tensor": {"shape": [1, len(ROW)], "values": ROW}}},
        {"jsonData": dict(zip(NAMES, ROW, strict=True))},
        {"jsonData": [dict(zip(turned, reversed(ROW), strict=True))], "meta": {}},
        _ndarray(_row(age=float(ROW[0]))),
    ]
    answers = [server.post(form).json()["data"] for form in forms]
    numbers = [data["ndarray"][0] if "ndarray" in data else data["tensor"]["values"] for data in answers]
    assert all(values == numbers[0] for values in numbers)
    assert ["tensor" in data for data in answers] == [False, False, False, True, True, True, False]


def test_an_answer_says_who_gave_it_and_under_which_id(server: Running) -> None:
    meta = {"puid": "mine-1", "tags": {"team": "risk", "release": "forged"}}
    answer = server.post(_ndarray(ROW, meta=meta), headers={"x-request-id": "req-1"})
    assert answer.headers["x-request-id"] == answer.json()["meta"]["puid"] == "req-1"
    assert answer.json()["meta"]["tags"] == {"team": "risk", "release": RELEASE, "model": SNAPSHOT}
    assert (answer.headers["x-release"], answer.headers["x-model-digest"]) == (RELEASE, SNAPSHOT)
    assert len(server.post(_ndarray(ROW)).headers["x-request-id"]) == 32


BAD_BODIES = [
    ("", "not JSON"),
    ("{", "not JSON"),
    (b"\xff\xfe{}", "not JSON"),
    (b'{"data": "\xff"}', "UTF-8"),
    (b"\xef\xbb\xbf{}", "not JSON"),
    ("[" * 5_000, "not JSON"),
    ('{"jsonData": ' + "[" * 900 + "]" * 900 + "}", "must be an object of fields"),
    ("null", "the body must be an object, got null"),
    ("[]", "the body must be an object, got an array"),
    ("3", "the body must be an object, got 3"),
    ("{}", "either data or jsonData"),
    ('{"data": {}, "jsonData": {}}', "either data or jsonData"),
    ('{"strData": "x"}', "strData cannot be used"),
    ('{"data": {"ndarray": []}, "more": 1}', "unknown field more"),
    ('{"data": {"ndarray": [], "tftensor": 1}}', "unknown field tftensor"),
    ('{"data": 7}', "data must be an object, got 7"),
    ('{"data": {"ndarray": []}}', "at least one row"),
    ('{"jsonData": []}', "at least one row"),
    ('{"data": {"ndarray": {}}}', "an array of rows, got an object"),
    ('{"data": {"ndarray": [1]}}', "one array per row, got 1 in row 0"),
    ('{"data": {"ndarray": [[1]]}}', "14 values"),
    ('{"data": {"names": ["age", "age"], "ndarray": [[1, 2]]}}', "14 values"),
    ('{"data": {"tensor": {"shape": [1], "values": [1]}}}', "two whole numbers"),
    ('{"data": {"tensor": {"shape": [5, 0], "values": []}}}', "14 values"),
    ('{"data": {"tensor": {"shape": [-1, -1], "values": [1]}}}', "two whole numbers"),
    ('{"data": {"tensor": {"shape": [2, 14], "values": [1]}}}', "28 values, got 1"),
    ('{"data": {"tensor": {"shape": [18446744073709551615, 18446744073709551615], "values": []}}}', "must have"),
    ('{"jsonData": {"age": 1}}', "missing field fnlwgt"),
    ('{"jsonData": {"salary": 1}}', "unknown field salary"),
    ('{"jsonData": {}, "jsonData": {}}', "'jsonData' twice"),
    ('{"jsonData": {"age": 1, "age": 2}}', "'age' twice"),
    ('{"jsonData": {"a:b": {"c": ":"}, "a:b": 1}}', "'a:b' twice"),
    ('{"data": {"ndarray": [[NaN]]}}', "not JSON"),
    ('{"data": {"ndarray": [[1e999]]}}', "not JSON"),
    ('{"data": {"ndarray": [[-Infinity]]}}', "not JSON"),
    ('{"data": {"ndarray": []}, "meta": []}', "meta must be an object"),
    ('{"data": {"ndarray": []}, "meta": {"puid": 7}}', "meta.puid must be"),
    ('{"data": {"ndarray": []}, "meta": {"puid": "a\\nb"}}', "meta.puid must be"),
    ('{"data": {"ndarray": []}, "meta": {"tags": 7}}', "meta.tags must be an object"),
    ('{"data": {"ndarray": []}, "meta": {"tags": {"a": ' + "[" * 500 + "]" * 500 + "}}}", "nested too deeply"),
]


@pytest.mark.parametrize(("body", "sentence"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_body_that_breaks_the_protocol_gets_a_sentence(server: Running, body: bytes | str, sentence: str) -> None:
    answer = _send(server, body)
    assert answer.status_code == 400
    assert sentence in _refusal(answer)


BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"age": "abc"}, "age must be an integer, got 'abc' in row 1"),
    ({"age": 39.5}, "age must be an integer, got 39.5 in row 1"),
    ({"age": True}, "age must be an integer, got true in row 1"),
    ({"age": None}, "age must be an integer, got null in row 1"),
    ({"age": [39]}, "age must be an integer, got an array in row 1"),
    ({"age": 2**63}, "age must be from -2^63 to below 2^63, got 9223372036854775808 in row 1"),
    ({"age": 10**40}, "age must be from -2^63"),
    ({"sex": 1}, "sex must be a string, got 1 in row 1"),
    ({"sex": None}, "sex must be a string, got null in row 1"),
    ({"sex": {"a": 1}}, "sex must be a string, got an object in row 1"),
    ({"age": "x" * 5_000}, "xxx…"),
]


@pytest.mark.parametrize(("changed", "sentence"), BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_a_value_of_the_wrong_type_is_named_with_its_row(
    server: Running, changed: dict[str, Any], sentence: str
) -> None:
    answer = server.post(_ndarray(ROW, _row(**changed)))
    assert answer.status_code == 400
    assert sentence in _refusal(answer)
    assert len(_refusal(answer)) < 300


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([*NAMES[:-1], "salary"], "unknown field salary"),
        (NAMES[:-1], "missing field native_country"),
        ([*NAMES[:-1], "age"], "missing field native_country"),
        ([*NAMES, "age"], "age more than once"),
        ("age", "names must be an array of strings"),
        ([1] * 14, "names must be an array of strings"),
    ],
)
def test_names_must_be_the_models_own(server: Running, names: Any, sentence: str) -> None:
    answer = server.post({"data": {"names": names, "ndarray": [ROW]}})
    assert answer.status_code == 400
    assert sentence in _refusal(answer)


@pytest.mark.parametrize(
    ("headers", "status", "sentence"),
    [
        ({"content-type": "text/plain"}, 415, "send content-type: application/json"),
        ({"content-type": ""}, 415, "send content-type: application/json"),
        ({"content-type": "application/json; charset=latin-1"}, 415, "send content-type: application/json"),
        ({"content-encoding": "gzip"}, 415, "must not be compressed"),
        ({"x-request-id": "a b"}, 400, "x-request-id must be"),
        ({"x-request-id": "x" * 201}, 400, "x-request-id must be"),
        ({"x-client-request-id": "a\tb"}, 400, "x-client-request-id must be"),
        ({"x-mlops-role": "boss"}, 400, "live, warm or shadow"),
        ({"x-envoy-attempt-count": "-1"}, 400, "x-envoy-attempt-count must be"),
    ],
)
def test_headers_that_are_wrong_get_a_sentence(
    server: Running, headers: dict[str, str], status: int, sentence: str
) -> None:
    answer = _send(server, json.dumps(_ndarray(ROW)), **headers)
    assert answer.status_code == status
    assert sentence in _refusal(answer)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"'])
def test_json_may_say_its_charset(server: Running, kind: str) -> None:
    assert _send(server, json.dumps(_ndarray(ROW)), **{"content-type": kind}).status_code == 200


def test_too_much_is_refused(server: Running) -> None:
    answer = _send(server, b" " * 100_001)
    assert (answer.status_code, "at most 100000 bytes" in _refusal(answer)) == (413, True)
    rows = _send(server, '{"data": {"ndarray": [' + ",".join(["[]"] * 10_001) + "]}}")
    assert (rows.status_code, "at most 10000 rows, got 10001" in _refusal(rows)) == (413, True)


def test_paths_and_methods_that_are_not_there(server: Running) -> None:
    assert "/openapi.json" in _refusal(server.client.get("/nothing/here"))
    for method, path, allow in (("GET", PREDICT, "POST"), ("POST", "/ready", "GET, HEAD"), ("PUT", PREDICT, "POST")):
        answer = server.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert server.client.head("/ready").status_code == 200


def test_health_and_metadata(server: Running) -> None:
    ready = server.client.get("/ready").json()
    assert ready == {"pid": server.process.pid, "release": RELEASE, "model": SNAPSHOT, "instance": "0"}
    assert server.client.get("/health/ping").status_code == 200
    assert server.client.get("/health/status").json()["status"]["status"] == "SUCCESS"
    metadata = server.client.get("/metadata").json()
    assert metadata["name"] == "credit"
    assert metadata["inputs"][0]["schema"]["names"] == NAMES
    assert metadata["custom"]["model"] == SNAPSHOT


def test_metadata_passes_seldons_own_validation(server: Running) -> None:
    seldon = pytest.importorskip("seldon_core.metadata", reason="the seldon extra is for Python 3.12")
    seldon.validate_model_metadata(server.client.get("/metadata").json())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"reward": 1}, "must name its prediction"),
        ({"response": {"meta": {"puid": "a"}}}, "a reward or a truth"),
        ({"response": {"meta": {"puid": "a"}}, "reward": "good"}, "reward must be a number, got 'good'"),
        ({"response": {"meta": {"puid": "a"}}, "reward": True}, "reward must be a number, got true"),
        ({"response": {"meta": {"puid": "a"}}, "truth": [1]}, "truth must be an object"),
        ({"response": 7, "reward": 1}, "response must be an object"),
        ({"prediction": "a"}, "unknown field prediction"),
    ],
)
def test_feedback_that_says_nothing_usable_gets_a_sentence(
    server: Running, body: dict[str, Any], sentence: str
) -> None:
    answer = server.post(body, "/api/v1.0/feedback")
    assert answer.status_code == 400
    assert sentence in _refusal(answer)
