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

from tests.cluster.cache import TOOLS, digest, kept, run

PAUSE = "localhost/pause:1"
PYTHON = f"localhost/python:{sys.version_info.major}.{sys.version_info.minor}"
ISOLATION = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
"""Tells buildah to need no more than root."""

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "test", "tests", "*.a", "*.pyc", "idlelib", "*tk*", "site-packages")


def images(programs: Path) -> list[Path]:
    """The archives of the images `PAUSE` and `PYTHON`; the latter holds the Python that runs this.

    Raises:
        NotMade: If a Debian package cannot be had or an image cannot be built.
    """
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    key = digest(Path(__file__), programs / "pause", sys.base_prefix, platform.python_version(), release)
    folder = kept("images", key, lambda folder: _make(folder, programs, release))
    return sorted(folder.glob("*.tar"))


def _make(folder: Path, programs: Path, release: str) -> None:
    with _container(folder / "pause.tar", PAUSE, {"--entrypoint": '["/pause"]'}) as root:
        shutil.copy(programs / "pause", root / "pause")
    with _container(folder / "python.tar", PYTHON, {"--env": "PYTHONUNBUFFERED=1"}) as root:
        _debian(root, release)
        _python(root)


@contextmanager
def _container(archive: Path, name: str, settings: Mapping[str, str]) -> Generator[Path]:
    """An empty root folder, which is saved as the image `name` afterwards."""
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="storage-") as storage:
        buildah = ["buildah", "--root", f"{storage}/root", "--runroot", f"{storage}/run"]
        container = run(*buildah, "from", "scratch", env=ISOLATION).strip()
        mounted = Path(run(*buildah, "mount", container, env=ISOLATION).strip())
        yield mounted
        options = [word for option in settings.items() for word in option]
        run(*buildah, "config", *options, container, env=ISOLATION)
        run(*buildah, "commit", "--rm", container, f"docker-archive:{archive}:{name}", env=ISOLATION)


def _debian(root: Path, release: str) -> None:
    """Fill a root folder with what this machine's Python needs of its distribution, and with little else."""
    with tempfile.TemporaryDirectory() as work:
        archive = Path(work) / "root.tar"
        include = ",".join(["ca-certificates", *_packages()])
        run("mmdebstrap", "--variant=minbase", f"--include={include}", release, archive)
        run("tar", "xf", archive, "-C", root, "--exclude=./dev/*", "--exclude=./usr/share/doc/*")


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
        shutil.copytree(sys.base_prefix, root / "usr" / "local", symlinks=True, dirs_exist_ok=True, ignore=_LEFT_OUT)
        run("ldconfig", "-r", root)
        run("chroot", root, "/usr/local/bin/python3", "-m", "ensurepip", "--default-pip")
