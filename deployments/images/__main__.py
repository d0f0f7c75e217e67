"""`python -m prefect_mlops.deployments.images WHEEL`: build the two images, and print their names and digests.

`make images` makes the wheel and starts this. An image whose inputs did not change is not built again: its tag
is a digest of them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from prefect_mlops.deployments.images import _pip
from prefect_mlops.deployments.images._builders import Builder, NotBuilt

HERE = Path(__file__).parent
IMAGES = ("serving", "flows")
BASE = "python:3.12-slim-bookworm"
_ARCHIVES = ("docker-archive:", "oci-archive:")


def main(words: list[str]) -> int:
    """Do what the command line says; returns the exit code."""
    told = _parser().parse_args(words)
    try:
        builder = Builder.found()
        for image in told.only or IMAGES:
            name = built(builder, image, told.wheel, told.base, told.repository)
            if told.push:
                builder.push(name)
            if told.archives:
                told.archives.mkdir(parents=True, exist_ok=True)
                builder.save(name, told.archives / f"{image}.tar")
            print(f"{name}@{builder.digest(name)}", flush=True)
    except NotBuilt as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def built(builder: Builder, image: str, wheel: Path, base: str, repository: str) -> str:
    """The name of an image that is built of these, now or before.

    Args:
        builder: What builds it.
        image: One of `IMAGES`.
        wheel: Our wheel.
        base: Image with a Python and pip, or an archive of one.
        repository: What its name begins with.

    Raises:
        NotBuilt: If it cannot be built.
    """
    inputs = (HERE / "Containerfile", HERE / f"{image}.lock", wheel)
    name = f"{repository}/prefect-mlops-{image}:{_version(wheel)}-{_key(_identity(builder, base), *inputs)}"
    if builder.has(name):
        return name
    print(f"building {name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        context, pip = Path(folder, "context"), Path(folder, "pip.conf")
        context.mkdir()
        for path in inputs:
            shutil.copy(path, context)
        settings = _pip.settings(os.environ)
        certificates = _pip.certificates(settings, os.environ)
        pip.write_text(_pip.configuration(settings, certificates))
        secrets = {"pip": pip, **({"certificates": certificates} if certificates else {})}
        builder.build(context, name, {"BASE": base, "LOCK": f"{image}.lock"}, secrets)
    return name


def _identity(builder: Builder, base: str) -> str:
    for kind in _ARCHIVES:
        if base.startswith(kind):
            with Path(base.removeprefix(kind)).open("rb") as archive:
                return hashlib.file_digest(archive, "sha256").hexdigest()
    return builder.pull(base)


def _key(base: str, *inputs: Path) -> str:
    digests = [base.encode(), *(hashlib.sha256(path.read_bytes()).digest() for path in inputs)]
    return hashlib.sha256(b"\0".join(digests)).hexdigest()[:12]


def _version(wheel: Path) -> str:
    return wheel.name.split("-")[1].replace("+", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m prefect_mlops.deployments.images", description=__doc__)
    parser.add_argument("wheel", type=Path, help="our wheel")
    parser.add_argument("--base", default=BASE, help="image with Python 3.11 to 3.13 and pip, best by its digest")
    parser.add_argument("--repository", default="localhost", help="what the names begin with, such as a registry")
    parser.add_argument("--only", action="append", choices=IMAGES, help="build this one only")
    parser.add_argument("--archives", type=Path, metavar="FOLDER", help="write serving.tar and flows.tar there too")
    parser.add_argument("--push", action="store_true", help="bring them to their registry")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
