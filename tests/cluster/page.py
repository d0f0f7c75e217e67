"""docs/kubernetes.md as a team follows it: its commands are typed and its Python is run, with the team's own names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.cluster.node import Node
from tests.forks import ROOT

PAGE = ROOT / "docs" / "kubernetes.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r".*(?:…|\.example\b|\buser:password\b|\b[A-Z]{5,}\b(?!=)).*")
"""A line in which something is left to fill in."""


class NotFilledIn(Exception):
    """Words of the page for which the test has none of its own."""


@dataclass
class Page:
    """The page, and where it is followed.

    Attributes:
        node: The node; its folder of programs has `kubectl`.
        folder: Where commands are typed.
        words: What stands for the page's own words, such as names of images.
    """

    node: Node
    folder: Path
    words: dict[str, str]
    _exported: list[str] = field(default_factory=list)

    def type(self, section: str, **words: str) -> str:
        """Type the commands of a section, one after another, up to the first that fails; gives what they print.

        What a section exports stays so in those that are typed later.
        """
        typed = [self._filled(command, words) for command in commands(section)]
        self._exported += [one for one in typed if one.startswith("export ")]
        return self._run("bash", "-euo", "pipefail", "-c", "\n".join([*self._exported, *typed]))

    def python(self, section: str, **words: str) -> str:
        """Run the Python of a section, with what was exported; gives what it prints."""
        program = self._filled("\n".join(blocks(section, "python")), words)
        return self._run("bash", "-euc", "\n".join([*self._exported, f'exec {sys.executable} -P -c "$0"']), program)

    def _filled(self, text: str, more: Mapping[str, str]) -> str:
        for theirs, ours in {**self.words, **more}.items():
            text = text.replace(theirs, ours)
        left = _PLACEHOLDER.search(text)
        if left:
            raise NotFilledIn(f"{PAGE.name} says {left[0]!r}, and the test does not know what to put there")
        return text

    def _run(self, *command: str) -> str:
        path = f"{Path(sys.executable).parent}:{self.node.home / 'programs'}:{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout


def commands(section: str) -> list[str]:
    """The commands of a section, with their continuation lines."""
    return [found[1] for block in blocks(section, "console") for found in _COMMAND.finditer(block)]


def blocks(section: str, language: str) -> list[str]:
    """The blocks of a section in a language."""
    return [text for kind, text in _BLOCK.findall(sections()[section]) if kind == language]


@cache
def sections() -> dict[str, str]:
    """The text below each heading."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
