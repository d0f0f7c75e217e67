"""Builds the container images that tests start from, where no registry can be reached: pause, and a Python."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.cache import digest, kept
from tests.cluster.commands import run

PAUSE = "localhost/pause:1"
PYTHON = f"localhost/python:{sys.version_info.major}.{sys.version_info.minor}"
ISOLATION = {"BUILDAH_ISOLATION": "chroot"}
"""Tells buildah to need no more than root."""

_PYTHON_WITHOUT = shutil.ignore_patterns(
    "__pycache__", "include", "test", "tests", "*.a", "idlelib", "*tk*", "site-packages"
)
_DEBIAN_WITHOUT = (
    "./dev/*",
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/locale",
    "./usr/share/perl",
    "./usr/lib/*/perl",
)


def images(programs: Path) -> list[Path]:
    """The archives of the images `PAUSE` and `PYTHON`; the latter holds the Python that runs this.

    Raises:
        Failed: If a Debian package cannot be had or an image cannot be built.
    """
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    key = digest(Path(__file__), programs / "pause", sys.base_prefix, platform.python_version(), release)
    folder = kept("images", key, lambda folder: _make(folder, programs, release))
    return sorted(folder.glob("*.tar"))


def _make(folder: Path, programs: Path, release: str) -> None:
    with _image(folder, "pause", PAUSE, {"--entrypoint": '["/pause"]'}) as root:
        shutil.copy(programs / "pause", root / "pause")
    with _image(folder, "python", PYTHON, {"--env": "PYTHONUNBUFFERED=1"}) as root:
        _debian(root, release)
        _python(root)


@contextmanager
def _image(folder: Path, stem: str, name: str, settings: Mapping[str, str]) -> Generator[Path]:
    """An empty root folder, which becomes the image `name` in the archive `STEM.tar`."""
    root, layer, store = folder / "root", folder / "layer.tar", folder / "store"
    root.mkdir(mode=0o755)
    yield root
    run("tar", "cf", layer, "-C", root, ".")
    buildah = ("buildah", "--root", store, "--runroot", folder / "run", "--storage-driver", "vfs")
    container = run(*buildah, "from", "scratch", env=ISOLATION).strip()
    run(*buildah, "add", container, layer, "/", env=ISOLATION)
    run(*buildah, "config", *(word for option in settings.items() for word in option), container)
    run(*buildah, "commit", "--rm", container, f"docker-archive:{folder / stem}.tar:{name}", env=ISOLATION)
    layer.unlink()
    for made in (root, store, folder / "run"):
        shutil.rmtree(made)


def _debian(root: Path, release: str) -> None:
    """Fill a root folder with what this machine's Python needs of its distribution, and with little else."""
    include = ",".join(["ca-certificates", *_packages()])
    with tempfile.TemporaryDirectory() as work:
        archive = Path(work) / "debian.tar"
        run("mmdebstrap", "--variant=minbase", f"--include={include}", release, archive)
        run("tar", "xf", archive, "-C", root, *(f"--exclude={path}" for path in _DEBIAN_WITHOUT))


def _distributed() -> bool:
    """Whether the Python that runs this is the distribution's own."""
    return sys.base_prefix == "/usr"


def _packages() -> list[str]:
    """The packages that hold what this Python's programs and modules are linked with."""
    if _distributed():
        return ["python3", "python3-pip", "python-is-python3"]
    modules = sorted(Path(sys.base_prefix).rglob("lib-dynload/*.so"))
    needed = [module for module in modules if not module.name.startswith("_tkinter")]
    linked = run("ldd", Path(sys.base_prefix) / "bin" / "python3", *needed)
    files = {Path(found) for found in re.findall(r"=> (/\S+)", linked)}
    outside = sorted(path for path in files if not path.is_relative_to(sys.base_prefix))
    # A package says /usr/lib where this machine's links may lead through /lib.
    patterns = [f"*/{path.parent.name}/{path.name}" for path in outside]
    owners = run("dpkg-query", "--search", *patterns)
    return sorted({line.partition(":")[0] for line in owners.splitlines()})


def _python(root: Path) -> None:
    if not _distributed():
        shutil.copytree(
            sys.base_prefix, root / "usr" / "local", symlinks=True, dirs_exist_ok=True, ignore=_PYTHON_WITHOUT
        )
        run("ldconfig", "-r", root)
        python = ("chroot", root, "/usr/local/bin/python3", "-m")
        run(*python, "ensurepip", "--default-pip")
        run(*python, "compileall", "-q", "/usr/local/lib")  # a pod could not keep what it compiles
