"""The write-ahead protocol, one mishap at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from prefect_mlops.blocks import Environment
from prefect_mlops.blocks.entry import Asked, Entry, Seen
from prefect_mlops.blocks.errors import ServiceBusy, SplitNotApplied, StoreUnreachable, Superseded, TakenOver
from prefect_mlops.blocks.log import ReleaseLog
from prefect_mlops.blocks.split import Split
from prefect_mlops.tasks._moving import Plan, move, reassert, take_over
from tests.blocks.log.stories import Teller, digest
from tests.blocks.store.doubles import Fault, Faults, Killed, Shelf, flaky_store, no_faults
from tests.tasks.moving.doubles import Gateway, MemoryTarget, Mishap, Step, memory_place, no_mishap
from tests.tasks.moving.mover import open_log

V1, V2, V3 = digest(1), digest(2), digest(3)
HOUR = timedelta(hours=1)


class World:
    """A store and a target, and processes that reach them."""

    def __init__(self) -> None:
        self.shelf, self.gateway = Shelf(), Gateway()
        self.log = self.process("eye")
        teller = Teller(self.log)
        for release in (V1, V2, V3):
            teller.released(release)
        self.move("setup", Plan(after=Split.of(V1)))

    def process(self, name: str, faults: Faults = no_faults) -> ReleaseLog:
        return open_log(flaky_store(self.shelf, faults), name)

    def move(self, name: str, plan: Plan, mishap: Step = no_mishap, log: ReleaseLog | None = None) -> Entry:
        log = log or self.process(name)
        return move(self.place(log, mishap), log, "credit", plan)

    def place(self, log: ReleaseLog, mishap: Step = no_mishap) -> Environment:
        return memory_place(log.store, MemoryTarget(self.gateway, mishap))

    def take_over(self, name: str, *, at_once: bool = True, log: ReleaseLog | None = None) -> Entry | None:
        log = log or self.process(name)
        return take_over(self.place(log), log, "credit", at_once=at_once, reason="")

    def reassert(self, name: str) -> Entry:
        log = self.process(name)
        return reassert(self.place(log), log, "credit", "")

    @property
    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.log.entries()][4:]

    @property
    def served(self) -> Split:
        return self.gateway.of("credit").routes

    @property
    def said(self) -> Split:
        known = self.log.state().service("credit")
        assert known.asked is None
        return known.split


@pytest.fixture
def world() -> World:
    return World()


def once(step: str, mishap: Mishap) -> Step:
    left = iter([mishap])
    return lambda now, service: next(left, Mishap.NONE) if now == step else Mishap.NONE


def always(step: str, mishap: Mishap) -> Step:
    return lambda now, service: mishap if now == step else Mishap.NONE


def at_entry(number: int, fault: Fault, *, times: int = 1, operation: str = "put") -> Faults:
    """Something goes wrong in writing, or reading, entry `number`."""
    left = iter([fault] * times)
    wanted = (operation, f"log/local/{number:012d}")
    return lambda what, where: next(left, Fault.NONE) if (what, where) == wanted else Fault.NONE


def killed_at_apply(step: str, service: str) -> Mishap:
    if step == "apply":
        raise Killed(step)
    return Mishap.NONE


STARTS = [Mishap.NOT_READY, Mishap.IGNORES, Mishap.SERVES_OTHER, Mishap.CRASHES, Mishap.DIES_BEFORE, Mishap.DIES_AFTER]
MISHAPS = [("apply", Mishap.UNREACHABLE), ("observe", Mishap.UNREACHABLE), *(("start", mishap) for mishap in STARTS)]


@pytest.mark.parametrize(("step", "mishap"), MISHAPS)
def test_what_is_not_served_as_asked_is_undone(world: World, step: str, mishap: Mishap) -> None:
    with pytest.raises(SplitNotApplied):
        world.move("anna", Plan(after=Split.of(V2)), once(step, mishap))
    assert world.said == world.served == Split.of(V1)
    assert world.log.state().service("credit").changes[-1].verdict == "undone"


def test_what_cannot_be_undone_stays_open_and_is_unknown(world: World) -> None:
    with pytest.raises(SplitNotApplied, match="something unknown"):
        world.move("anna", Plan(after=Split.of(V2)), always("observe", Mishap.UNREACHABLE))
    assert world.kinds[-2:] == ["asked", "observed"]
    with pytest.raises(ServiceBusy, match="run anna"):
        world.move("bert", Plan(after=Split.of(V3)))
    world.take_over("bert")
    assert world.said == world.served == Split.of(V1)


@pytest.mark.parametrize("kind", ["advance", "rollback"])
def test_a_rollback_goes_forward_and_all_else_back(world: World, kind: str) -> None:
    with pytest.raises(Killed):
        world.move(
            "anna", Plan(after=Split.of(V2), move="rollback" if kind == "rollback" else "advance"), killed_at_apply
        )
    assert world.served == Split.of(V1)
    closed = world.take_over("bert")
    assert closed is not None
    assert world.said == world.served == Split.of(V2 if kind == "rollback" else V1)


def test_what_was_done_and_not_recorded_is_kept(world: World) -> None:
    with pytest.raises(Killed):
        world.move("anna", Plan(after=Split.of(V2)), log=world.process("anna", at_entry(7, Fault.KILL_BEFORE)))
    assert world.served == Split.of(V2)
    world.take_over("bert")
    assert world.said == Split.of(V2)


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LOSE_REQUEST, Fault.STALL])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("number", [6, 7])
def test_a_run_that_tries_again_knows_what_it_did(world: World, fault: Fault, times: int, number: int) -> None:
    """Whether the ask or the record was lost, and for how long: the second try ends well, and nothing is twice."""
    log = world.process("anna", at_entry(number, fault, times=times))
    plan = Plan(after=Split.of(V2), before=Split.of(V1))
    closed = None
    while closed is None:
        with suppress(StoreUnreachable):
            closed = world.move("anna", plan, log=log)
    assert isinstance(closed.body, Seen)
    assert closed.body.split == world.said == world.served == Split.of(V2)
    while world.shelf.late:
        world.shelf.land()
    entries = list(world.log.entries())
    assert len({entry.writer.nonce for entry in entries}) == len(entries)
    applied = [entry for entry in entries if isinstance(entry.body, Seen) and entry.body.split == Split.of(V2)]
    assert len(applied) == 1


def test_busy_names_whoever_drives_now(world: World) -> None:
    with pytest.raises(Killed):
        world.move("anna", Plan(after=Split.of(V2)), killed_at_apply)
    with pytest.raises(Killed):
        world.take_over("bert", log=world.process("bert", at_entry(8, Fault.KILL_BEFORE, operation="get")))
    with pytest.raises(ServiceBusy, match=r"run bert.*log entry 7"):
        world.move("carl", Plan(after=Split.of(V3)))


def test_a_reassertion_supersedes_no_rollout(world: World) -> None:
    staged = world.move("anna", Plan(after=Split.of(V1, warm=[V2])))
    world.gateway.of("credit").ready[V2] = 0
    again = world.reassert("reconcile")
    assert again.rollout == staged.rollout
    plan = Plan(after=Split.of(V2, warm=[V1]), rollout=staged.rollout, before=Split.of(V1, warm=[V2]))
    assert world.move("anna", plan).rollout == staged.rollout


def test_a_later_rollout_supersedes_an_earlier_one(world: World) -> None:
    staged = world.move("anna", Plan(after=Split.of(V1, warm=[V2])))
    world.move("bert", Plan(after=Split.of(V3)))
    with pytest.raises(Superseded, match="run bert"):
        world.move("anna", Plan(after=Split.of(V2), rollout=staged.rollout))
    assert world.said == Split.of(V3)


def test_a_target_that_obeyed_another_log_is_told_apart_from_a_take_over(world: World) -> None:
    world.gateway.of("credit").fence = 500
    with pytest.raises(TakenOver, match="log entry 500 that this log does not have"):
        world.move("anna", Plan(after=Split.of(V2)))


def later(world: World, hours: int) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + hours * HOUR


def test_a_lease_says_when_to_look(world: World) -> None:
    """This very process lives on, so only time tells that the run may be taken over."""
    with pytest.raises(Killed):
        world.move("anna", Plan(after=Split.of(V2)), killed_at_apply)
    with pytest.raises(ServiceBusy):
        world.take_over("bert", at_once=False)
    log = world.process("bert")
    log.clock = later(world, 1)
    assert world.take_over("bert", at_once=False, log=log) is not None
    assert world.said == Split.of(V1)


def test_a_run_that_is_known_to_be_over_is_not_waited_for(world: World) -> None:
    with pytest.raises(Killed):
        world.move("anna", Plan(after=Split.of(V2)), killed_at_apply)
    log, plan = world.process("bert"), Plan(after=Split.of(V3))
    with pytest.raises(ServiceBusy, match="run anna"):
        move(world.place(log), log, "credit", plan, ended=lambda run: run.name != "anna")
    move(world.place(log), log, "credit", plan, ended=lambda run: run.name == "anna")
    assert world.said == world.served == Split.of(V3)
    assert "takeover" in world.kinds


def test_nothing_open_is_nothing_to_take_over(world: World) -> None:
    assert world.take_over("bert") is None
    assert world.kinds == ["asked", "observed"]


def test_the_policy_of_an_ask_is_in_the_store(world: World) -> None:
    entries = [entry for entry in world.log.entries() if isinstance(entry.body, Asked)]
    body = entries[-1].body
    assert isinstance(body, Asked)
    assert b'"settle_seconds":0' in world.log.store.get(body.policy)
