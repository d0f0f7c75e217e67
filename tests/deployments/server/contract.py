"""What every server of a release keeps to, whatever program it is and wherever it runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import cloudpickle
import httpx
import numpy as np
import pandas as pd
import pytest

from tests.deployments.server.models import census, census_model, census_rows
from tests.deployments.server.test_protocol import BAD_BODIES, BAD_VALUES

NAMES = list(census(1).columns)
ROWS = census_rows(3)
OWN = ("not JSON", "UTF-8", "twice", "got null")
"""What the wrapper says in its own words before it asks anybody, or never finds."""


class Superstitious:
    """The census model, which fails where somebody is thirteen years old."""

    def __init__(self, fitted: Any) -> None:
        self.fitted = fitted

    def predict_proba(self, frame: pd.DataFrame) -> Any:
        if (frame["age"] == 13).any():
            raise ValueError("thirteen")
        return self.fitted.predict_proba(frame)


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a server elsewhere has no tests


@dataclass(frozen=True)
class Served:
    """A server of `Superstitious(census_model())`.

    Attributes:
        client: Asks it.
        release: Digest of its release.
        model: Digest of its model.
    """

    client: httpx.Client
    release: str
    model: str


def _post(client: httpx.Client, document: Any, **headers: str) -> httpx.Response:
    return client.post("/api/v1.0/predictions", json=document, headers=headers)


def _send(client: httpx.Client, body: bytes | str, kind: str = "application/json") -> httpx.Response:
    return client.post("/api/v1.0/predictions", content=body, headers={"content-type": kind})


def _info(answer: httpx.Response) -> str:
    status = answer.json()["status"]
    assert (status["status"], status["code"], status["reason"]) == ("FAILURE", answer.status_code, "BAD_DATA")
    return status["info"]


FORMS: list[tuple[dict[str, Any], str]] = [
    ({"data": {"names": NAMES, "ndarray": ROWS}}, "ndarray"),
    ({"data": {"ndarray": ROWS}}, "ndarray"),
    ({"data": {"names": list(reversed(NAMES)), "ndarray": [list(reversed(row)) for row in ROWS]}}, "ndarray"),
    ({"data": {"tensor": {"shape": [3, 14], "values": [value for row in ROWS for value in row]}}}, "tensor"),
    ({"jsonData": [dict(zip(NAMES, row, strict=True)) for row in ROWS]}, "tensor"),
]


class Contract:
    """The contract; a class that inherits it is collected, and has a fixture `served`."""

    @pytest.mark.parametrize(("document", "form"), FORMS, ids=range(len(FORMS)))
    def test_an_answer_is_the_models_own_in_the_form_of_its_request(
        self, served: Served, document: dict[str, Any], form: str
    ) -> None:
        meta = {"puid": "mine", "tags": {"team": "risk", "release": "forged"}}
        answer = _post(served.client, {**document, "meta": meta}, **{"x-request-id": "mine"})
        numbers = np.asarray(census_model().predict_proba(pd.DataFrame(ROWS, columns=pd.Index(NAMES))))
        tensor = {"shape": [3, 2], "values": numbers.ravel().tolist()}
        assert answer.status_code == 200
        assert answer.json() == {
            "data": {"names": ["<=50K", ">50K"], form: tensor if form == "tensor" else numbers.tolist()},
            "meta": {"puid": "mine", "tags": {"team": "risk", "release": served.release, "model": served.model}},
        }

    def test_an_answer_to_a_request_without_an_id_has_one(self, served: Served) -> None:
        assert (
            len(_post(served.client, {"jsonData": dict(zip(NAMES, ROWS[0], strict=True))}).json()["meta"]["puid"]) == 32
        )

    def test_what_is_refused_is_refused_with_the_same_sentence(self, served: Served) -> None:
        for body, sentence in BAD_BODIES:
            answer = _send(served.client, body)
            if not sentence.endswith(OWN):
                assert (answer.status_code, sentence in _info(answer)) == (400, True), (body, answer.text)
        for changed, sentence in BAD_VALUES:
            row = [changed.get(name, value) for name, value in zip(NAMES, ROWS[0], strict=True)]
            answer = _post(served.client, {"data": {"ndarray": [ROWS[1], row]}})
            assert (answer.status_code, sentence in _info(answer)) == (400, True), (changed, answer.text)

    @pytest.mark.parametrize("body", [b"", b"{", b"[" * 5_000, b"\xff", b'{"data": {"ndarray": [[NaN]]}}'])
    def test_what_is_no_json_is_refused(self, served: Served, body: bytes) -> None:
        answer = _send(served.client, body)
        assert (answer.status_code, "info" in answer.json()["status"]) == (400, True)

    def test_too_many_rows_another_content_type_and_a_path_that_is_not_there(self, served: Served) -> None:
        other = _send(served.client, b"{}", "text/plain")
        answers = [_post(served.client, {"data": {"ndarray": [[]] * 10_001}}), other, served.client.get("/nothing")]
        status = [answer.json()["status"] for answer in answers]
        assert [one["code"] for one in status] == [answer.status_code for answer in answers] == [413, 415, 404]
        assert [one["reason"] for one in status] == ["TOO_MANY_ROWS", "UNSUPPORTED_MEDIA_TYPE", "NOT_FOUND"]

    def test_a_model_that_fails_is_named_with_its_release(self, served: Served) -> None:
        answer = _post(served.client, {"data": {"ndarray": [[13, *ROWS[0][1:]]]}})
        info = f"the model of release {served.release} raised ValueError: thirteen"
        assert answer.status_code == 500
        assert answer.json() == {"status": {"status": "FAILURE", "code": 500, "info": info, "reason": "MODEL_FAILED"}}

    def test_the_metadata_is_the_same(self, served: Served) -> None:
        metadata = served.client.get("/metadata").json()
        assert (metadata["name"], metadata["versions"]) == ("credit", [served.release])
        assert metadata["inputs"] == [{"messagetype": "ndarray", "schema": {"names": NAMES, "shape": [14]}}]
        assert metadata["custom"] == {"release": served.release, "model": served.model, "output": "probabilities"}
