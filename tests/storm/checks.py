"""What must hold after every kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prefect_mlops.blocks import Environment, Observed, ReleaseLog, Split
from prefect_mlops.blocks.entry import Asked, Entry
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.blocks.state import Service
from prefect_mlops.blocks.writer import is_gone
from prefect_mlops.deployments.cli._status import status_of
from prefect_mlops.deployments.cli._where import Here
from prefect_mlops.deployments.local.place import NAME, Place
from prefect_mlops.deployments.traffic import Answer
from tests.storm.clients import Clients
from tests.storm.home import SERVICE, wait_for

SETTLE_SECONDS = 20.0


@dataclass(frozen=True)
class Look:
    """What the log says and what is served, looked at between two moments of the monotonic clock."""

    began_ns: int
    ended_ns: int
    head: int
    service: Service
    observed: Observed | None
    trouble: str = ""

    @property
    def asked(self) -> Asked | None:
        """The ask that is open."""
        entry = self.service.asked
        return entry.body if entry and isinstance(entry.body, Asked) else None

    @property
    def agrees(self) -> bool:
        """Whether what is served is what the log says."""
        return self.asked is None and self.observed is not None and self.observed.shows(self.service.split)


def look(environment: Environment, log: ReleaseLog) -> Look:
    """Ask the log and the target, as `status` does."""
    began = time.monotonic_ns()
    state = log.state()
    observed, trouble = None, ""
    try:
        observed = environment.target.observe(SERVICE)
    except MlopsError as error:
        trouble = str(error)
    head = state.head.seq if state.head else -1
    return Look(began, time.monotonic_ns(), head, state.service(SERVICE), observed, trouble)


def live(split: Split | None) -> set[str]:
    """The releases that answer in `split`."""
    return {arm.release for arm in split.live} if split else set()


@dataclass
class Checks:
    """Looks at one home, and keeps what it found wrong."""

    place: Place
    environment: Environment
    clients: Clients
    log: ReleaseLog = field(init=False)
    wrong: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.log = self.environment.log()

    def need(self, holds: bool, sentence: str) -> bool:
        """Keep `sentence` unless it `holds`."""
        if not holds:
            self.wrong.append(sentence)
        return holds

    def truth(self, *, dead: bool) -> Look:
        """Whether what `status` says is what the clients see, now; `dead`: whether the run was killed."""
        since = len(self.clients.read())
        first = look(self.environment, self.log)
        status = status_of(Here(self.place), NAME).document["services"][SERVICE]
        asked_between: Callable[[Answer], bool] = lambda answer: answer.asked_ns > first.ended_ns  # noqa: E731
        self.clients.wait_for(8, asked_between, since=since, seconds=5)
        second = look(self.environment, self.log)
        between = [
            answer
            for answer in self.clients.since(since)
            if asked_between(answer) and answer.answered_ns < second.began_ns and answer.status == 200
        ]
        self.need(len(between) >= 8, f"only {len(between)} answers in 5 s")
        for one in (first, second):
            self.need(one.observed is not None, f"status cannot say what is served: {one.trouble}")
        seen = {answer.release for answer in between}
        self._believed(first, second, seen)
        if first.head == second.head:
            self._said_so(status, second, seen, dead=dead)
        return second

    def _said_so(self, status: dict[str, Any], now: Look, seen: set[str], *, dead: bool) -> None:
        """Whether `prefect-mlops status` says what is so, in a moment in which nothing was written."""
        self.need(status["observed"] is not None, f"`status` does not know what is served: {status['silence']}")
        routes = {arm["digest"] for arm in status["observed"] or () if arm["role"] == "live"}
        if now.observed is not None and routes == live(now.observed.routes):
            self.need(seen <= routes, f"{_short(seen)} answered, `status` said {_short(routes)}")
        self.need((status["open"] is None) == (now.asked is None), f"`status` says that {status['open']} is open")
        if status["open"] is None:
            self.need(status["agrees"], f"nothing is open, and `status` says that it is not served as asked: {status}")
        elif dead:
            self.need(status["open"]["dead"], f"`status` does not see that the run of entry {now.head} is dead")

    def _believed(self, first: Look, second: Look, seen: set[str]) -> None:
        said = self._said(first, second)
        self.need(seen <= said, f"{_short(seen)} answered, while the log said {_short(said)}")
        if first.observed is None or second.observed is None or first.head != second.head:
            return
        if first.observed.routes == second.observed.routes:
            observed = live(first.observed.routes)
            self.need(seen <= observed, f"{_short(seen)} answered, while status said {_short(observed)}")
        if first.asked is None:
            routes, split = second.observed.routes, second.service.split
            self.need(routes == split, f"nothing is open, the log says {split} and {routes} is served")

    def _said(self, first: Look, second: Look) -> set[str]:
        """The releases that may answer between two looks, going by the log alone."""
        may = live(first.service.split) | live(second.service.split)
        for entry in self._entries(first, second):
            if isinstance(entry.body, Asked):
                may |= live(entry.body.before) | live(entry.body.after)
        return may

    def _entries(self, first: Look, second: Look) -> list[Entry]:
        start = first.service.asked.seq if first.service.asked else first.head
        found = self.log.journal.entries(start)
        return [Entry.decode(number, data) for number, data in found if number <= second.head]

    def converged(self) -> None:
        """Whether there is one state: the log, the target and the clients' answers agree."""
        wait_for(lambda: not self._under_way(), SETTLE_SECONDS)
        since = len(self.clients.read())
        now = look(self.environment, self.log)
        self.need(now.asked is None, f"entry {now.service.asked.seq if now.service.asked else '?'} is still open")
        self.need(now.agrees, f"the log says {now.service.split}, served is {now.observed or now.trouble}")
        if now.observed is not None:
            fence = now.observed.fence
            self.need(fence == now.service.fence, f"the target's fence is {fence}, the log's {now.service.fence}")
        answers = self.clients.wait_for(8, lambda one: one.asked_ns > now.ended_ns, since=since, seconds=5)
        seen = {answer.release for answer in answers if answer.status == 200}
        wanted = live(now.service.split)
        self.need(seen == wanted, f"{_short(seen)} answers, the log says {_short(wanted)}")

    def _under_way(self) -> bool:
        """Whether a living run is at it: the place's own automations reconcile when they hear of a crash."""
        known = self.log.state().service(SERVICE)
        return known.asked is not None and known.driver is not None and not is_gone(known.driver.writer)


def figures(checks: Checks) -> dict[str, Any]:
    """What the log says, for a line of the report."""
    service = checks.log.state().service(SERVICE)
    return {"live": sorted(service.named(release) for release in live(service.split)), "split": str(service.split)}


def _short(releases: set[str]) -> str:
    return ", ".join(sorted(release[7:15] for release in releases)) or "nobody"
