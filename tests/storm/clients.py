"""The clients of the storm: constant traffic, and what came of each question."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prefect_mlops.deployments.traffic import Answer
from tests.forks import ROOT
from tests.storm.home import questions

CONNECTIONS = 8
EACH = 40
"""Questions over one connection: clients come and go, so that a gateway that came back gets some again."""


class Clients:
    """Ask at `rate` questions a second from `start` to `stop`."""

    def __init__(self, url: str, folder: Path, rate: int) -> None:
        self.out = folder / "answers"
        self.out.touch()
        asked = folder / "questions"
        asked.write_text("".join(json.dumps(question) + "\n" for question in questions()))
        command = [sys.executable, "-m", "prefect_mlops.deployments.traffic", url, str(asked), str(self.out)]
        self.process = subprocess.Popen(
            [*command, str(rate), str(CONNECTIONS), str(EACH)], stdin=subprocess.PIPE, cwd=ROOT
        )
        self.answers: list[Answer] = []
        self._file, self._rest = self.out.open(), ""

    def read(self) -> list[Answer]:
        """Every answer so far, in the order in which they were written down."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        self.answers += map(Answer.read, lines)
        return self.answers

    def since(self, index: int) -> list[Answer]:
        """The answers from the number `index` on."""
        return self.read()[index:]

    def wait_for(self, count: int, wanted: Callable[[Answer], bool], *, since: int, seconds: float) -> list[Answer]:
        """Answers from the number `since` on that are `wanted`: `count` of them, or fewer after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            found = [answer for answer in self.since(since) if wanted(answer)]
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.02)

    def stop(self) -> None:
        """Let every question that is out be answered, and ask no more."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(timeout=60)
        self.read()
        self._file.close()
