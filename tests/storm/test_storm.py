"""Every promise holds after every kill; `python -m tests.storm --kills 300` is the whole of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.storm.storm import Round, Storm, line, rage

IN_FLIGHT_MS = 500.0
"""A gateway that is killed takes with it what it was asked before the kernel hung up for it."""


def held(report: dict[str, Any], rounds: list[Round]) -> None:
    """Fail with the rounds in which a promise was broken."""
    broken = [line(one) for one in rounds if one.wrong or _lost(one)]
    assert not broken, "\n".join(broken)
    assert not report["left"]
    assert not report["unrecorded"]


def _lost(one: Round) -> list[str]:
    """The failed requests that were not in flight in a killed gateway."""
    if one.victim != "gateway":
        return one.failed
    asked = (re.match(r"0 \w+ asked ([-+.0-9]+) ms", failure) for failure in one.failed)
    return [failure for failure, found in zip(one.failed, asked, strict=True) if not _in_flight(found)]


def _in_flight(found: re.Match[str] | None) -> bool:
    return found is not None and float(found[1]) < IN_FLIGHT_MS


def test_three_kills_without_prefect(tmp_path: Path) -> None:
    storm = Storm(tmp_path / "home", tmp_path / "storm", seed=1, rate=50, prefect=False)
    report = rage(storm, 3, ("flow", "model server", "gateway"))
    held(report, storm.rounds)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thirty_kills_of_everything(tmp_path: Path) -> None:
    storm = Storm(tmp_path / "home", tmp_path / "storm", seed=7, rate=50, prefect=True)
    report = rage(storm, 30)
    held(report, storm.rounds)
