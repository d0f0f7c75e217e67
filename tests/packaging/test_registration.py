"""Prefect finds our blocks by entry point alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BY_ENTRY_POINT = """
import sys
assert not [name for name in sys.modules if name.startswith("prefect_mlops")]
from prefect.plugins import load_prefect_collections
found = load_prefect_collections()
assert not isinstance(found["prefect_mlops"], Exception), found["prefect_mlops"]
"""
BY_IMPORT = """
import importlib, pkgutil
import prefect_mlops.blocks
for module in pkgutil.iter_modules(prefect_mlops.blocks.__path__, "prefect_mlops.blocks."):
    importlib.import_module(module.name)
"""
REPORT = """
import json
from prefect.blocks.core import Block
from prefect.utilities.dispatch import get_registry_for_type
known = get_registry_for_type(Block) or {}
ours = {slug: cls.__module__ for slug, cls in known.items() if cls.__module__.startswith("prefect_mlops.")}
print(json.dumps(ours))
"""


def _ours(program: str, home: Path) -> dict[str, str]:
    """Our blocks, slug to module, that Prefect knows in a fresh process that ran `program`."""
    environment = {**os.environ, "PREFECT_HOME": str(home)}
    command = [sys.executable, "-c", program + REPORT]
    done = subprocess.run(command, check=False, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_that_imported_nothing_of_ours_knows_every_block(tmp_path: Path) -> None:
    by_entry_point = _ours(BY_ENTRY_POINT, tmp_path)
    assert by_entry_point
    assert by_entry_point == _ours(BY_IMPORT, tmp_path), "prefect_mlops.blocks must import each module with a block"
