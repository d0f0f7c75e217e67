"""The programs that build images: buildah, podman and docker, as far as we need them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOOLS = ("buildah", "podman", "docker")


class NotBuilt(Exception):
    """An image could not be built: which program failed, and what it said."""


@dataclass(frozen=True)
class Builder:
    """One of `TOOLS`.

    Attributes:
        tool: Which.
    """

    tool: str

    @classmethod
    def found(cls) -> Builder:
        """The first of `TOOLS` that is installed.

        Raises:
            NotBuilt: If none is.
        """
        for tool in TOOLS:
            if shutil.which(tool):
                return cls(tool)
        raise NotBuilt(f"an image is built by {', '.join(TOOLS[:-1])} or {TOOLS[-1]}, none is here; install one")

    def pull(self, image: str) -> str:
        """Get an image, if there is a newer one than here, and name its content.

        Raises:
            NotBuilt: If it cannot be had.
        """
        if self.tool == "docker":
            if not self.has(image):
                self.run("pull", "--quiet", image)
            return str(self._inspected(image)["Id"])
        return self.run("pull", "--quiet", "--policy=newer", image).split()[-1]

    def has(self, image: str) -> bool:
        """Whether the image is here."""
        return self._call("inspect", "--type", "image", image).returncode == 0

    def build(self, context: Path, name: str, arguments: Mapping[str, str], secrets: Mapping[str, Path]) -> None:
        """Build the image `name` of the Containerfile in a folder.

        The same inputs give the same bytes where the tool can do that: no time of today is in them.

        Args:
            context: Folder with the Containerfile, and all that it reads.
            name: Name of the image.
            arguments: Values of its `ARG`s.
            secrets: Files that are there while it is built, and are in no layer.

        Raises:
            NotBuilt: If that fails.
        """
        words = ["--timestamp=0", "--layers"] if self.tool != "docker" else []
        words += [f"--build-arg={key}={value}" for key, value in arguments.items()]
        words += [f"--secret=id={key},src={path}" for key, path in secrets.items()]
        self.run("build", *words, "--file", str(context / "Containerfile"), "--tag", name, str(context))

    def save(self, image: str, archive: Path) -> None:
        """Write an image to a file that `ctr images import`, `docker load` and `podman load` take.

        Raises:
            NotBuilt: If that fails.
        """
        archive.unlink(missing_ok=True)
        if self.tool == "docker":
            self.run("save", "--output", str(archive), image)
        else:
            self.run("push", "--quiet", image, f"docker-archive:{archive}:{image}")

    def push(self, image: str) -> None:
        """Bring an image to its registry.

        Raises:
            NotBuilt: If that fails.
        """
        self.run("push", "--quiet", image)

    def digest(self, image: str) -> str:
        """The digest under which a registry has it, or would have it; with docker, only what was pushed has one."""
        told = self._inspected(image)
        if self.tool == "docker":
            pushed = told["RepoDigests"]
            return str(pushed[0]).rpartition("@")[2] if pushed else str(told["Id"])
        return str(told.get("FromImageDigest") or told["Digest"])

    def run(self, *words: str) -> str:
        """What the tool prints.

        Raises:
            NotBuilt: If it fails.
        """
        done = self._call(*words)
        if done.returncode:
            raise NotBuilt(f"`{self.tool} {' '.join(words[:1])}` failed: {(done.stderr or done.stdout)[-3000:]}")
        return done.stdout

    def _inspected(self, image: str) -> Any:
        told = json.loads(self.run("inspect", "--type", "image", image))
        return told[0] if isinstance(told, list) else told

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.tool, *words], capture_output=True, text=True, check=False)
