"""One contract for two servers, ours and Seldon's Python wrapper: the same answers to the same requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.deployments.server import wrapper
from tests.deployments.server.contract import NAMES, ROWS, Contract, Served, Superstitious
from tests.deployments.server.models import (
    RELEASE,
    SNAPSHOT,
    census_model,
    census_signature,
    write_config,
    write_model,
)
from tests.deployments.server.processes import refused, serving, until
from tests.deployments.server.test_start import SIGNATURE, Tattler

OURS, SELDON = "our server", "seldon-core-microservice"
both = pytest.mark.parametrize("program", [OURS, SELDON])


class Mute:
    """A model that cannot answer: to look for its method is an AttributeError."""


@pytest.fixture(scope="module", params=[OURS, SELDON])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """One of the servers, each of which serves the same model from the same configuration."""
    home = tmp_path_factory.mktemp("contract")
    config = write_config(home, write_model(home / "model", Superstitious(census_model()), census_signature()))
    if request.param == OURS:
        with serving(config) as running:
            yield Served(running.client, RELEASE, SNAPSHOT)
    else:
        with _wrapped(config) as wrapped:
            yield Served(wrapped, RELEASE, SNAPSHOT)


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


class TestContract(Contract):
    """Both of them keep to it."""


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

    config = write_config(tmp_path, write_model(tmp_path / "model", Superstitious(census_model()), census_signature()))
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
