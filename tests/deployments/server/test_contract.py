"""One contract for two servers, ours and Seldon's Python wrapper: the same answers to the same requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.deployments.server import wrapper
from tests.deployments.server.models import (
    RELEASE,
    SNAPSHOT,
    census,
    census_model,
    census_rows,
    census_signature,
    write_config,
    write_model,
)
from tests.deployments.server.processes import refused, serving, until
from tests.deployments.server.test_protocol import BAD_BODIES, BAD_VALUES
from tests.deployments.server.test_start import SIGNATURE, Tattler

OURS, SELDON = "our server", "seldon-core-microservice"
NAMES = list(census(1).columns)
ROWS = census_rows(3)
OWN = ("not JSON", "UTF-8", "twice", "got null")
"""What the wrapper says in its own words before it asks anybody, or never finds."""

both = pytest.mark.parametrize("program", [OURS, SELDON])


class Superstitious:
    """The census model, which fails where somebody is thirteen years old."""

    def __init__(self) -> None:
        self.fitted = census_model()

    def predict_proba(self, frame: pd.DataFrame) -> Any:
        if (frame["age"] == 13).any():
            raise ValueError("thirteen")
        return self.fitted.predict_proba(frame)


class Mute:
    """A model that cannot answer: to look for its method is an AttributeError."""


@pytest.fixture(scope="module", params=[OURS, SELDON])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[httpx.Client]:
    """A client of one of the servers, each of which serves the same model from the same configuration."""
    home = tmp_path_factory.mktemp("contract")
    config = write_config(home, write_model(home / "model", Superstitious(), census_signature()))
    if request.param == OURS:
        with serving(config) as running:
            yield running.client
    else:
        with _wrapped(config) as wrapped:
            yield wrapped


def _start(config: Path, port: int) -> subprocess.Popen[bytes]:
    pytest.importorskip("seldon_core", reason="the seldon extra is not installed: it is for Python 3.12")
    ours = {
        "PYTHONPATH": str(Path(__file__).parents[3])
    }  # the models of this file; other packages bring a `tests` of their own
    with config.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            wrapper.command(config, port),
            env={**os.environ, **wrapper.environment(config.parent), **ours},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def _wrapped(config: Path) -> Generator[httpx.Client]:
    port = wrapper.free_port()
    process = _start(config, port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            until(lambda: _answers(client, process), 60)
            yield client
        process.terminate()
        assert process.wait(30) == 0
    finally:
        _end(process)


def _answers(client: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        return client.get("/health/ping").status_code == 200
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _refused(program: str, config: Path) -> tuple[int, str]:
    """Exit code and words of a server that does not start."""
    if program == OURS:
        return refused(config)
    process = _start(config, wrapper.free_port())
    try:
        return process.wait(60), config.with_suffix(".log").read_text()
    finally:
        _end(process)


def _post(client: httpx.Client, document: Any, **headers: str) -> httpx.Response:
    return client.post("/api/v1.0/predictions", json=document, headers=headers)


FORMS: list[tuple[dict[str, Any], str]] = [
    ({"data": {"names": NAMES, "ndarray": ROWS}}, "ndarray"),
    ({"data": {"ndarray": ROWS}}, "ndarray"),
    ({"data": {"names": list(reversed(NAMES)), "ndarray": [list(reversed(row)) for row in ROWS]}}, "ndarray"),
    ({"data": {"tensor": {"shape": [3, 14], "values": [value for row in ROWS for value in row]}}}, "tensor"),
    ({"jsonData": [dict(zip(NAMES, row, strict=True)) for row in ROWS]}, "tensor"),
]


@pytest.mark.parametrize(("document", "form"), FORMS, ids=range(len(FORMS)))
def test_an_answer_is_the_models_own_in_the_form_of_its_request(
    client: httpx.Client, document: dict[str, Any], form: str
) -> None:
    meta = {"puid": "mine", "tags": {"team": "risk", "release": "forged"}}
    answer = _post(client, {**document, "meta": meta}, **{"x-request-id": "mine"})
    numbers = np.asarray(census_model().predict_proba(pd.DataFrame(ROWS, columns=pd.Index(NAMES))))
    tensor = {"shape": [3, 2], "values": numbers.ravel().tolist()}
    assert answer.status_code == 200
    assert answer.json() == {
        "data": {"names": ["<=50K", ">50K"], form: tensor if form == "tensor" else numbers.tolist()},
        "meta": {"puid": "mine", "tags": {"team": "risk", "release": RELEASE, "model": SNAPSHOT}},
    }


def test_an_answer_to_a_request_without_an_id_has_one(client: httpx.Client) -> None:
    assert len(_post(client, {"jsonData": dict(zip(NAMES, ROWS[0], strict=True))}).json()["meta"]["puid"]) == 32


def test_what_is_refused_is_refused_with_the_same_sentence(client: httpx.Client) -> None:
    for body, sentence in BAD_BODIES:
        answer = client.post("/api/v1.0/predictions", content=body, headers={"content-type": "application/json"})
        if not sentence.endswith(OWN):
            assert (answer.status_code, sentence in _info(answer)) == (400, True), (body, answer.text)
    for changed, sentence in BAD_VALUES:
        row = [changed.get(name, value) for name, value in zip(NAMES, ROWS[0], strict=True)]
        answer = _post(client, {"data": {"ndarray": [ROWS[1], row]}})
        assert (answer.status_code, sentence in _info(answer)) == (400, True), (changed, answer.text)


def _info(answer: httpx.Response) -> str:
    status = answer.json()["status"]
    assert (status["status"], status["code"], status["reason"]) == ("FAILURE", answer.status_code, "BAD_DATA")
    return status["info"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 5_000, b"\xff", b'{"data": {"ndarray": [[NaN]]}}'])
def test_what_is_no_json_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/api/v1.0/predictions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, "info" in answer.json()["status"]) == (400, True)


def test_too_many_rows_another_content_type_and_a_path_that_is_not_there(client: httpx.Client) -> None:
    other = client.post("/api/v1.0/predictions", content=b"{}", headers={"content-type": "text/plain"})
    answers = [_post(client, {"data": {"ndarray": [[]] * 10_001}}), other, client.get("/nothing")]
    status = [answer.json()["status"] for answer in answers]
    assert [one["code"] for one in status] == [answer.status_code for answer in answers] == [413, 415, 404]
    assert [one["reason"] for one in status] == ["TOO_MANY_ROWS", "UNSUPPORTED_MEDIA_TYPE", "NOT_FOUND"]


def test_a_model_that_fails_is_named_with_its_release(client: httpx.Client) -> None:
    answer = _post(client, {"data": {"ndarray": [[13, *ROWS[0][1:]]]}})
    info = f"the model of release {RELEASE} raised ValueError: thirteen"
    assert answer.status_code == 500
    assert answer.json() == {"status": {"status": "FAILURE", "code": 500, "info": info, "reason": "MODEL_FAILED"}}


def test_the_metadata_is_the_same(client: httpx.Client) -> None:
    metadata = client.get("/metadata").json()
    assert (metadata["name"], metadata["versions"]) == ("credit", [RELEASE])
    assert metadata["inputs"] == [{"messagetype": "ndarray", "schema": {"names": NAMES, "shape": [14]}}]
    assert metadata["custom"] == {"release": RELEASE, "model": SNAPSHOT, "output": "probabilities"}


@both
def test_other_bytes_are_refused_before_they_are_unpickled(program: str, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    files = write_model(tmp_path / "model", Tattler(str(mark)), SIGNATURE)
    (tmp_path / "model" / "model.pkl").write_bytes((tmp_path / "model" / "model.pkl").read_bytes() + b"\n")
    code, words = _refused(program, write_config(tmp_path, files))
    assert code == os.EX_CONFIG
    assert "model.pkl" in words.splitlines()[-1]
    assert files[0]["digest"] in words.splitlines()[-1]
    assert "Traceback" not in words
    assert not mark.exists()


@both
def test_a_model_that_cannot_be_used_ends_the_server(program: str, tmp_path: Path) -> None:
    code, words = _refused(program, write_config(tmp_path, write_model(tmp_path / "model", Mute(), SIGNATURE)))
    assert code != os.EX_OK
    assert "model.pkl cannot be loaded: AttributeError" in words


def test_a_message_of_seldons_grpc_gets_a_message(tmp_path: Path) -> None:
    messages = pytest.importorskip("seldon_core.proto.prediction_pb2", reason="the seldon extra is for Python 3.12")
    from prefect_mlops.deployments.server.seldon import ReleasedModel

    config = write_config(tmp_path, write_model(tmp_path / "model", Superstitious(), census_signature()))
    model = ReleasedModel(str(config))
    model.load()
    document = {"data": {"names": NAMES, "ndarray": ROWS}}
    message = messages.SeldonMessage(meta={"puid": "mine"})
    message.data.names.extend(NAMES)
    for row in ROWS:
        message.data.ndarray.append(row)
    answer = model.predict_raw(message)
    wanted = model.predict_raw(json.loads(json.dumps(document)))
    assert answer.meta.puid == "mine"
    assert [list(row) for row in answer.data.ndarray] == wanted["data"]["ndarray"]
