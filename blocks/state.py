"""What the log says: a pure fold over its entries, which also says what may come next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import takewhile
from types import MappingProxyType
from typing import Any

from prefect_mlops.blocks.entry import (
    Approval,
    Asked,
    Entry,
    Genesis,
    Judged,
    Released,
    Seen,
    Settled,
    Taken,
    Takeover,
    Time,
    Verdict,
    Waiver,
)
from prefect_mlops.blocks.errors import Invalid, MlopsError
from prefect_mlops.blocks.split import Split


class IllegalEntry(MlopsError):
    """An entry that may not stand where it stands."""

    def __init__(self, number: int, kind: str, rule: str) -> None:
        super().__init__(number, kind, rule)
        self.number, self.kind, self.rule = number, kind, rule

    def __str__(self) -> str:
        return f"log entry {self.number} ({self.kind}) is not legal there: {self.rule}"


NOTHING = Split()


@dataclass(frozen=True)
class Change:
    """A split that was asked for, and how that ended."""

    asked: Entry
    closed: Entry
    verdict: Verdict
    split: Split


@dataclass(frozen=True)
class Claim:
    """The newest move of a branch that a run took to train on.

    Attributes:
        taken: The entry with which it took it.
        move: Number of the move.
        tries: How many runs have taken it, one after the other.
        closed: The entry that says what came of it; None as long as nothing did.
    """

    taken: Entry
    move: int
    tries: int = 1
    closed: Entry | None = None


@dataclass(frozen=True)
class Service:
    """What the log knows of one service.

    `split` is what it served when somebody last looked and closed an ask; `asked` is the
    one ask that is open; `driver` is the entry whose writer may drive the target, and its number the fence.
    `claims` says of each branch which move was taken last to train on.
    """

    name: str
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    split: Split = NOTHING
    asked: Entry | None = None
    driver: Entry | None = None
    rollout: int = -1
    since: str | None = None
    changes: tuple[Change, ...] = ()
    past: tuple[tuple[int, Split], ...] = ()
    claims: dict[str, Claim] = field(default_factory=dict[str, Claim])

    @property
    def fence(self) -> int | None:
        """The number that a call to the target must carry now."""
        return self.driver.seq if self.driver else None

    def named(self, release: str) -> str:
        """A release as people call it, such as `credit-v3`."""
        return f"{self.name}-v{self.numbers[release]}" if release in self.numbers else f"{self.name} {release[:15]}…"

    def digest_of(self, name: str) -> str:
        """The digest of the release that people call `name`, or that starts like it.

        Raises:
            Invalid: If no release, or more than one, is meant by `name`.
        """
        wanted = name if name.startswith("sha256:") else "sha256:" + name
        found = [release for release in self.numbers if name == self.named(release) or release.startswith(wanted)]
        if len(found) == 1 and name.strip():
            return found[0]
        known = ", ".join(map(self.named, self.numbers)) or "none"
        raise Invalid(f"release of {self.name}", f"is one of: {known}", name, "name it as `status` and `releases` do")

    def before(self, rollout: int) -> Split:
        """What answered before `rollout` moved anything; nothing if it was the first."""
        return next((split for made, split in reversed(self.past) if made != rollout), NOTHING)

    @property
    def previous(self) -> Split | None:
        """What answered before that which answers now; a rollback takes its release off this pile."""
        below = self.past[:-1] if self.split.live else self.past
        return below[-1][1] if below else None


@dataclass(frozen=True)
class State:
    """What the log says up to one of its entries."""

    genesis: Entry | None = None
    head: Entry | None = None
    services: MappingProxyType[str, Service] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def next(self) -> int:
        """The number that the next entry gets."""
        return 0 if self.head is None else self.head.seq + 1

    def service(self, name: str) -> Service:
        """What is known of the service `name`; a new one has served nothing."""
        return self.services.get(name, Service(name))

    def then(self, entry: Entry) -> State:
        """The state after `entry`.

        Raises:
            IllegalEntry: If `entry` may not come next; the message says which rule it breaks.
        """
        try:
            self._check_chain(entry)
            return self._fold(entry)
        except _BrokenRule as broken:
            raise IllegalEntry(entry.seq, entry.kind, str(broken)) from None

    def _check_chain(self, entry: Entry) -> None:
        head, genesis = self.head, self.genesis
        _need(entry.seq == self.next, f"the next number is {self.next}")
        _need(entry.prev == (head.hash if head else None), "it does not name the hash of the entry before it")
        _need((entry.kind == "genesis") == (head is None), "genesis is the first entry and no other")
        if head and genesis:
            _need(entry.store == genesis.store, f"the log belongs to store {genesis.store}, not {entry.store}")
            _need(entry.environment == genesis.environment, f"the log is that of {genesis.environment}")
            _need(entry.time >= head.time, f"its time {entry.time} is before {head.time}")
        _need(entry.time >= entry.raw_time or not entry.clamped, "a clamped time is not before the raw one")
        _need((entry.time != entry.raw_time) == entry.clamped, "time and raw_time differ just where it was clamped")
        _need(entry.rollout is None or 0 <= entry.rollout <= entry.seq, "a rollout starts at an entry before its end")
        closing = entry.kind in {"observed", "released", "settled"}
        _need(entry.closes is None or closing, "only what was observed, released or settled closes something")

    def _fold(self, entry: Entry) -> State:
        match entry.body:
            case Genesis():
                return replace(self, genesis=entry, head=entry)
            case Taken() as body:
                return self._with(entry, _taken(self._one(entry), entry, body))
            case Released() as body:
                return self._with(entry, _released(self._one(entry), entry, body))
            case Settled() as body:
                return self._with(entry, _settled(self._one(entry), entry, body))
            case Asked() as body:
                return self._with(entry, _asked(self._one(entry), entry, body))
            case Seen() as body:
                return self._with(entry, _seen(self._one(entry), entry, body))
            case Takeover() as body:
                return self._with(entry, _taken_over(self._one(entry), entry, body))
            case Approval() | Waiver() | Judged() as body:
                return self._with(entry, _noted(self._one(entry), body))
            case _:
                return replace(self, head=entry)

    def _one(self, entry: Entry) -> Service:
        _need(len(entry.services) == 1, f"it is about one service, not {len(entry.services)}")
        return self.service(entry.services[0])

    def _with(self, entry: Entry, service: Service) -> State:
        services = MappingProxyType({**self.services, service.name: service})
        return replace(self, head=entry, services=services)


def fold(entries: Iterable[Entry]) -> State:
    """What the log of `entries` says.

    Raises:
        IllegalEntry: At the first entry that may not stand where it stands.
    """
    state = State()
    for entry in entries:
        state = state.then(entry)
    return state


@dataclass(frozen=True)
class Moving:
    """Traffic on its way: a request may have been answered as before, or as after."""

    before: Split
    after: Split
    asked: int

    def __str__(self) -> str:
        return f"in transition from {self.before} to {self.after} (log entry {self.asked})"


def at(entries: Iterable[Entry], service: str, when: Time) -> Split | Moving:
    """What `service` served at a moment, as far as the log of `entries` says.

    The order of entries is their numbers' alone; their times never run backwards, so that a clock that was
    wrong makes a change seem later than it was, never two changes seem swapped.

    Raises:
        Invalid: If the log had not begun then.
        IllegalEntry: At the first entry that may not stand where it stands.
    """
    state = fold(takewhile(lambda entry: entry.time <= when, entries))
    if state.head is None:
        raise Invalid("the moment", "is not before the log's first entry", when)
    known = state.service(service)
    if known.asked is None or not isinstance(known.asked.body, Asked):
        return known.split
    return Moving(known.asked.body.before, known.asked.body.after, known.asked.seq)


def _taken(service: Service, entry: Entry, body: Taken) -> Service:
    last, tries = service.claims.get(body.branch), 1
    if last is not None:
        what = f"move {last.move} of {body.branch} was taken"
        _need(body.move >= last.move, f"{what}, which came after {body.move}")
        if last.closed is not None:
            _need(body.move > last.move, f"{what}, and entry {last.closed.seq} says what came of it")
        elif body.move == last.move:
            tries = last.tries + 1
    return replace(service, claims={**service.claims, body.branch: Claim(entry, body.move, tries)})


def _released(service: Service, entry: Entry, body: Released) -> Service:
    _need(body.release not in service.numbers, f"{body.release} has a number already")
    number = len(service.numbers) + 1
    _need(body.number == number, f"the next number of {service.name} is {number}, not {body.number}")
    closed = service if entry.closes is None else _closed(service, entry)
    return replace(closed, numbers={**service.numbers, body.release: number})


def _settled(service: Service, entry: Entry, body: Settled) -> Service:
    _need((body.outcome == "passed") == (body.release is not None), "what passed names a release, and nothing else")
    _need(body.release is None or body.release in service.numbers, f"{body.release} was never released")
    return _closed(service, entry)


def _closed(service: Service, entry: Entry) -> Service:
    """Whoever was taken over closes nothing any more."""
    for branch, claim in service.claims.items():
        if claim.taken.seq == entry.closes and claim.closed is None:
            return replace(service, claims={**service.claims, branch: replace(claim, closed=entry)})
    raise _BrokenRule(f"it closes {entry.closes}, which no run of {service.name} has taken, or not any more")


def _asked(service: Service, entry: Entry, body: Asked) -> Service:
    if service.asked is not None:
        raise _BrokenRule(f"entry {service.asked.seq} is still open for {service.name}")
    _need(body.before == service.split, f"{service.name} serves {service.split}, not {body.before}")
    _need(body.move != "reassert" or body.after == body.before, "to reassert changes nothing")
    unknown = [release for release in body.after.releases if release not in service.numbers]
    _need(not unknown, f"{unknown} were never released for {service.name}")
    _need(entry.rollout is not None and entry.rollout >= service.rollout, f"rollout {service.rollout} came after it")
    return replace(service, asked=entry, driver=entry, rollout=entry.rollout or 0)


def _noted(service: Service, body: Approval | Waiver | Judged) -> Service:
    _need(body.release in service.numbers, f"{body.release} was never released for {service.name}")
    return service


def _taken_over(service: Service, entry: Entry, body: Takeover) -> Service:
    if service.asked is None or service.asked.seq != body.of:
        raise _BrokenRule(f"entry {body.of} is not open for {service.name}")
    _need(entry.rollout == service.asked.rollout, f"entry {body.of} belongs to rollout {service.asked.rollout}")
    return replace(service, driver=entry)


def _seen(service: Service, entry: Entry, body: Seen) -> Service:
    asked = service.asked
    if asked is None or not isinstance(asked.body, Asked):
        raise _BrokenRule(f"nothing is open for {service.name}")
    _need(entry.rollout == asked.rollout, f"entry {asked.seq} belongs to rollout {asked.rollout}")
    _need(body.fence == service.fence, f"entry {service.fence} drives {service.name}, not {body.fence}")
    if body.verdict == "unknown":
        _need(entry.closes is None, "what is unknown closes nothing")
        return service
    _need(entry.closes == asked.seq, f"it closes {entry.closes}, but {asked.seq} is open")
    wanted = asked.body.after if body.verdict == "applied" else asked.body.before
    served = body.split
    if served is None or (served != wanted and not (body.verdict == "undone" and served.is_left_of(wanted))):
        raise _BrokenRule(f"{body.verdict} means that {wanted} is served, not {served}")
    return replace(
        service,
        split=served,
        asked=None,
        since=entry.time,
        changes=(*service.changes, Change(asked, entry, body.verdict, served)),
        past=_pile(service.past, served, service.rollout, rolled_back=_rolled_back(asked.body, body)),
    )


def _rolled_back(asked: Asked, seen: Seen) -> bool:
    return asked.move == "rollback" and seen.verdict == "applied"


def _pile(
    past: tuple[tuple[int, Split], ...], served: Split, rollout: int, *, rolled_back: bool
) -> tuple[tuple[int, Split], ...]:
    """Put what answers now on the pile, one split a rollout."""
    if rolled_back:
        past = _taken_off(past, served)
    if not served.live:
        return past
    below = past[:-1] if past and past[-1][0] == rollout else past
    for kept in (past, below):
        if kept and kept[-1][1].live == served.live:
            return (*kept[:-1], (kept[-1][0], served))
    return (*below, (rollout, served))


def _taken_off(past: tuple[tuple[int, Split], ...], served: Split) -> tuple[tuple[int, Split], ...]:
    """The pile without what lies above the newest place of `served` in it; before all of it, nothing answered."""
    if not served.live:
        return ()
    places = (place for place in range(len(past), 0, -1) if past[place - 1][1].live == served.live)
    return past[: next(places, len(past))]


class _BrokenRule(Exception):
    pass


def _need(holds: Any, rule: str) -> None:
    if not holds:
        raise _BrokenRule(rule)
