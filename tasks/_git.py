"""What git knows of files: of which commit they are, and how they differ from it. Free of Prefect."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_LISTED = ("--porcelain=v2", "-z", "--untracked-files=all", "--ignored=matching", "--no-renames")
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/", "-U3")
"""A diff that no setting of the user changes."""


class Origin(NamedTuple):
    """Where git has files.

    Attributes:
        commit: The commit that the work tree is at.
        untracked: Files that git was never told of, by their path in the work tree.
        diff: How the others differ from the commit; empty if they do not.
    """

    commit: str
    untracked: list[str]
    diff: str


def origin(files: Iterable[Path]) -> Origin | None:
    """What git knows of `files`; None where it knows nothing, or there is no git.

    Only of `files`: that something else in the work tree was edited does not matter.
    """
    paths = [file.resolve() for file in files]
    try:
        top, commit = _git(paths[0].parent, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        inside = [str(path.relative_to(top)) for path in paths if path.is_relative_to(top)]
        found = _git(Path(top), "status", *_LISTED, "--", *inside).split("\0")
        untracked, ignored = (sorted(one[2:] for one in found if one.startswith(mark)) for mark in ("? ", "! "))
        folders = tuple(one for one in ignored if one.endswith("/"))  # all that is in them is ignored, too
        tracked = sorted(one for one in {*inside} - {*untracked, *ignored} if not one.startswith(folders))
        if not tracked and not untracked:
            return None
        is_changed = any(one.startswith(("1 ", "2 ", "u ")) for one in found)
        diff = _git(Path(top), "diff", *_PLAIN, "HEAD", "--", *tracked) if is_changed else ""
        return Origin(commit, untracked, diff)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "--literal-pathspecs", "-c", "core.quotePath=false", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=10, check=True)
    return done.stdout.decode(errors="replace")
