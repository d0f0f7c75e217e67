"""What the training ran with: its code, its packages, its Python. Free of Prefect."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

from prefect_mlops.blocks._functions import function_named
from prefect_mlops.blocks.recipe import Recipe
from prefect_mlops.blocks.release import Snapshot
from prefect_mlops.blocks.store import Store

_BASE = ("scikit-learn", "pandas", "numpy", "cloudpickle")


def keep_code(store: Store, recipe: Recipe, folder: Path) -> Snapshot:
    """Keep the source of the training function's module, and which commit it was of, where git knows."""
    return _keep_module(store, recipe.train, {"train": recipe.train, "recipe": recipe.model_dump(mode="json")}, folder)


def keep_extractor(store: Store, function: str, folder: Path) -> Snapshot:
    """Keep the source of the module of the extractor `function`, in the same way.

    Raises:
        Invalid: If there is no such function.
    """
    function_named(function, "extractor")
    return _keep_module(store, function, {"extractor": function}, folder)


def _keep_module(store: Store, function: str, facts: dict[str, object], folder: Path) -> Snapshot:
    module = sys.modules[function.partition(":")[0]]
    folder.mkdir(parents=True)
    source = Path(module.__file__) if module.__file__ else None
    if source is not None:
        (folder / source.name).write_bytes(source.read_bytes())
    facts = {"format": 1, **facts, **_commit(source)}
    (folder / "code.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    return store.add(folder)


def _commit(source: Path | None) -> dict[str, object]:
    if source is None:
        return {"commit": None, "changed": None}
    try:
        commit, changes = (
            subprocess.run(
                ["git", *words], cwd=source.parent, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", source.name))
        )
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}
    return {"commit": commit, "changed": bool(changes)}


def keep_runtime(store: Store, recipe: Recipe, folder: Path) -> Snapshot:
    """Keep the versions of everything that is installed, and of Python."""
    folder.mkdir(parents=True)
    found = {f"{item.name}=={item.version}" for item in importlib.metadata.distributions() if item.name}
    (folder / "installed.txt").write_text("\n".join(sorted(found, key=str.lower)) + "\n")
    (folder / "requirements.txt").write_text("\n".join(requirements(recipe)) + "\n")
    facts = {
        "format": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
    }
    (folder / "python.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    return store.add(folder)


def requirements(recipe: Recipe) -> list[str]:
    """What the model needs, pinned: the recipe's own list, or the installed versions of the usual packages."""
    return recipe.requirements or [f"{name}=={importlib.metadata.version(name)}" for name in _BASE]
