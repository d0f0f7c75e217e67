"""Clients: ask a service the same questions over and over, and write down who answered.

Started as a program, so that nothing that its starter does slows it down:
`python -m prefect_mlops.deployments.traffic URL QUESTIONS OUT RATE CONNECTIONS [EACH]`.

`QUESTIONS` is a file with one request body a line. Every answer becomes a line of `OUT`: nanoseconds of
the monotonic clock when it was asked and when it was answered, status (0 where nothing came), release,
request id, error. A question is asked once, whatever comes of it. A connection is used for `EACH`
questions, or for as long as the server keeps it. It stops when its standard input ends.
"""

from __future__ import annotations

import http.client
import select
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

PREDICTIONS = "/api/v1.0/predictions"


@dataclass(frozen=True)
class Answer:
    """What came of one question."""

    asked_ns: int
    answered_ns: int
    status: int
    release: str
    request_id: str
    error: str = ""

    def line(self) -> str:
        """The answer as it is written down."""
        words = (self.asked_ns, self.answered_ns, self.status, self.release, self.request_id, self.error)
        return " ".join(str(word) or "-" for word in words) + "\n"

    @classmethod
    def read(cls, line: str) -> Answer:
        """The answer that was written down as `line`."""
        asked, answered, status, release, request, error = line.split()
        return cls(int(asked), int(answered), int(status), release, request, error.removeprefix("-"))


def answers(path: Path) -> list[Answer]:
    """Every answer that was written down so far."""
    return [Answer.read(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


class Client(threading.Thread):
    """One connection that asks one question after the other, `interval` seconds apart."""

    def __init__(
        self, url: str, questions: list[bytes], out: Path, interval: float, stop: threading.Event, each: int = 0
    ) -> None:
        super().__init__(daemon=True)
        self.url, self.questions, self.interval, self.stop = urllib.parse.urlsplit(url), questions, interval, stop
        self.each = each
        self.out = out.open("a", buffering=1)
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        """Ask until told to stop."""
        due, number = time.monotonic(), 0
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            self.out.write(self.ask(self.questions[number % len(self.questions)]).line())
            number += 1
            if self.each and number % self.each == 0:
                self.hang_up()
            due = max(due + self.interval, time.monotonic() - self.interval)

    def ask(self, question: bytes) -> Answer:
        """Ask one question, once."""
        asked = time.monotonic_ns()
        try:
            if self.was_closed():
                self.hang_up()
            if self.connection is None:
                self.connection = http.client.HTTPConnection(str(self.url.hostname), self.url.port, timeout=30)
            headers = {"content-type": "application/json"}
            self.connection.request("POST", self.url.path + PREDICTIONS, question, headers)
            response = self.connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self.hang_up()
            return Answer(asked, time.monotonic_ns(), 0, "", "", type(error).__name__)
        release, request = response.headers.get("x-release", ""), response.headers.get("x-request-id", "")
        return Answer(asked, time.monotonic_ns(), response.status, release, request)

    def was_closed(self) -> bool:
        """Whether the server closed the connection while nothing was asked: HTTP's clients then connect again."""
        idle = self.connection.sock if self.connection else None
        return idle is not None and bool(select.select([idle], [], [], 0)[0])

    def hang_up(self) -> None:
        """Ask the next question over a new connection."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def main(url: str, questions: str, out: str, rate: str, connections: str, each: str = "0") -> None:
    """Ask `rate` questions a second over `connections` connections until standard input ends."""
    stop, asked, count = threading.Event(), Path(questions).read_bytes().splitlines(), int(connections)
    clients = [
        Client(url, asked[number::count], Path(out), count / float(rate), stop, int(each)) for number in range(count)
    ]
    for client in clients:
        client.start()
    sys.stdin.read()
    stop.set()
    for client in clients:
        client.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
