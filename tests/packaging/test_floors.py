"""Who may import whom, and that the checks really look."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import grimp
import pytest

from tests.packaging.project import ROOMS, ROOT, copy_tracked, tracked


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("prefect_mlops", include_external_packages=True, cache_dir=None)


def test_the_graph_holds_every_module(graph: grimp.ImportGraph) -> None:
    sources = {Path(name).with_suffix("") for name in tracked(*ROOMS) if name.endswith(".py")}
    modules = {".".join(path.parent.parts if path.name == "__init__" else path.parts) for path in sources}
    assert graph.modules >= {f"prefect_mlops.{name}" for name in modules}


def test_private_arithmetic_never_imports_prefect(graph: grimp.ImportGraph) -> None:
    private = {name for name in graph.modules if name.startswith("prefect_mlops.tasks._")}
    imported = {name: graph.find_modules_directly_imported_by(name) for name in private}
    assert not {name for name, others in imported.items() if "prefect" in others}


def _imports(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it the import stands."""
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names}


def test_seldon_core_is_imported_by_nobody() -> None:
    files = {name: _imports(ROOT / name) for name in tracked() if name.endswith(".py")}
    assert not {name for name, imports in files.items() if "seldon_core" in imports}


@pytest.mark.parametrize(
    ("planted", "line", "broken"),
    [
        ("blocks/_planted.py", "import prefect_mlops.tasks", "Arrows point downwards BROKEN"),
        ("deployments/server/_planted.py", "import prefect", "The model server is lean"),
        ("tasks/_planted.py", "import seldon_core", "Nobody imports the seldon wrapper"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, planted: str, line: str, broken: str) -> None:
    copy = copy_tracked(tmp_path)
    (copy / planted).write_text(f"{line}\n")
    command = [sys.executable, "-S", "-c", "from importlinter.cli import lint_imports_command as go; go()"]
    path = os.pathsep.join([str(copy / ".editable"), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [*command, "--no-cache"], check=False, cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert broken in done.stdout


def test_a_planted_type_error_is_found_in_every_room(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "planted.py").write_text('"""Wrong on purpose."""\n\nseconds: int = "two"\n')
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert [room for room in ROOMS if f"{room}/planted.py:3:" in done.stdout] == list(ROOMS), done.stdout + done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imported_by_its_bare_name_is_found(room: str) -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--output-format",
        "concise",
        "--stdin-filename",
        "flows/x.py",
        "-",
    ]
    done = subprocess.run(command, check=False, cwd=ROOT, input=f"import {room}\n", capture_output=True, text=True)
    assert f"import prefect_mlops.{room}" in done.stdout
