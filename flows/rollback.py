"""Putting back what answered before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from prefect import flow
from pydantic import Field

from prefect_mlops.blocks import Entry, Environment
from prefect_mlops.flows._reporting import publish, release_page, run_name, say, tag_run, tags
from prefect_mlops.tasks import shift_traffic
from prefect_mlops.tasks._moving import take_over
from prefect_mlops.tasks._undoing import check_bytes, destination, kept_warm
from prefect_mlops.tasks.traffic import open_log


@flow(name="rollback-release", flow_run_name=run_name("rollback", "service"), persist_result=False)
def rollback_release(
    service: Annotated[str, Field(title="Service", description="Name of the service, such as credit.")],
    to: Annotated[
        str,
        Field(
            title="To",
            description="previous, a release such as credit-v1, or the id or name of the run that left it live.",
        ),
    ] = "previous",
    environment: Annotated[
        str, Field(title="Environment", description="Name of the Environment block where it is served.")
    ] = "local",
    reason: Annotated[str, Field(title="Reason", description="Why, in your words; kept in the log.")] = "",
    actor: Annotated[
        str, Field(title="Your name", description="Who wants this; the operating system's user if empty.")
    ] = "",
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
    return shift(environment, service, split, move_kind="rollback", reason=reason, actor=actor)


def _show(environment: Environment, service: str, entry: Entry) -> str:
    """Show people what was done; the log has it already, so a failure here changes nothing."""
    log = open_log(environment)
    state = log.state()
    known = state.service(service)
    live = [arm.release for arm in known.split.live]
    names = ", ".join(map(known.named, live))
    tag_run([*tags(environment.name, service, "rollback"), *(f"release:{known.named(one)}" for one in live)])
    for release in live:
        try:
            environment.registry_block.mark(
                service, release, "champion", {"name": known.named(release), "entry": str(entry.seq)}
            )
        except Exception as error:  # noqa: BLE001 - the registry is for people; the release is live whatever it says
            say(f"the registry could not be told that {names} is live again: {error}")
        entries = [one for one in log.entries() if one.rollout == entry.rollout]
        page = release_page(environment, state, service, release, entries)
        publish(f"release-{service}", page, f"rolled back to {names} in {environment.name}")
    return f"{service}: {names} answers"
