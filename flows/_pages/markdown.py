"""Markdown that both of Prefect's UIs show alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LONGEST = 100
"""Characters of a cell with a text of somebody else's; a page is limited, and so is the patience of who reads it."""


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in markdown."""
    names = list(header)
    lines = ["| " + " | ".join(names) + " |", "|" + "|".join(" --- " for _ in names) + "|"]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines)


def section(title: str, text: str) -> list[str]:
    """A part of a page with its headline; nothing where there is no text."""
    return [f"## {title}", text] if text else []


def plain(text: str, longest: int = 2_000) -> str:
    """Somebody's text, on one line, not too long, and without what Markdown would make something else of."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    brief = line if len(line) <= longest else line[: longest - 1] + "…"
    return "".join("\\" + letter if letter in "\\`*_[]<>#~&$" else letter for letter in brief)
