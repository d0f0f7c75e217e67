"""The write-ahead protocol of a change of traffic: ask, act, look, compare, record.

Free of Prefect, so that a rollback and a repair work while Prefect is down.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from prefect_mlops.blocks._canonical import digest
from prefect_mlops.blocks.entry import Asked, Entry, Move, Run, Seen, Takeover, Time, Verdict
from prefect_mlops.blocks.environment import Environment
from prefect_mlops.blocks.errors import (
    FenceTooLow,
    MlopsError,
    ObjectDamaged,
    ServiceBusy,
    ServingError,
    SplitNotApplied,
    Superseded,
    TakenOver,
    TargetRefused,
)
from prefect_mlops.blocks.log import Draft, ReleaseLog
from prefect_mlops.blocks.split import Observed, Split
from prefect_mlops.blocks.state import Service, State
from prefect_mlops.blocks.writer import is_gone, moment, own_mark

logger = logging.getLogger("prefect_mlops")

_MOVES: dict[Move, Move] = {"reassert": "advance"}
"""What a move becomes when not all that it wants can be had."""


@dataclass(frozen=True)
class Plan:
    """A change of traffic that somebody wants.

    Attributes:
        after: What shall be served.
        move: Why: onwards, back, or once more the same.
        reason: In a person's words.
        rollout: Number of the entry that the rollout began with; None begins one.
        before: What must be served for the plan to make sense; None for whatever it is.
        warm_until: When its warm arms may go.
    """

    after: Split
    move: Move = "advance"
    reason: str = ""
    rollout: int | None = None
    before: Split | None = None
    warm_until: datetime | None = None
    evidence: tuple[str, ...] = ()


def move(
    environment: Environment,
    log: ReleaseLog,
    service: str,
    plan: Plan,
    *,
    ended: Callable[[Run], bool] = lambda _: False,
) -> Entry:
    """Carry out `plan` and return the entry that records what is then served.

    What a dead run left open is finished first.

    Args:
        environment: Where the service is.
        log: Its log, written on behalf of whoever wants the change.
        service: Name of the service.
        plan: What is wanted.
        ended: Whether another run is known to be over, a hint.

    Raises:
        TargetRefused: If the target cannot do it. Nothing was changed or written.
        ServiceBusy: If another run has the service in its hands. Nothing was changed or written.
        Superseded: If a later rollout moved the service, or it serves something else than planned for.
        SplitNotApplied: If the target did not serve it; what was before is served again.
        TakenOver: If somebody else carried on meanwhile.
    """
    if reasons := environment.target.refusals(service, plan.after, environment.store_block):
        raise TargetRefused(environment.serving, service, tuple(reasons))
    plan = _tenable(environment, service, plan)
    mine = _is_mine(log, log.state().service(service).driver)
    reason = "the same run tries again" if mine else "its run is dead"
    take_over(environment, log, service, reason=reason, at_once=mine, ended=ended)
    policy = _kept_policy(environment)
    deadline = _deadline(environment, log)
    done: list[Entry] = []

    def ask(state: State) -> Draft | None:
        known = state.service(service)
        _refuse_open(known)
        done[:] = _done_before(log, known, plan)
        if done:
            return None
        _refuse_superseded(state, known, plan)
        body = Asked(
            before=known.split,
            after=plan.after,
            move=plan.move,
            policy=policy,
            evidence=plan.evidence,
            deadline=deadline,
            warm_until=moment(plan.warm_until) if plan.warm_until else None,
        )
        rollout = known.rollout if plan.move == "reassert" and known.rollout >= 0 else plan.rollout
        return Draft(body, (service,), rollout=rollout, begins=rollout is None, reason=plan.reason)

    asked = log.append(ask)
    return done[0] if asked is None else _carry_out(environment, log, service, asked, fence=asked.seq)


def _tenable(environment: Environment, service: str, plan: Plan) -> Plan:
    """The plan without warm arms that would keep it from being served; what answers goes before what waits."""
    after = environment.target.tenable(service, plan.after)
    for arm in set(plan.after.arms) - set(after.arms):
        logger.warning("%s: %s does not come up, so it is dropped: it would hold up all others", service, arm)
    return plan if after == plan.after else replace(plan, after=after, move=_MOVES.get(plan.move, plan.move))


def _kept_policy(environment: Environment) -> str:
    """The digest of the rules that hold now; an old damaged copy of them stops no rollback, `verify` names it."""
    rules = environment.policy.canonical()
    try:
        return environment.store_block.put(rules)
    except ObjectDamaged as error:
        logger.warning("%s", error)
        return digest(rules)


def _is_mine(log: ReleaseLog, entry: Entry | None) -> bool:
    """Whether this very run wrote `entry`, when the store or the target stopped answering it."""
    return entry is not None and entry.run == log.run and entry.writer.process == own_mark()


def _done_before(log: ReleaseLog, known: Service, plan: Plan) -> list[Entry]:
    """What records that this very run has just carried out `plan`, if the answer to that was lost."""
    last = known.changes[-1] if known.changes else None
    if last is None or last.verdict != "applied" or plan.before is None or not _is_mine(log, last.asked):
        return []
    body, rollout = last.asked.body, last.asked.rollout
    assert isinstance(body, Asked)
    same = (body.before, body.after, body.move) == (plan.before, plan.after, plan.move)
    return [last.closed] if same and plan.rollout in (None, rollout) and body.before != body.after else []


def _refuse_open(known: Service) -> None:
    driver = known.driver
    if known.asked is not None and driver is not None and isinstance(driver.body, (Asked, Takeover)):
        raise ServiceBusy(known.name, driver.seq, who(driver), driver.body.deadline)


def _refuse_superseded(state: State, known: Service, plan: Plan) -> None:
    later = plan.rollout is not None and known.rollout > plan.rollout
    if later or (plan.before is not None and plan.before != known.split):
        last = known.changes[-1].asked if known.changes else state.genesis
        raise Superseded(known.name, str(plan.after), str(known.split), who(last) if last else "nobody")


def _carry_out(environment: Environment, log: ReleaseLog, service: str, asked: Entry, *, fence: int) -> Entry:
    body = asked.body
    assert isinstance(body, Asked)
    try:
        seen = _serve(environment, service, body.after, fence)
        why = f"{environment.serving} accepted it and then served something else"
    except FenceTooLow as error:
        raise _taken_over(log, asked, error) from error
    except MlopsError as error:
        seen, why = None, str(error)
    if seen is not None and seen.shows(body.after):
        return _record(log, service, asked, fence, seen, "applied")
    _undo(environment, log, service, asked, fence, why)
    raise SplitNotApplied(service, str(body.after), str(body.before), why)


def _undo(environment: Environment, log: ReleaseLog, service: str, asked: Entry, fence: int, why: str) -> None:
    body = asked.body
    assert isinstance(body, Asked)
    logger.warning("%s: going back to %s: %s", service, body.before, why)
    try:
        seen = _serve(environment, service, body.before, fence)
    except FenceTooLow as error:
        raise _taken_over(log, asked, error) from error
    except MlopsError as error:
        _record(log, service, asked, fence, None, "unknown", f"{why}; then: {error}")
        raise SplitNotApplied(service, str(body.after), "something unknown", f"{why}; then: {error}") from error
    if not seen.serves(body.before):
        _record(log, service, asked, fence, seen, "unknown", why)
        raise SplitNotApplied(service, str(body.after), str(seen), why)
    _record(log, service, asked, fence, seen, "undone", why)


def _serve(environment: Environment, service: str, split: Split, fence: int) -> Observed:
    """Apply, then look until what is served is what was applied, for a few seconds at most."""
    environment.target.apply(service, split, fence=fence, store=environment.store_block)
    end = time.monotonic() + environment.settle_seconds
    while True:
        seen = environment.target.observe(service)
        if seen.shows(split) or time.monotonic() >= end:
            return seen
        time.sleep(0.05)


def _record(
    log: ReleaseLog,
    service: str,
    asked: Entry,
    fence: int,
    seen: Observed | None,
    verdict: Verdict,
    detail: str = "",
) -> Entry:
    body = Seen(
        split=seen.routes if seen else None,
        ready=seen.ready if seen else {},
        fence=fence,
        verdict=verdict,
        detail=detail[:2000],
    )

    def record(state: State) -> Draft:
        known = state.service(service)
        if known.asked is None or known.asked.seq != asked.seq or known.fence != fence:
            by = who(state.head) if state.head else "somebody"
            raise TakenOver(service, asked.seq, by)
        return Draft(
            body,
            (service,),
            rollout=asked.rollout,
            closes=None if verdict == "unknown" else asked.seq,
            reason=asked.reason,
        )

    entry = log.append(record)
    assert entry is not None
    return entry


def take_over(
    environment: Environment,
    log: ReleaseLog,
    service: str,
    *,
    reason: str,
    at_once: bool = False,
    ended: Callable[[Run], bool] = lambda _: False,
) -> Entry | None:
    """Finish what another run left open, and return the entry that records it; None if nothing was.

    What it asked for is kept if it is served already, and for a rollback in any case; else what
    was served before is served again. Safe however alive the other run is: from this run's entry
    on, the target refuses it.

    Args:
        environment: Where the service is.
        log: Its log, written on behalf of whoever takes over.
        service: Name of the service.
        reason: Why, kept in the log.
        at_once: Also take over from a run that may well be alive.
        ended: Whether another run is known to be over, a hint.

    Raises:
        ServiceBusy: If that run may be alive and `at_once` is not set.
        TakenOver: If yet another run took over meanwhile.
        SplitNotApplied: If neither can be served.
    """
    deadline = _deadline(environment, log)

    def take(state: State) -> Draft | None:
        known = state.service(service)
        if known.asked is None:
            return None
        if not at_once and _may_live(log, known, ended):
            _refuse_open(known)
        body = Takeover(of=known.asked.seq, deadline=deadline)
        return Draft(body, (service,), rollout=known.asked.rollout, reason=reason)

    taken = log.append(take)
    if taken is None or not isinstance(taken.body, Takeover):
        return None
    asked = log.state().service(service).asked
    if asked is None or asked.seq != taken.body.of:
        return None
    return _finish(environment, log, service, asked, fence=taken.seq)


def _finish(environment: Environment, log: ReleaseLog, service: str, asked: Entry, *, fence: int) -> Entry:
    body = asked.body
    assert isinstance(body, Asked)
    if body.move == "rollback" or _is_served(environment, service, body.after):
        try:
            return _carry_out(environment, log, service, asked, fence=fence)
        except SplitNotApplied:
            return _closed_by(log, service, asked)
    _undo(environment, log, service, asked, fence, "its run ended before it was done")
    return _closed_by(log, service, asked)


def _closed_by(log: ReleaseLog, service: str, asked: Entry) -> Entry:
    change = next((change for change in log.state().service(service).changes if change.asked.seq == asked.seq), None)
    if change is None:
        raise SplitNotApplied(service, "the split before", "something unknown", "neither split could be served")
    return change.closed


def _is_served(environment: Environment, service: str, split: Split) -> bool:
    try:
        return environment.target.observe(service).shows(split)
    except ServingError:
        return False


def _may_live(log: ReleaseLog, known: Service, ended: Callable[[Run], bool]) -> bool:
    """Whether whoever drives the service may still be at it: a hint when to look, safety never rests on it."""
    driver = known.driver
    if driver is None or not isinstance(driver.body, (Asked, Takeover)):
        return False
    if is_gone(driver.writer) or driver.body.deadline <= moment(log.clock()):
        return False
    return driver.run is None or not ended(driver.run)


def _deadline(environment: Environment, log: ReleaseLog) -> Time:
    return moment(log.clock() + timedelta(seconds=environment.lease_seconds))


def _taken_over(log: ReleaseLog, asked: Entry, error: FenceTooLow) -> TakenOver:
    """Say who drives the service now, or that nobody whom this log knows does."""
    by, head = f"log entry {error.highest}", log.state().head
    if head is None or head.seq < error.highest:
        by += " that this log does not have (its end is gone, or the target obeyed another log; `verify` tells)"
    return TakenOver(asked.service, asked.seq, by)


def reassert(environment: Environment, log: ReleaseLog, service: str, reason: str) -> Entry:
    """Make the target serve what the log says it serves, once more."""
    split = log.begun().service(service).split
    return move(environment, log, service, Plan(after=split, before=split, move="reassert", reason=reason))


def who(entry: Entry) -> str:
    """Who wrote an entry, as people say it."""
    return f"run {entry.run.name}, by {entry.actor.name}" if entry.run else entry.actor.name
