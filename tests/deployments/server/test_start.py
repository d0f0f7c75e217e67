"""What the server refuses to serve, and that it refuses before anything is unpickled."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.server.models import write_config, write_model
from tests.deployments.server.processes import refused, serving

SIGNATURE: dict[str, Any] = {
    "format": 1,
    "inputs": [{"name": "x", "type": "number", "nullable": False, "example": 1.5}],
    "output": {"kind": "values", "names": ["y"]},
}


class Tattler:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str, int], object], tuple[str, int]]:
        return (os.open, (self.mark, os.O_CREAT))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def _swap(path: Path) -> None:
    other = next(file for file in path.parent.iterdir() if file != path)
    shutil.copy(other, path)


@pytest.mark.parametrize("damage", [_flip, _truncate, _append, _swap, Path.unlink])
@pytest.mark.parametrize("name", ["model.pkl", "signature.json"])
def test_other_bytes_are_refused_before_they_are_unpickled(
    tmp_path: Path, damage: Callable[[Path], object], name: str
) -> None:
    mark = tmp_path / "unpickled"
    files = write_model(tmp_path / "model", Tattler(str(mark)), SIGNATURE)
    damage(tmp_path / "model" / name)
    code, words = refused(write_config(tmp_path, files))
    assert code == os.EX_CONFIG
    assert name in words
    assert len(words.splitlines()) == 1
    assert not mark.exists()
    if damage is not Path.unlink:
        assert next(file["digest"] for file in files if file["path"] == name) in words


def test_a_file_that_the_release_does_not_name_is_never_read(census_home: Path, tmp_path: Path) -> None:
    shutil.copytree(census_home / "model", tmp_path / "model")
    (tmp_path / "model" / "extra.pkl").write_bytes(b"not a pickle")
    config = json.loads((census_home / "server.json").read_text())
    with serving(write_config(tmp_path, config["files"])) as server:
        assert server.client.get("/ready").status_code == 200


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "format must be 1, got 2"),
        ({"inputs": []}, "at least one field"),
        ({"inputs": [{"name": "x", "type": "float", "example": 1}]}, "type of x must be one of integer, number"),
        ({"inputs": [{"name": "x", "type": "integer", "example": "1"}]}, "example of x does not fit"),
        ({"inputs": SIGNATURE["inputs"] * 2}, "its own name"),
        ({"output": {"kind": "guess", "names": ["y"]}}, "output kind must be one of"),
        ({"output": {}}, "not a signature"),
    ],
)
def test_a_signature_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    files = write_model(tmp_path / "model", Tattler(str(tmp_path / "unpickled")), {**SIGNATURE, **change})
    code, words = refused(write_config(tmp_path, files))
    assert (code, sentence in words) == (os.EX_CONFIG, True), words
    assert not (tmp_path / "unpickled").exists()


def test_a_model_that_cannot_answer_its_own_example_is_refused(tmp_path: Path) -> None:
    code, words = refused(write_config(tmp_path, write_model(tmp_path / "model", 7, SIGNATURE)))
    assert code == os.EX_CONFIG
    assert "AttributeError" in words
    assert "Traceback" not in words


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"colour": "red"}, "not known: colour"),
        ({"service": 7}, "service must be of type str, got 7"),
        ({"port": None}, "port must be 0 to 65535"),
        ({"socket": "/tmp/" + "x" * 100}, "at most 90 bytes"),
        ({"files": [{"path": "../model.pkl", "size": 1, "digest": ""}]}, "stay inside the folder"),
        ({"files": []}, "must have the file model.pkl"),
        ({"release": "a\nb"}, "release must be a digest"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    code, words = refused(write_config(tmp_path, **{"files": [], **change}))
    assert (code, sentence in words) == (os.EX_CONFIG, True), words


def test_a_port_that_is_taken_is_said(census_home: Path, tmp_path: Path) -> None:
    config = json.loads((census_home / "server.json").read_text())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config |= {"port": port, "spool": str(tmp_path / "spool")}
        (tmp_path / "server.json").write_text(json.dumps(config))
        code, words = refused(tmp_path / "server.json")
    assert (code, str(port) in words, "Traceback" in words) == (os.EX_TEMPFAIL, True, False)


def test_a_unix_socket_takes_the_place_of_a_dead_one(census_home: Path, short_path: Path, tmp_path: Path) -> None:
    config = json.loads((census_home / "server.json").read_text())
    config |= {"socket": str(short_path / "s"), "spool": str(tmp_path / "spool")}
    (tmp_path / "server.json").write_text(json.dumps(config))
    with serving(tmp_path / "server.json") as first:
        first.kill()
        assert (short_path / "s").is_socket()
    with serving(tmp_path / "server.json") as second:
        assert second.client.get("/ready").json()["pid"] == second.process.pid
        assert (short_path / "s").stat().st_mode & 0o777 == 0o600
        assert second.stop() == 0
