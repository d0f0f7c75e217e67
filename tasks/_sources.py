"""Where the source of functions is that are named, and of what they import from the same project. Free of Prefect.

What is imported is read from the source, not from what happens to be loaded, so that the same code gives the same
files in every process. A module that is imported under a name made at run time is not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType


def source_files(modules: Iterable[ModuleType]) -> dict[str, Path]:
    """The files of `modules` and of what they import, by their path in the project, sorted.

    The project is the folder that a module's name starts from: of `my_team.credit`, the one that `my_team` is in.
    Of an installed package the module alone is taken: the list of what is installed names the rest.
    """
    found = {path: file for module in modules for path, file in _project(module).items()}
    return dict(sorted(found.items()))


def _project(module: ModuleType) -> dict[str, Path]:
    file = Path(module.__file__) if module.__file__ else None
    if file is None or file.suffix != ".py":
        return {}
    inside = module.__name__.count(".") + (2 if file.name == "__init__.py" else 1)
    root = Path(*file.parts[:-inside])
    if _is_installed(module.__name__, file) or _file_of(module.__name__, root) != file:
        return {file.name: file}
    return {path.relative_to(root).as_posix(): path for path in _imported(module.__name__, root)}


def _is_installed(name: str, file: Path) -> bool:
    return name.startswith("prefect_mlops.") or not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def _file_of(name: str, root: Path) -> Path | None:
    """The file in `root` that is imported as `name`."""
    place = root.joinpath(*name.split("."))
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _imported(name: str, root: Path) -> set[Path]:
    """The files in `root` that importing `name` reads."""
    files: dict[str, Path | None] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if not one or one in files:
            continue
        files[one] = file = _file_of(one, root)
        waiting.append(one.rpartition(".")[0])
        if file is not None:
            waiting += _imports(file, one)
    return {file for file in files.values() if file is not None}


def _imports(file: Path, name: str) -> Iterator[str]:
    """Every name that a file imports, whether it is a module or something in one."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except SyntaxError:  # of another Python; whoever imports it expects that to fail
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (not node.level or package):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
