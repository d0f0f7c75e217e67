"""The project's own files, as git knows them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("blocks", "tasks", "flows", "deployments")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked(*folders: str) -> set[str]:
    """Paths that git tracks and that are still there, relative to the root, links included."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing says which files belong to it")
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def copy_tracked(target: Path) -> Path:
    """Copy the tracked files, as they are now, into `target`."""
    for name in tracked():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


def load_bootstrap() -> Any:
    """The program that makes `.venv`, as a module."""
    script = ROOT / ".ci" / "bootstrap.py"
    if not script.exists():
        pytest.skip("the bootstrap is not part of an sdist")
    spec = importlib.util.spec_from_file_location("bootstrap", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def uv(*arguments: str) -> None:
    """Run the uv that made `.venv`, with the index, proxy and certificates that pip was told."""
    program = ROOT / ".tools" / "uv" / "bin" / "uv"
    if not program.exists():
        pytest.skip("uv is not in .tools; run this by `make test`")
    subprocess.run([str(program), *arguments], check=True, env=load_bootstrap().environment())
