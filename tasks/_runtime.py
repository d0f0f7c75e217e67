"""What the training ran with: its code, its packages, its Python. Free of Prefect."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from prefect_mlops.blocks._functions import function_named
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.model_tests import Custom
from prefect_mlops.blocks.recipe import Recipe
from prefect_mlops.blocks.store import Store
from prefect_mlops.tasks._git import origin
from prefect_mlops.tasks._secrets import blanked, is_named_like_a_secret
from prefect_mlops.tasks._sources import source_files

_BASE = ("scikit-learn", "pandas", "numpy", "cloudpickle")
CODE, ORIGIN, CHANGES, PYTHON, NEEDED = "code.json", "git.json", "changes.diff", "python.json", "requirements.txt"

IMAGE = "PREFECT_MLOPS_IMAGE"
"""The variable in which a work pool names the image that a flow run was started from."""


def write_code(recipe: Recipe, folder: Path) -> None:
    """Write down the recipe, the source of its functions and of what they import from their project, and its commit."""
    functions = [recipe.train, *(test.function for test in recipe.model_tests() if isinstance(test, Custom))]
    _write(functions, {"train": recipe.train, "recipe": recipe.model_dump(mode="json")}, folder)


def write_extractor(function: str, folder: Path) -> None:
    """Write down the source of the extractor `function` in the same way.

    Raises:
        Invalid: If there is no such function.
    """
    function_named(function, "extractor")
    _write([function], {"extractor": function}, folder)


def recipe_of(store: Store, code: str) -> Recipe:
    """The recipe that a snapshot of code was kept for.

    Raises:
        ObjectMissing, ObjectDamaged: If it is not whole.
    """
    return Recipe.model_validate(facts_of(store, code, CODE)["recipe"])


def facts_of(store: Store, snapshot: str, *paths: str) -> dict[str, Any]:
    """What JSON files of a snapshot say, put together; nothing of those that are not there.

    Raises:
        ObjectMissing, ObjectDamaged: If it is not whole.
    """
    digests = {file.path: file.digest for file in store.snapshot(snapshot).files}
    told = (json.loads(store.get(digests[path])) for path in paths if path in digests)
    return {name: value for facts in told for name, value in facts.items() if name != "format"}


def is_same_code(store: Store, one: str, other: str) -> bool:
    """Whether two snapshots hold the same code, whatever commit it is of."""
    differing = store.diff(one, other)
    return {*differing.added, *differing.removed, *differing.changed} <= {ORIGIN, CHANGES}


def _write(functions: Iterable[str], facts: dict[str, object], folder: Path) -> None:
    files = source_files(_modules(functions))
    left_out = [path for path in files if is_named_like_a_secret(path)]
    kept = {path: file for path, file in files.items() if path not in left_out}
    folder.mkdir(parents=True)
    places = {path: _write_clean(folder / path, file.read_bytes()) for path, file in kept.items()}
    secrets = {"left_out": left_out, "blanked": {path: lines for path, lines in places.items() if lines}}
    _write_json(folder / CODE, {"format": 2, **facts, **secrets})
    _write_origin(kept.values(), folder)


def _modules(functions: Iterable[str]) -> Iterable[ModuleType]:
    """The modules of the functions that can be imported; of the others, whoever calls them says why."""
    for function in functions:
        try:
            function_named(function, "function")
        except Invalid:
            continue
        yield sys.modules[function.partition(":")[0]]


def _write_clean(path: Path, source: bytes) -> list[int]:
    """Write source without what looks like a secret, else to the byte; returns the numbers of lines left out."""
    text, lines = blanked(source.decode("utf-8", "surrogateescape"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return lines


def _write_origin(files: Iterable[Path], folder: Path) -> None:
    known = origin(files)
    if known is None:
        return
    diff, lines = blanked(known.diff, keep=1)
    changed = bool(known.diff or known.untracked)
    facts = {"commit": known.commit, "changed": changed, "untracked": known.untracked, "blanked_in_diff": lines}
    _write_json(folder / ORIGIN, {"format": 1, **facts})
    if diff:
        (folder / CHANGES).write_bytes(diff.encode())


def _write_json(path: Path, facts: dict[str, object]) -> None:
    path.write_text(json.dumps(facts, indent=1, sort_keys=True))


def write_runtime(recipe: Recipe, folder: Path) -> None:
    """Write down the versions of everything that is installed, of Python, and the image where it runs in one."""
    folder.mkdir(parents=True)
    (folder / "installed.txt").write_text("\n".join(sorted(_installed().values())) + "\n")
    (folder / NEEDED).write_text("\n".join(requirements(recipe)) + "\n")
    facts: dict[str, object] = {
        "format": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
    }
    if image := os.environ.get(IMAGE):
        facts["image"] = image
    _write_json(folder / PYTHON, facts)


def _installed() -> dict[str, str]:
    """Every package that can be imported, by its name; looked up again where something was installed meanwhile."""
    places = [place for place in map(Path, sys.path) if place.is_dir()]
    return _installed_in(tuple((place, place.stat().st_mtime_ns) for place in places))


@lru_cache(maxsize=1)
def _installed_in(places: tuple[tuple[Path, int], ...]) -> dict[str, str]:
    """Every package in folders, which are as they were at a time.

    Installers name the folder of a package's metadata after it and its version (PyPA, "Recording installed
    projects"); to read the metadata itself takes a hundred times as long.
    """
    found: dict[str, str] = {}
    for folder in (folder for place, _ in places for folder in place.glob("*.dist-info")):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        plain = re.sub("[-_.]+", "-", name).lower()
        if (folder / "METADATA").is_file():  # else it is left of a package that is not there any more
            found.setdefault(plain, _locked(plain, version, folder))
    return found


def _locked(name: str, version: str, folder: Path) -> str:
    """A package as an installer finds it again: by version, or by the commit where it came from a repository."""
    with suppress(OSError):
        source = json.loads((folder / "direct_url.json").read_bytes())
        if commit := source.get("vcs_info", {}).get("commit_id"):
            url, _ = blanked(source["url"])
            return f"{name} @ {source['vcs_info']['vcs']}+{url}@{commit}"
    return f"{name}=={version}"


def requirements(recipe: Recipe) -> list[str]:
    """What the model needs, pinned: the recipe's own list, or the installed versions of the usual packages."""
    if recipe.requirements:
        return recipe.requirements
    installed = _installed()
    return [installed[name] for name in _BASE]
