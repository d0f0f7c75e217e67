"""Clients of the service: those that ask all the time, and one that wants to know something."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from prefect_mlops.deployments.traffic import PREDICTIONS, Answer

if TYPE_CHECKING:
    import pandas as pd

RATE = 120
CONNECTIONS = 8
ASKED_ABOUT = 200


class Clients:
    """A program that asks a service about one applicant after the other until it is stopped.

    Args:
        url: Where the service is.
        applicants: Whom to ask about, without the label.
        folder: Gets a line for every answer.
    """

    def __init__(self, url: str, applicants: pd.DataFrame, folder: Path) -> None:
        self.url, self.out = url, folder / "answers"
        asked = folder / "questions"
        asked.write_text("".join(json.dumps(_question(applicants[n : n + 1])) + "\n" for n in range(len(applicants))))
        self.out.touch()
        self._read, self._answers = 0, list[Answer]()
        program = [sys.executable, "-m", "prefect_mlops.deployments.traffic"]
        words = [url, str(asked), str(self.out), str(RATE), str(CONNECTIONS)]
        self.process = subprocess.Popen([*program, *words], stdin=subprocess.PIPE)

    def answers(self, since_ns: int = 0) -> list[Answer]:
        """What was answered to questions asked since a moment of the monotonic clock, oldest answer first."""
        with self.out.open() as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._read += len(whole.encode())
        self._answers += map(Answer.read, whole.splitlines(keepends=True))
        return sorted((one for one in self._answers if one.asked_ns >= since_ns), key=lambda one: one.answered_ns)

    def await_answers(self, count: int, since_ns: int | None = None, seconds: float = 60) -> list[Answer]:
        """Wait until `count` questions asked since then, or since now, were answered.

        Raises:
            TimeoutError: If that takes longer than `seconds`.
        """
        since_ns, end = time.monotonic_ns() if since_ns is None else since_ns, time.monotonic() + seconds
        while len(found := self.answers(since_ns)) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(found)} of {count} answers after {seconds:.0f} s")
            time.sleep(0.05)
        return found

    def ask(self, applicants: pd.DataFrame) -> tuple[list[bool], str]:
        """Ask about some applicants at once: the decisions, and the request's id."""
        response = httpx.post(self.url + PREDICTIONS, json=_question(applicants), timeout=60).raise_for_status()
        decisions = [yes > no for no, yes in response.json()["data"]["ndarray"]]
        return decisions, response.headers["x-request-id"]

    def stop(self) -> None:
        """Let every question that is out be answered, and ask no more."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(timeout=60)


@contextmanager
def asking(url: str, applicants: pd.DataFrame, folder: Path) -> Generator[Clients]:
    """Clients that ask about the first applicants until the end."""
    clients = Clients(url, applicants.head(ASKED_ABOUT), folder)
    try:
        yield clients
    finally:
        clients.stop()


def _question(rows: pd.DataFrame) -> dict[str, Any]:
    return {"data": {"names": list(rows.columns), "ndarray": json.loads(rows.to_json(orient="values"))}}
