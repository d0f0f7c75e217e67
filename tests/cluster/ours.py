"""Our own images, built of this very source on the image `PYTHON`.

They are built before a node starts, since inside it no package can be had. Layers that did not change are kept,
so that other source costs seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from tests.cluster.cache import TOOLS
from tests.cluster.commands import APART, run
from tests.cluster.images import ISOLATION
from tests.cluster.node import Node

KINDS = ("serving", "flows")
_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tuple(_ROOT / "deployments" / "images" / name for name in ("Containerfile", "serving.lock", "flows.lock"))
"""What their large layers are made of."""

_STORAGE = TOOLS / "storage"


def ours(python: Path) -> dict[str, str]:
    """The name of each of our images, by kind.

    Args:
        python: The archive of the image that they are built on.

    Raises:
        Failed: If a package cannot be had or an image cannot be built.
    """
    program = (sys.executable, "-m", "prefect_mlops.deployments.images", _wheel(), "--base", f"docker-archive:{python}")
    said = run(*APART, *program, env=_told(), aloud=True)
    return dict(zip(KINDS, (line.partition("@")[0] for line in said.splitlines()), strict=True))


def loaded(kind: str) -> str:
    """The name of one of our images, which the node beside which this runs knows from now on."""
    node = Node(Path(os.environ["CLUSTER_NODE"]))
    name, archive = json.loads((node.home / "ours.json").read_text())[kind], node.home / f"{kind}.tar"
    with FileLock(node.home / f"{kind}.lock"):
        if not node.knows(name):
            save(name, archive)
            node.load(archive)
            archive.unlink()
    return name


def save(name: str, archive: Path) -> None:
    """Write one of them to a file that a node can load.

    Raises:
        Failed: If there is no room for it.
    """
    run(*APART, "buildah", "push", "--quiet", name, f"docker-archive:{archive}:{name}", env=_told())


def _wheel() -> Path:
    """The wheel of this source; the same source gives the same bytes."""
    folder = TOOLS / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, _ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _told() -> dict[str, str]:
    """Where buildah keeps layers."""
    told = {"driver": "overlay", "graphroot": str(_STORAGE / "root"), "runroot": str(_STORAGE / "run")}
    _STORAGE.mkdir(parents=True, exist_ok=True)
    file = _STORAGE / "storage.conf"
    file.write_text("\n".join(["[storage]", *(f"{name} = {json.dumps(value)}" for name, value in told.items())]))
    return {**os.environ, **ISOLATION, "CONTAINERS_STORAGE_CONF": str(file), "STORAGE_DRIVER": "overlay"}
