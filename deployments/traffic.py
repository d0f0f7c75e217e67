"""Clients: ask a service the same questions over and over, and write down who answered.

Started as a program, so that nothing that its starter does slows it down:
`python -m prefect_mlops.deployments.traffic URL QUESTIONS OUT RATE CONNECTIONS`.

`QUESTIONS` is a file with one request body a line. Every answer becomes a line of `OUT`: nanoseconds of
the monotonic clock when it was asked and when it was answered, status (0 where nothing came), release,
request id. A question is asked once, whatever comes of it. It stops when its standard input ends.
"""

from __future__ import annotations

import http.client
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

    def line(self) -> str:
        """The answer as it is written down."""
        return f"{self.asked_ns} {self.answered_ns} {self.status} {self.release or '-'} {self.request_id or '-'}\n"


def answers(path: Path) -> list[Answer]:
    """Every answer that was written down so far."""
    fields = (line.split() for line in path.read_text().splitlines(keepends=True) if line.endswith("\n"))
    return [Answer(int(a), int(b), int(status), release, request) for a, b, status, release, request in fields]


class Client(threading.Thread):
    """One connection that asks one question after the other, `interval` seconds apart."""

    def __init__(self, url: str, questions: list[bytes], out: Path, interval: float, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.questions, self.interval, self.stop = urllib.parse.urlsplit(url), questions, interval, stop
        self.out = out.open("a", buffering=1)
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        """Ask until told to stop."""
        due, number = time.monotonic(), 0
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            self.out.write(self.ask(self.questions[number % len(self.questions)]).line())
            number += 1
            due = max(due + self.interval, time.monotonic() - self.interval)

    def ask(self, question: bytes) -> Answer:
        """Ask one question, once."""
        asked = time.monotonic_ns()
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(str(self.url.hostname), self.url.port, timeout=30)
            headers = {"content-type": "application/json"}
            self.connection.request("POST", self.url.path + PREDICTIONS, question, headers)
            response = self.connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self.connection = None
            return Answer(asked, time.monotonic_ns(), 0, "", "")
        release, request = response.headers.get("x-release", ""), response.headers.get("x-request-id", "")
        return Answer(asked, time.monotonic_ns(), response.status, release, request)


def main(url: str, questions: str, out: str, rate: str, connections: str) -> None:
    """Ask `rate` questions a second over `connections` connections until standard input ends."""
    stop, asked = threading.Event(), Path(questions).read_bytes().splitlines()
    clients = [
        Client(url, asked[number :: int(connections)], Path(out), int(connections) / float(rate), stop)
        for number in range(int(connections))
    ]
    for client in clients:
        client.start()
    sys.stdin.read()
    stop.set()
    for client in clients:
        client.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
