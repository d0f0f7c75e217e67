"""Putting back what answered before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from prefect import flow

from prefect_mlops.blocks import Entry, Environment
from prefect_mlops.flows._pages import release_page, served
from prefect_mlops.flows._reporting import publish, run_name, say, showing, shown_as, tag_run, tags
from prefect_mlops.tasks import shift_traffic
from prefect_mlops.tasks._moving import take_over
from prefect_mlops.tasks._showing import show_standing
from prefect_mlops.tasks._undoing import check_bytes, destination, kept_warm
from prefect_mlops.tasks.traffic import open_log


@flow(name="rollback-release", flow_run_name=run_name("rollback", "service"), persist_result=False)
def rollback_release(
    service: Annotated[str, shown_as("Service", "Name of the service, such as credit.")],
    to: Annotated[
        str,
        shown_as("To", "previous, a release such as credit-v1, or the id or name of the run that left it live."),
    ] = "previous",
    environment: Annotated[str, shown_as("Environment", "Name of the Environment block where it is served.")] = "local",
    reason: Annotated[str, shown_as("Reason", "Why, in your words; kept in the log.")] = "",
    actor: Annotated[str, shown_as("Your name", "Who wants this; the operating system's user if empty.")] = "",
) -> str:
    """Serve again what an earlier release or run left live, after checking every byte of it.

    Instant while that release is still warm; else its model servers are started first. A run that is in
    the middle of moving the service is taken over.

    Args:
        service: Name of the service.
        to: `previous`, a release, or a flow run by id or name.
        environment: Name of the Environment block where it is served.
        reason: Why, kept in the log.
        actor: Who wants this.

    Returns:
        What is then served, in words.

    Raises:
        NothingBefore: If nothing answered before.
        Invalid: If there is no such environment, service, release or run.
        ObjectMissing, ObjectDamaged: If not every byte of it is as it was recorded. Nothing was changed.
        SplitNotApplied: If it could not be served; what was served before is served again.
    """
    place = Environment.find(environment)
    tag_run(tags(environment, service, "rollback"))
    entry = roll_back(place, service, to, reason=reason, actor=actor)
    return _show(place, service, entry)


def roll_back(
    environment: Environment,
    service: str,
    to: str = "previous",
    *,
    reason: str = "",
    actor: str = "",
    shift: Callable[..., Entry] = shift_traffic,
) -> Entry:
    """What `rollback_release` does, as a part of a flow, or without Prefect.

    Args:
        environment: Where the service is.
        service: Name of the service.
        to: `previous`, a release, or a flow run by id or name.
        reason: Why, kept in the log.
        actor: Who wants this.
        shift: Moves the traffic: the task `shift_traffic`, or `shift_traffic.fn` while Prefect is down.

    Returns:
        The log entry that records what is then served.
    """
    log = open_log(environment, actor)
    live = destination(log.state().service(service), to)  # what was meant when it was said
    taken = take_over(environment, log, service, at_once=True, reason=reason or "rollback")
    if taken is not None:
        say(f"took over what entry {taken.closes} had asked for")
    known = log.state().service(service)
    check_bytes(environment, live)
    split = kept_warm(environment, service, known, live)
    before = known.split if to == "previous" else None  # what came before is relative to what answers now
    return shift(environment, service, split, move_kind="rollback", reason=reason, actor=actor, before=before)


def _show(environment: Environment, service: str, entry: Entry) -> str:
    """Show people what was done; the log has it already, so a failure here changes nothing."""
    said = f"{service}: log entry {entry.seq} says what answers"
    with showing("what answers again"):
        log = open_log(environment)
        state = log.state()
        known = state.service(service)
        live = [arm.release for arm in known.split.live]
        names = list(map(known.named, live))
        said = f"{service}: {', '.join(names) or 'nothing'} answers"
        say(f"rolled back: {served(known)}")
        tag_run(tags(environment.name, service, "rollback", names))
        with showing("in the registry, what is live"):
            show_standing(environment.registry_block, log, service)
        entries = [one for one in log.entries() if one.rollout == entry.rollout]
        for release, name in zip(live, names, strict=True):
            title = f"{name} is live again in {environment.name}"
            page = release_page(environment, state, service, release, entries, title)
            publish(f"release-{service}", page, title)
    return said
