"""The command as a process: how fast it starts, what it prints where, and how it leaves."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest
from filelock import FileLock

from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import GateNotPassed, Invalid, ServiceBusy, TargetUnreachable
from prefect_mlops.deployments.cli import _exits
from prefect_mlops.deployments.local.place import Place
from tests.places import run, say, start

COMMANDS = ("up", "demo", "status", "releases", "trace", "verify", "rollback", "reconcile", "registry", "stop")


def test_help_names_every_command_and_is_fast(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = run(tmp_path, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.code == 0
    assert all(command in said.out for command in COMMANDS)
    assert after.ru_utime - before.ru_utime < 0.5, "it loads Prefect, which takes two seconds"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    said = say(tmp_path, command, "--help")
    assert said.code == 0
    assert "--json" in said.out


@pytest.mark.parametrize(
    "words",
    [("status",), ("releases",), ("trace", "x"), ("verify",), ("rollback", "credit"), ("reconcile",), ("registry",)],
)
def test_without_a_place_there_is_one_sentence_and_nothing_is_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    home = tmp_path / "none"
    said = say(home, *words)
    assert (said.code, said.out) == (3, "")
    assert said.err.startswith(f"prefect-mlops: there is no local place in {home}")
    assert len(said.err.splitlines()) == 1
    assert not home.exists()


def test_an_error_is_the_one_document_too(tmp_path: Path) -> None:
    said = run(tmp_path / "none", "status", "--json")
    assert said.code == 3
    assert json.loads(said.out)["error"]["type"] == "NoHome"
    assert said.err == ""


@pytest.mark.parametrize("words", [("nosuch",), ("rollback",), ("status", "--nosuch"), ()])
def test_a_wrong_command_line_is_bad_input(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = say(tmp_path, *words, *(["--json"] if words else []))
    assert said.code == 2
    assert "Traceback" not in said.err
    if words:
        assert said.document["error"]["type"] == "Usage"


def test_stop_where_nothing_runs_is_fine(tmp_path: Path) -> None:
    assert say(tmp_path / "none", "stop", "--json").document["stopped"] is True
    assert not (tmp_path / "none").exists()


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    said = say(tmp_path / "home", "up", "--json")
    assert said.code == 2
    assert "is a folder" in said.document["error"]["message"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_made_is_refused() -> None:
    assert say(Path("/proc/home"), "up").code == 2


def test_the_environment_is_not_there(tmp_path: Path) -> None:
    store = Place(tmp_path).store
    assert store.id
    said = say(tmp_path, "status", "--json")
    assert (said.code, said.document["error"]["type"]) == (3, "NoLog")


def test_interrupted_it_leaves_with_130(tmp_path: Path) -> None:
    """Another process brings the place up: this one waits for it, until it is interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests in the background may ignore it
    place = Place(tmp_path / "home")
    place.home.mkdir()
    with FileLock(place.home / "up.lock"):
        process = start(place.home, "up", "--json", start_new_session=True)
        assert wait_until(place.paths.mlflow.exists, seconds=60, pause=0.05), "it makes its folders just before"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["error"]["type"] == "Interrupted"
    assert "Traceback" not in err


def test_nobody_reads_its_output(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start(tmp_path / "none", "stop", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 141
    assert err == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/log"), 3, "make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 3, "--home"),
        (Invalid("service", "is known", "x"), 2, "service is known"),
        (TargetUnreachable("the gateway", "it is down"), 3, "does not answer"),
        (ServiceBusy("credit", 3, "ana", "noon"), 4, "being moved by ana"),
        (GateNotPassed("credit-v2", "probes", "failed", "16 of 16"), 1, "stopped by gate"),
        (KeyError("x"), 70, "--debug"),
    ],
)
def test_errors_have_their_exit_codes(error: Exception, code: int, words: str) -> None:
    verdict = _exits.judge(error)
    assert verdict.code == code
    assert words in verdict.sentence
    assert "\n" not in verdict.sentence


def test_no_setting_of_the_users_prefect_is_used(tmp_path: Path) -> None:
    """A profile or key of the user's that is broken would break a command that listens to it."""
    broken = {
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        "PREFECT_PROFILE": "nosuch",
        "PREFECT_LOGGING_LEVEL": "NOSUCH",
    }
    said = run(tmp_path / "none", "stop", env=os.environ | broken)
    assert said.code == 0, said.err
