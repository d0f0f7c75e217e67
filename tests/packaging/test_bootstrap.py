"""`make` finds a Python by trying it, and makes the same environment on each of them."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.project import copy_tracked, load_bootstrap

HERE = (os.path.realpath(getattr(sys, "_base_executable", sys.executable)), platform.python_version())


@pytest.fixture(scope="module")
def bootstrap() -> Any:
    return load_bootstrap()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty HOME and nothing on PATH but `bin`."""
    for name in ("PYTHON", "PYENV_ROOT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def _program(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def _python(path: Path, version: str) -> tuple[str, str]:
    """A program that answers as a Python of that version would."""
    _program(path, f"""echo '["{path}", "{version}"]'""")
    return str(path), version


def test_a_shim_that_starts_nothing_is_passed_over(
    bootstrap: Any, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyenv = machine / "pyenv"
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        _program(pyenv / "shims" / name, "exit 127")
    kept = pyenv / "versions" / HERE[1] / "bin" / "python3"
    kept.parent.mkdir(parents=True)
    kept.symlink_to(HERE[0])
    monkeypatch.setenv("PATH", str(pyenv / "shims"))
    assert bootstrap.chosen() == HERE


@pytest.mark.parametrize(
    ("there", "best"),
    [
        ({"python3.11": "3.11.7", "python3.12": "3.12.1", "python3.13": "3.13.0"}, "3.12.1"),
        ({"python3.13": "3.13.0", "python3": "3.12.4"}, "3.12.4"),
        ({"python3.11": "3.11.7", "python3": "3.13.1"}, "3.13.1"),
        ({"python3": "3.11.2"}, "3.11.2"),
        ({"python3": "3.10.9", "python": "2.7.18"}, None),
        ({}, None),
    ],
)
def test_the_best_python_that_starts_is_chosen(
    bootstrap: Any, machine: Path, there: dict[str, str], best: str | None
) -> None:
    for name, version in there.items():
        _python(machine / "bin" / name, version)
    found = bootstrap.chosen()
    assert (found and found[1]) == best


def test_the_python_that_is_named_is_used_or_refused(
    bootstrap: Any, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _python(machine / "bin" / "python3.12", "3.12.1")
    named = _python(machine / "elsewhere", "3.11.9")
    monkeypatch.setenv("PYTHON", named[0])
    assert bootstrap.chosen() == named
    for path, why in [(_python(machine / "old", "3.9.1")[0], "is Python 3.9.1"), ("/nowhere", "does not start")]:
        monkeypatch.setenv("PYTHON", path)
        with pytest.raises(bootstrap.Stop, match=re.escape(f"PYTHON={path} {why}")):
            bootstrap.chosen()


# --- the whole of it, on each Python -----------------------------------------------------------

HIDDEN = re.compile(r"(python|pydoc|pip|uv|pyenv|conda)")
REACH = re.compile(r"(_proxy$|^pip_|^uv_|^ssl_cert|_ca_bundle$|^goproxy$)", re.IGNORECASE)


def _interpreters(bootstrap: Any) -> dict[str, str]:
    """A path for each of our Python versions that is on this machine."""
    found = [answer for answer in map(bootstrap.probe, dict.fromkeys(bootstrap.candidates())) if answer]
    return {version.rpartition(".")[0]: path for path, version in reversed(found)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Downloads, shared by the environments that are made here and by nothing else."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bare(tmp_path: Path, cache: Path) -> dict[str, str]:
    """The environment of a machine with programs and no Python at all."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in folder.iterdir() if folder.is_dir() and folder.name != "shims" else []:
            if not HIDDEN.match(program.name) and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    (tmp_path / "home").mkdir()
    reach = {name: value for name, value in os.environ.items() if REACH.search(name)}
    caches = {"UV_CACHE_DIR": str(cache / "uv"), "PIP_CACHE_DIR": str(cache / "pip")}
    return {**reach, **caches, "PATH": str(programs), "HOME": str(tmp_path / "home")}


def _make(copy: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, check=False, cwd=copy, env=environment, capture_output=True, text=True, stdin=-3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_make_test_works_where_there_is_nothing_but_one_python(
    bootstrap: Any, bare: dict[str, str], tmp_path: Path, version: str
) -> None:
    interpreter = _interpreters(bootstrap).get(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} on this machine")
    (Path(bare["PATH"]) / "python3").symlink_to(interpreter)
    copy = copy_tracked(tmp_path / "copy")
    (copy / ".tools" / "bin").mkdir(parents=True)
    _program(copy / ".tools" / "bin" / "versitygw", "exit 1")  # building it is not what is tested here

    made = _make(copy, bare, "test", "PYTEST_ARGS=-n 0 tests/packaging/test_lock.py")
    assert made.returncode == 0, made.stdout + made.stderr
    assert re.search(r"=+ \d+ passed", made.stdout)
    assert ("the seldon extra is not installed" in made.stderr) == (version != "3.12")
    stamp = copy / ".venv" / ".made-of.json"
    assert json.loads(stamp.read_text())["python"][1].startswith(f"{version}.")

    before = stamp.stat().st_mtime_ns
    again = _make(copy, bare, "environment")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before

    (copy / ".venv" / "bin" / "python").unlink()
    mended = _make(copy, bare, "environment")
    assert mended.returncode == 0, mended.stderr
    assert (copy / ".venv" / "bin" / "python").exists()


def test_a_machine_without_any_python_is_told_so_in_one_sentence(bare: dict[str, str], tmp_path: Path) -> None:
    made = _make(copy_tracked(tmp_path / "copy"), bare, "environment")
    assert made.returncode == 2
    assert made.stderr.startswith("no Python 3 starts here; install Python 3.12")
