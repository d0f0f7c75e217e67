"""The sdist and the wheel built from it hold what git tracks, under one name, import, and serve a flow of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pandas as pd
import pytest

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.flows.creditco import census
from prefect_mlops.tasks.validation import Evidence, Validated
from tests.packaging.project import ROOMS, ROOT, copy_tracked, tracked, uv


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of the tracked files and the wheel that was built from that sdist."""
    source = copy_tracked(tmp_path_factory.mktemp("source"))
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_wheel_holds_the_tracked_files_of_our_rooms_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == {f"prefect_mlops/{name}" for name in tracked(*ROOMS)}
    assert shipped


def test_sdist_holds_the_tracked_files(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    beside = {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "prefect.yaml"}
    assert names - {"PKG-INFO", ".gitignore"} == tracked(*ROOMS, "tests") | beside


def test_wheel_carries_its_licences(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("License-File", [])) == {"LICENSE", "NOTICE"}
    held = {Path(name).name: wheel.getinfo(name).file_size for name in wheel.namelist() if "/licenses/" in name}
    assert held["LICENSE"] > 10_000
    assert held["NOTICE"] > 100


def test_bounds_that_keep_prefect_working_reach_pip_users(metadata: Message) -> None:
    requires = metadata.get_all("Requires-Dist", [])
    assert any(line.startswith("fastapi") and "<0.151" in line for line in requires)
    assert any(line.startswith("sqlalchemy[asyncio]") and "<2.1" in line for line in requires)
    seldon = [line for line in requires if line.startswith("seldon-core")]
    assert len(seldon) == 1
    assert "extra == 'seldon'" in seldon[0]
    assert ">=1.19" in seldon[0], "without a floor a resolver falls back to 0.5"


IMPORT_ALL = """
import importlib, pkgutil, sys
from pathlib import Path
import prefect_mlops
home = Path(sys.argv[1]).resolve()
def walk(path, prefix):
    for found in pkgutil.iter_modules(path, prefix):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        assert home in Path(module.__file__).resolve().parents, module.__file__
        print(found.name)
        if found.ispkg:
            walk(module.__path__, found.name + ".")
walk(prefect_mlops.__path__, "prefect_mlops.")
"""


def test_every_module_imports_from_the_wheel(built: Path, wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    # -S and a path of our own: a .pth file would lead back to the checkout.
    path = os.pathsep.join([str(tmp_path / "site"), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path, "PREFECT_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-S", "-c", IMPORT_ALL, str(tmp_path / "site")]
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sources = {Path(name).with_suffix("") for name in tracked(*ROOMS) if name.endswith(".py")}
    modules = {".".join(path.parent.parts if path.name == "__init__" else path.parts) for path in sources}
    skipped = {name for name in modules if name.endswith("__main__")}
    assert set(done.stdout.split()) == {f"prefect_mlops.{name}" for name in modules - skipped}


OWN_FLOW = """
import sys
import prefect_mlops.blocks
from prefect import flow
from prefect_mlops.blocks import Store
from prefect_mlops.tasks import snapshot_data, validate_data

@flow
def nightly(data, suite):
    store = Store(url=sys.argv[1])
    commit = snapshot_data(store, data, actor="ana")
    return validate_data(store, commit.id, suite)

if __name__ == "__main__":
    assert sys.prefix in prefect_mlops.blocks.__file__
    for suite in sys.argv[3:]:
        print(nightly(sys.argv[2], suite).model_dump_json())
"""
OLDEST = 70
OWN_SUITE = """
{"name": "own", "expectations": [
    {"type": "expect_column_to_exist", "kwargs": {"column": "income"}, "severity": "critical"},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "max_value": 70}, "severity": "warning"}
]}
"""


@pytest.fixture
def installed(built: Path, tmp_path: Path) -> Path:
    """The Python of an environment of its own, with the wheel and what is locked."""
    python = tmp_path / "venv" / "bin" / "python"
    uv("venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    locked = ["--constraint", str(ROOT / "requirements.lock")]
    uv("pip", "install", "--quiet", "--python", str(python), *locked, str(next(built.glob("*.whl"))))
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flow_of_ones_own_keeps_and_validates_data(installed: Path, tmp_path: Path) -> None:
    frame = census(600, seed=1)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "suite.json").write_text(OWN_SUITE)
    (tmp_path / "nightly.py").write_text(OWN_FLOW)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
    environment |= {"PREFECT_HOME": str(tmp_path / "prefect"), "HOME": str(tmp_path)}
    suites = ["suite.json", "prefect_mlops.flows:creditco.suite.json"]
    command = [str(installed), "nightly.py", str(tmp_path / "store"), "rows.csv", *suites]
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parted, whole = (Validated.model_validate_json(line) for line in done.stdout.splitlines()[-2:])

    store = Store(url=str(tmp_path / "store"))
    [(commit, raw)] = Branch(store, "main").log()
    assert raw.run is not None
    assert (raw.source, raw.rows, raw.actor.name, raw.run.flow) == ("rows.csv", 600, "ana", "nightly")
    store.checkout(raw.snapshot, tmp_path / "raw")
    assert (tmp_path / "raw" / "rows.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()

    old = int((frame["age"] > OLDEST).sum())
    assert (parted.rows, parted.bad_rows) == (600 - old, old)
    assert store.commit_at(parted.commit).parents == (commit,)
    store.checkout(str(parted.quarantine), tmp_path / "aside")
    [aside] = (tmp_path / "aside").iterdir()
    assert (pd.read_parquet(aside)["age"] > OLDEST).all()
    assert (whole.commit, whole.bad_rows) == (commit, 0)
    names = [Evidence.model_validate_json(store.get(one.evidence)).suite_name for one in (parted, whole)]
    assert names == ["own", "creditco"]
