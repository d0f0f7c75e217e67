"""Random histories of two writers on one log and one target, where everything fails, and what must hold in them.

Each writer runs the real code in a greenlet of its own and stops before every request to the store and to the
target, so that writers interleave at every point at which they can in the world. `History.run` raises
AssertionError at the first step after which something does not hold.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from greenlet import greenlet

from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.commit import Commit
from prefect_mlops.blocks.entry import Actor, Asked, Entry, Judged, Released, Run, Seen, Taken
from prefect_mlops.blocks.environment import Environment
from prefect_mlops.blocks.errors import (
    MlopsError,
    NothingBefore,
    ServiceBusy,
    SplitNotApplied,
    Superseded,
    TakenOver,
    TargetRefused,
)
from prefect_mlops.blocks.log import Draft, ReleaseLog
from prefect_mlops.blocks.split import Split
from prefect_mlops.blocks.state import State
from prefect_mlops.blocks.verify import verify
from prefect_mlops.blocks.writer import moment
from prefect_mlops.tasks._moving import Plan, move, reassert, take_over
from prefect_mlops.tasks._taking import Fate, release, settle, take
from prefect_mlops.tasks._undoing import destination
from tests.blocks.store.doubles import Fault, FlakyBackend, Killed, Shelf, flaky_store
from tests.tasks.moving.choices import Choices
from tests.tasks.moving.doubles import Gateway, MemoryTarget, Mishap, memory_place

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LEASE_SECONDS = 60
STEPS = 140
FATES: list[Fate] = ["unknown", "ended", "ended", "cancelled"]
F = TypeVar("F", Fault, Mishap)
RELEASES = ["sha256:" + f"{number:x}" * 64 for number in range(1, 6)]
LOG = "log/local/"
LOST = [Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.STALL, Fault.STALE]
STORE_FAULTS = [*LOST, *LOST, Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.KILL_STALLED]
MISHAPS = {
    "apply": [Mishap.UNREACHABLE, Mishap.LATE],
    "observe": [Mishap.UNREACHABLE],
    "start": [mishap for mishap in Mishap if mishap not in (Mishap.NONE, Mishap.UNREACHABLE, Mishap.LATE)],
}


@dataclass
class Writer:
    """One process: it lives until it is killed, and its successor is another run."""

    history: History
    number: int
    life: int = 0
    skew: timedelta = timedelta()
    asleep: int = 0
    log: ReleaseLog = field(init=False)
    place: Environment = field(init=False)
    backend: FlakyBackend = field(init=False)
    flow: greenlet = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    @property
    def name(self) -> str:
        return f"{'AB?'[self.number]}{self.life}"

    def begin(self) -> None:
        """Start as a new process."""
        self.life += 1
        store = flaky_store(self.history.shelf, self.before_store)
        assert isinstance(store._backend, FlakyBackend)
        self.backend = store._backend
        target = MemoryTarget(self.history.gateway, self.before_target)
        self.place = memory_place(store, target, lease_seconds=LEASE_SECONDS)
        run = Run(id=self.name, name=self.name, flow="history")
        actor = Actor(name="tester", assurance="claimed")
        self.log = ReleaseLog(store, "local", run=run, actor=actor, clock=self.now)
        self.flow = greenlet(self.live)

    def now(self) -> datetime:
        return self.history.now + self.skew

    def live(self) -> None:
        try:
            while not self.history.closing:
                self.history.act(self)
        except Killed:
            self.history.tell(f"{self.name} dies")

    def before_store(self, operation: str, key: str) -> Fault:
        return self.history.interrupt(self, f"{operation} {key}", STORE_FAULTS, Fault.NONE)

    def before_target(self, step: str, service: str) -> Mishap:
        if self.backend.dead:
            raise Killed(step)
        if self.history.dies_now(self):
            self.backend.dead = True
            raise Killed(step)
        return self.history.interrupt(self, f"{step} {service}", MISHAPS[step], Mishap.NONE)


class History:
    """One history: what is stored, what is served, two writers, and an eye that no fault reaches."""

    def __init__(self, choices: Choices, *, told: bool = False) -> None:
        self.choices, self.story = choices, [""] if told else None
        self.shelf, self.gateway = Shelf(), Gateway(broken=frozenset(RELEASES[4:]))
        self.now, self.closing, self.calm = BEGIN, False, False
        self.store_permille = choices.one([0, 10, 40, 150])
        self.target_permille = choices.one([0, 50, 200])
        self.death_permille = choices.one([0, 5, 20])
        self.eye = ReleaseLog(flaky_store(self.shelf), "local")
        self.kept: dict[str, bytes] = {}
        self.looked = (-1, -1)
        self.writers = [Writer(self, number) for number in range(2)]
        self.helper = Writer(self, 2)

    # --- what happens

    def run(self) -> History:
        for _ in range(STEPS):
            self.step()
        self.end()
        return self

    def step(self) -> None:
        """Let one writer get to its next request, or something else happen."""
        self.now += timedelta(seconds=1)
        if self.choices.chance(60):
            self.happen()
        awake = [writer for writer in self.writers if not writer.asleep]
        for writer in self.writers:
            writer.asleep = max(0, writer.asleep - 1)
        if awake:
            self.resume(awake[0] if len(awake) == 1 or not self.choices.chance(350) else awake[1])
        self.look()

    def resume(self, writer: Writer) -> None:
        if writer.flow.dead:
            writer.begin()
        writer.flow.switch()

    def happen(self) -> None:
        """Something that no writer does."""
        what = self.choices.below(6)
        writer = self.choices.one(self.writers)
        if what == 0:
            writer.asleep = self.choices.one([3, 30, STEPS])
            self.tell(f"{writer.name} stalls for {writer.asleep} steps")
        elif what == 1:
            writer.skew = timedelta(
                seconds=self.choices.one([0, -1, -7, 7, -365 * 86_400, 365 * 86_400, -LEASE_SECONDS])
            )
            self.tell(f"the clock of {writer.name} jumps to {writer.skew}")
        elif what == 2:
            self.now += timedelta(seconds=LEASE_SECONDS)
            self.tell("a minute passes")
        elif what == 3 and self.shelf.late:
            self.tell(f"a late entry lands: {self.shelf.land(self.choices.below(8))}")
        elif what == 4 and self.gateway.late:
            self.gateway.land()
            self.tell("a late request reaches the target")
        elif what == 5:
            for held in self.gateway.services.values():
                held.ready = dict.fromkeys(held.ready, 0)
            self.tell("every server dies")

    def interrupt(self, writer: Writer, where: str, faults: list[F], none: F) -> F:
        """Stop the writer here until it is its turn again, then say what goes wrong."""
        if writer.flow is greenlet.getcurrent():
            assert writer.flow.parent is not None
            writer.flow.parent.switch()
        fault = none
        if not self.calm:
            permille = self.store_permille if none is Fault.NONE else self.target_permille
            fault = self.choices.one(faults) if self.choices.chance(permille) else none
        self.tell(f"  {writer.name} {where}" + ("" if fault is none else f": {fault}"))
        return fault

    def dies_now(self, writer: Writer) -> bool:
        return not self.calm and self.choices.chance(self.death_permille)

    # --- what writers do

    def act(self, writer: Writer) -> None:
        """Do one thing as a flow would, and believe only what is known afterwards."""
        service = self.choices.one(["credit", "credit", "credit", "fraud"])
        actions = [self.ship, self.ship, self.ship, self.undo, self.undo, self.reconcile, self.judge]
        actions += [self.push, self.train, self.train]
        action = self.choices.one(actions)
        self.tell(f"{writer.name} begins to {action.__name__} {service}")
        try:
            if writer.log.state().genesis is None:
                writer.log.begin({"store": {"url": "memory"}})
            action(writer, service)
            self.tell(f"{writer.name} is done")
        except MlopsError as error:
            self.tell(f"{writer.name} stops: {type(error).__name__}: {error}")

    def ship(self, writer: Writer, service: str) -> None:
        known = writer.log.state().service(service)
        release = RELEASES[self.choices.below(len(RELEASES))]
        if release not in known.numbers:
            self.keep(writer.log.append(lambda state: _numbered(state, service, release)))
            known = writer.log.state().service(service)
        if known.numbers:
            after = self.split(list(known.numbers), release)
            rollout = known.rollout if known.rollout >= 0 and self.choices.chance(500) else None
            before = None if self.choices.chance(300) else known.split
            self.attempt(writer, service, Plan(after=after, rollout=rollout, before=before))

    def split(self, releases: list[str], new: str) -> Split:
        live = self.choices.one(releases)
        shape = self.choices.below(16) // 3
        other = next((one for one in releases if one != live), None)
        if shape == 0 or other is None:
            return Split.of(new)
        if shape == 1:
            return Split.of(live, warm=[other])
        if shape == 2:
            return Split()
        if shape == 5:
            return Split.of(live, shadow=other)
        share = 10 if shape == 3 else 50
        arms = [{"release": live, "role": "live", "percent": 100 - share}]
        return Split.model_validate({"arms": [*arms, {"release": other, "role": "live", "percent": share}]})

    def undo(self, writer: Writer, service: str) -> None:
        """As `rollback_release` does."""
        self.keep(take_over(writer.place, writer.log, service, at_once=True, reason="rollback"))
        known = writer.log.state().service(service)
        try:
            back = destination(known, "previous")
        except NothingBefore:
            return
        self.attempt(writer, service, Plan(after=back, move="rollback"))

    def guessed(self, run: Run) -> bool:
        """Whether a run has ended, as often wrong as not."""
        return self.choices.chance(500)

    def reconcile(self, writer: Writer, service: str) -> None:
        at_once = self.choices.chance(500)
        self.keep(take_over(writer.place, writer.log, service, reason="reconcile", at_once=at_once, ended=self.guessed))
        state = writer.log.state()
        if service in state.services and not writer.place.target.observe(service).shows(state.service(service).split):
            self.keep(reassert(writer.place, writer.log, service, "reconcile"))

    def judge(self, writer: Writer, service: str) -> None:
        if numbers := writer.log.state().service(service).numbers:
            release = self.choices.one(list(numbers))
            verdict = Judged(release=release, gate="golden probes", outcome="passed")
            self.keep(writer.log.append(lambda _: Draft(verdict, (service,))))

    def push(self, writer: Writer, service: str) -> None:
        """New data arrives."""
        store, branch = writer.log.store, Branch(writer.log.store, "main", clock=writer.now)
        head, time = branch.head, moment(writer.now())
        data = Commit(snapshot=RELEASES[0], parents=(), source=service, run=None, actor=writer.log.actor, time=time)
        branch.move(store.put(data.canonical()), expected=head)

    def train(self, writer: Writer, service: str) -> None:
        """As `train_candidate` does, with wrong guesses of who is dead, and long enough to be taken over."""
        branch = Branch(writer.log.store, "main")
        lease = timedelta(seconds=LEASE_SECONDS)
        taken = take(writer.log, service, branch, lease=lease, fate=lambda _: self.choices.one(FATES))
        self.keep(taken)
        if taken is None:
            return
        assert isinstance(taken.body, Taken)
        for _ in range(self.choices.below(60)):
            self.interrupt(writer, "trains", [Fault.NONE], Fault.NONE)
        self.keep(self.closed(writer, taken, taken.body))

    def closed(self, writer: Writer, taken: Entry, body: Taken) -> Entry:
        """What came of it."""
        if self.choices.chance(300):
            return settle(writer.log, taken, "failed", "bad data")
        trained = f"sha256:{taken.seq:064x}" if self.choices.chance(800) else RELEASES[1]
        return release(writer.log, taken, trained, body.commit)

    def attempt(self, writer: Writer, service: str, plan: Plan) -> None:
        """Try as the task `shift_traffic` does: again only after what is transient."""
        for last in (False, False, True):
            try:
                closed = move(writer.place, writer.log, service, plan, ended=self.guessed)
            except SplitNotApplied:
                self.must_be_recorded(writer, service)
                raise
            except MlopsError as error:
                self.must_be_clear(writer, service, plan, error)
                if last or not error.transient:
                    raise
                self.tell(f"{writer.name} tries again after {error}")
            else:
                self.keep(closed)
                body = closed.body
                assert isinstance(body, Seen), body
                assert (body.verdict, body.split) == ("applied", plan.after), body
                return

    # --- what must hold

    def keep(self, entry: Entry | None) -> None:
        """Whoever is told that something is written can rely on it."""
        if entry is not None:
            assert self.shelf.held[f"{LOG}{entry.seq:012d}"] == entry.encode(), f"entry {entry.seq} was acknowledged"

    def must_be_recorded(self, writer: Writer, service: str) -> None:
        """Who says that a change failed has written down how."""
        self.look()
        mine = [one.body for one in self.eye.entries() if one.run == writer.log.run and one.services == (service,)]
        seen = [body.verdict for body in mine if isinstance(body, Seen)]
        assert seen[-1] in {"undone", "unknown"}, seen

    def must_be_clear(self, writer: Writer, service: str, plan: Plan, error: MlopsError) -> None:
        """The error says what kept it from doing it, which is never that it was done by itself."""
        expected = (ServiceBusy, Superseded, TakenOver, TargetRefused)
        assert error.transient or isinstance(error, expected), repr(error)
        changes = self.eye.state().service(service).changes
        if isinstance(error, Superseded) and changes and changes[-1].asked.run == writer.log.run:
            last, rollout = changes[-1].asked.body, changes[-1].asked.rollout
            assert isinstance(last, Asked)
            planned = (plan.before, plan.after, plan.move, plan.rollout or rollout, "applied")
            done = (last.before, last.after, last.move, rollout, changes[-1].verdict)
            assert done != planned, f"{error}, and yet {writer.name} did it"

    def look(self) -> None:
        """What must hold after every step."""
        now = (len(self.shelf.history), sum(held.version for held in self.gateway.services.values()))
        if now == self.looked:
            return
        self.looked = now
        state = self.eye.state()  # decodes, checks the chain, and refuses what is illegal
        for key in [key for key in self.shelf.history if key.startswith(LOG)][len(self.kept) :]:
            self.kept[key] = self.shelf.held[key]
        assert state.next == len(self.kept), "there is a gap in the log"
        for service in state.services.values():
            if service.asked is None:
                held = self.gateway.of(service.name)
                assert held.routes == service.split, f"the log says {service.split}, served is {held.routes}"

    def end(self) -> None:
        """Let everything heal and one reconcile run; wake whoever stalled; then all must agree, for good."""
        self.calm = self.closing = True
        self.tell("everything heals")
        while self.choices.chance(500) and self.shelf.late:
            self.shelf.land()
        self.finish()
        self.wake()
        while self.shelf.late:
            self.shelf.land()
        while self.gateway.late:
            self.gateway.land()
        self.look()
        self.finish()
        self.check_trained()
        self.check_whole()

    def finish(self) -> None:
        """One reconcile: what was open is closed, a rollback forward, everything else back unless it was done."""
        helper = self.helper
        for service in self.eye.state().services:
            expected = self.expected(service)
            closed = take_over(helper.place, helper.log, service, at_once=True, reason="reconcile")
            known = helper.log.state().service(service)
            held = self.gateway.of(service)
            assert known.asked is None
            assert known.split == expected, f"{service}: {known.split} after a take-over, not {expected}"
            if closed is None and not held.shows(known.split):
                reassert(helper.place, helper.log, service, "reconcile")
            assert held.shows(known.split)
        self.look()

    def expected(self, service: str) -> Split:
        known = self.eye.state().service(service)
        if known.asked is None or not isinstance(body := known.asked.body, Asked):
            return known.split
        forward = body.move == "rollback" or self.gateway.of(service).shows(body.after)
        return body.after if forward and not self.gateway.broken & set(body.after.releases) else body.before

    def wake(self) -> None:
        """Whoever stalled goes on; having been taken over, they change nothing that is served."""
        for writer in self.writers:
            writer.asleep = 0
            known = {name: service.fence for name, service in self.eye.state().services.items()}
            for _ in range(500):
                if writer.flow.dead or not writer.flow:
                    break
                accepted = len(self.gateway.accepted)
                writer.flow.switch()
                self.look()
                for service, fence in self.gateway.accepted[accepted:]:
                    assert fence >= (known.get(service) or 0), f"fence {fence} of {writer.name} was accepted"
            assert writer.flow.dead or not writer.flow, f"{writer.name} never ends"

    def check_trained(self) -> None:
        """After one more sweep, each head was trained on, and of each move that was taken came one thing at most."""
        log = self.helper.log
        branch = Branch(log.store, "main")
        for service in ("credit", "fraud"):
            taken = take(log, service, branch, lease=timedelta(), fate=lambda _: "ended")
            if taken is not None:
                settle(log, taken, "failed", "bad data")
            claim, tip = self.eye.state().service(service).claims.get("main"), branch.tip()
            assert (claim.move if claim else None) == (tip.seq if tip else None)
            assert claim is None or claim.closed is not None
        self.look()
        took = {entry.seq: entry for entry in self.eye.entries() if isinstance(entry.body, Taken)}
        ends = [took[entry.closes] for entry in self.eye.entries() if entry.closes in took]
        moves = [(entry.service, entry.body.move) for entry in ends if isinstance(entry.body, Taken)]
        assert len(moves) == len(set(moves)), f"two things came of one move: {moves}"

    def check_whole(self) -> None:
        for key, data in self.kept.items():
            assert self.shelf.held.get(key) == data, f"{key} changed or vanished"
        nonces = {json.loads(data.partition(b"\n")[0])["writer"]["nonce"] for data in self.kept.values()}
        assert len(nonces) == len(self.kept), "an entry is there twice"
        if self.choices.below(10) == 0:
            self.check_verified()

    def check_verified(self) -> None:
        faults = [
            f"{fault.key}: {fault.what}"
            for fault in verify(self.eye).faults
            if fault.key.startswith((LOG, "branches/"))
        ]
        assert not faults, faults

    def tell(self, line: str) -> None:
        if self.story is not None:
            self.story.append(f"{len(self.kept):3} {line}")


def _numbered(state: State, service: str, release: str) -> Draft | None:
    numbers = state.service(service).numbers
    return None if release in numbers else Draft(Released(release=release, number=len(numbers) + 1), (service,))


def failure_of(choices: Choices, *, story: bool = False) -> tuple[str, list[str]] | None:
    """What did not hold in the history that `choices` make, and its story; None if everything held."""
    history = History(choices, told=story)
    try:
        history.run()
    except Exception as error:
        return f"{type(error).__name__}: {error}", history.story or []
    return None
