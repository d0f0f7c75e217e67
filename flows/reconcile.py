"""Making what is served agree with what the log says, whoever died in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from prefect import flow

from prefect_mlops.blocks import Entry, Environment, ReleaseLog, Split
from prefect_mlops.blocks.entry import Asked
from prefect_mlops.blocks.errors import MlopsError, ServiceBusy, Superseded, TakenOver
from prefect_mlops.blocks.state import Service
from prefect_mlops.blocks.writer import moment
from prefect_mlops.flows._pages import in_words, table
from prefect_mlops.flows._reporting import publish, run_name, say, showing, shown_as, tag_run, tags
from prefect_mlops.tasks import shift_traffic
from prefect_mlops.tasks._moving import take_over
from prefect_mlops.tasks._showing import show_standing
from prefect_mlops.tasks.runs import has_ended
from prefect_mlops.tasks.traffic import open_log


@flow(name="reconcile-serving", flow_run_name=run_name("reconcile", "environment"), persist_result=False)
def reconcile_serving(
    environment: Annotated[str, shown_as("Environment", "Name of the Environment block to look after.")] = "local",
    at_once: Annotated[bool, shown_as("At once", "Also take over from runs that may still be alive.")] = False,
) -> dict[str, str]:
    """Finish what dead runs left open, serve what the log says, and end warm releases whose time is over.

    Safe at any time, and twice at once: whoever writes first does it, and the other leaves it alone.

    Args:
        environment: Name of the Environment block to look after.
        at_once: Whether to take over from runs that may still be alive.

    Returns:
        What was done for each service, in words.

    Raises:
        Invalid: If there is no such environment.
        SplitNotApplied: If a service could not be brought to a defined split.
    """
    place = Environment.find(environment)
    tag_run(tags(environment, "", "reconcile"))
    log = place.log()
    before = log.state().next
    done = reconcile(place, at_once=at_once)
    with showing("what was done"):
        written = log.state().next - before
        if written:  # it runs every few minutes, and a page each time would bury those that say something
            page = f"# {environment} was reconciled\n\n{table(('service', 'what was done'), done.items())}"
            publish(f"reconcile-{environment}", page, f"{environment} was reconciled, {written} log entries written")
            for service in done:
                show_standing(place.registry_block, log, service)
    return done


def reconcile(
    environment: Environment, *, at_once: bool = False, shift: Callable[..., Entry] = shift_traffic
) -> dict[str, str]:
    """What `reconcile_serving` does, as a part of a flow, or without Prefect (`shift=shift_traffic.fn`).

    Raises:
        SplitNotApplied: If a service could not be brought to a defined split; the others were looked after.
        TargetUnreachable: If the target cannot be mended.
    """
    log = open_log(environment)
    environment.target.mend()
    done: dict[str, str] = {}
    failed: list[MlopsError] = []
    for service in sorted({*log.state().services, *environment.target.services()}):
        try:
            done[service] = _reconciled(environment, log, service, at_once, shift)
        except (ServiceBusy, Superseded, TakenOver) as other:
            done[service] = f"left alone: {other}"
        except MlopsError as error:
            done[service] = f"failed: {error}"
            failed.append(error)
        say(f"{service}: {done[service]}")
    if failed:
        raise failed[0]
    return done


def _reconciled(
    environment: Environment, log: ReleaseLog, service: str, at_once: bool, shift: Callable[..., Entry]
) -> str:
    said: list[str] = []
    taken = take_over(environment, log, service, reason="reconcile", at_once=at_once, ended=has_ended)
    if taken is not None:
        now = log.state().service(service)
        said.append(f"finished what entry {taken.closes} had asked for: {in_words(now, now.split)} is served")
    known = log.state().service(service)
    if service not in log.state().services:
        return "served, but not known to the log; nothing was changed"
    wanted = _still_warm(known)
    seen = environment.target.observe(service)
    if wanted != known.split:
        shift(environment, service, wanted, reason="warm time is over", before=known.split)
        said.append(f"warm time is over: {in_words(known, wanted)} is served")
    elif not seen.shows(wanted):
        shift(environment, service, wanted, move_kind="reassert", reason=f"served was {seen}", before=known.split)
        said.append(f"served was {seen}, now again {in_words(known, wanted)}")
    return "; ".join(said) or f"as it should be: {in_words(known, wanted)}"


def _still_warm(known: Service) -> Split:
    """The split without warm arms whose time is over."""
    asked = known.changes[-1].asked.body if known.changes else None
    until = asked.warm_until if isinstance(asked, Asked) else None
    if until is None or until > moment(datetime.now(UTC)):
        return known.split
    return Split(arms=tuple(arm for arm in known.split.arms if arm.role != "warm"))
