"""What is printed: one JSON document or plain text on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import typer


@dataclass(frozen=True)
class Answer:
    """What a command found: for scripts, for people, and the exit code."""

    document: dict[str, Any]
    page: str
    code: int = 0


def say(text: str) -> None:
    """Tell a person something that is not the result."""
    typer.echo(text, err=True)


def show(text: str) -> None:
    """Print the result for a person."""
    typer.echo(text)


def show_json(document: Any) -> None:
    """Print the result as the one JSON document."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False) if sys.stdout.isatty() else json.dumps(document))


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lines of an aligned table; the last column is as wide as it likes."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in table
    ]


def fields(pairs: Iterable[tuple[str, str]], indent: str = "  ") -> list[str]:
    """Lines of names and values; further lines of a value stand below its first one."""
    known = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in known), default=0)
    gap = "\n" + indent + " " * (width + 2)
    return [indent + name.ljust(width) + "  " + value.replace("\n", gap) for name, value in known]


def brief(digest: str | None) -> str:
    """A digest as a table shows it."""
    return f"{digest.removeprefix('sha256:')[:7]}…" if digest else "unreadable"


def ago(time: str | None) -> str:
    """How long ago a moment of the log was, as people say it."""
    return span((datetime.now(UTC) - moment(time)).total_seconds()) if time else ""


def until(time: str) -> str:
    """How long it is to a moment of the log."""
    seconds = (moment(time) - datetime.now(UTC)).total_seconds()
    return f"for another {span(seconds)}" if seconds > 0 else "its time is over"


def moment(time: str) -> datetime:
    """A time of the log."""
    return datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def day_and_time(time: str) -> str:
    """A time of the log to the second."""
    return f"{time[:10]} {time[11:19]}Z"


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def percent(count: int) -> str:
    """Whole percents."""
    return f"{count} %"
