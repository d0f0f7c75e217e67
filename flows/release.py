"""Releasing a model: from data to traffic, one flow run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from prefect_mlops.blocks import Actor, Environment, Recipe, ReleaseLog, Split
from prefect_mlops.blocks._canonical import canonical
from prefect_mlops.blocks.entry import Approval, Judged, Released
from prefect_mlops.blocks.errors import GateNotPassed
from prefect_mlops.blocks.log import Draft
from prefect_mlops.blocks.state import State
from prefect_mlops.flows._reporting import publish, release_page, say, tag_run, tags
from prefect_mlops.tasks import (
    probe_release,
    register_model,
    shift_traffic,
    snapshot_data,
    train_model,
    watch_release,
)
from prefect_mlops.tasks.traffic import open_log

APPROVAL_SECONDS = 24 * 3600


class Decision(RunInput):
    """What a person answers when a release waits for approval."""

    decision: Literal["approve", "decline"] = Field(title="Decision", description="Whether it may go live.")
    name: str = Field(min_length=1, max_length=200, title="Your name", description="Recorded as the approver.")
    reason: str = Field(default="", max_length=2000, title="Reason", description="Recorded beside the decision.")


@flow(name="release-model", flow_run_name="release {recipe.name} to {environment}", persist_result=False)
def release_model(
    recipe: Annotated[Recipe, Field(title="Recipe", description="What to train and serve.")],
    data: Annotated[Path, Field(title="Data", description="CSV or Parquet file to train on.")],
    environment: Annotated[
        str, Field(title="Environment", description="Name of the Environment block to release to.")
    ] = "local",
    strategy: Annotated[
        Literal["blue-green"],
        Field(title="Strategy", description="How traffic moves: blue-green switches all of it at once."),
    ] = "blue-green",
    approval: Annotated[
        bool,
        Field(
            title="Ask for approval", description="Wait for a person before traffic moves; the environment may insist."
        ),
    ] = False,
    reason: Annotated[str, Field(title="Reason", description="Why, in your words; kept in the log.")] = "",
    actor: Annotated[
        str, Field(title="Your name", description="Who wants this; the operating system's user if empty.")
    ] = "",
) -> str:
    """Train a model, register it, and put it live: start it beside the old one, probe it, switch, watch.

    Traffic moves only when the new release answers its golden probes as it did in training, and, where
    asked for, a person approved. The old release stays warm, so that `rollback_release` is instant.

    Args:
        recipe: What to train and serve.
        data: CSV or Parquet file to train on, with the recipe's target column.
        environment: Name of the Environment block to release to.
        strategy: How traffic moves.
        approval: Whether to wait for a person before traffic moves.
        reason: Why, kept in the log.
        actor: Who wants this.

    Returns:
        The digest of the release document.

    Raises:
        Invalid: If data or recipe are not what they must be. Nothing was changed.
        GateNotPassed: If a gate stopped it; what was served before is served again.
        ServiceBusy, Superseded: If somebody else is moving the service.
        SplitNotApplied: If the target did not serve it; what was before is served again.
    """
    place = Environment.find(environment)
    tag_run(f"release {recipe.name} to {environment}", tags(environment, recipe.name, "release"))
    snapshot = snapshot_data(place.store_block, data)
    say(f"data {snapshot}")
    candidate = train_model(place.store_block, recipe, snapshot)
    say("trained: " + ", ".join(f"{name} {value:.4f}" for name, value in candidate.metrics.items()))
    release = register_model(place.store_block, place.registry_block, recipe, candidate)
    roll_out(place, recipe.name, release, approval=approval, reason=reason, actor=actor)
    return release


def roll_out(
    environment: Environment, service: str, release: str, *, approval: bool = False, reason: str = "", actor: str = ""
) -> None:
    """Put a registered release live, blue/green; part of a flow.

    Raises:
        GateNotPassed: If a gate stopped it; what was served before is served again.
        ServiceBusy, Superseded, SplitNotApplied: As for `shift_traffic`.
    """
    log = open_log(environment, actor)
    rollout = _number(log, service, release, reason)
    known = log.state().service(service)
    name, before = known.named(release), known.split
    tag_run(
        f"release {name} to {environment.name}",
        [*tags(environment.name, service, "release"), f"release:{name}", release],
    )
    if [arm.release for arm in before.live] == [release]:
        say(f"{name} is live already; nothing to do")
        return
    rollout = _stage(environment, log, service, release, rollout, reason, actor)
    if approval or environment.approval:
        _await_approval(environment, log, service, release, rollout, actor)
    _switch(environment, log, service, release, rollout, reason, actor)
    _show(environment, log, service, release, rollout)


def _number(log: ReleaseLog, service: str, release: str, reason: str) -> int | None:
    """Give the release its number, and return the rollout that began with that; None if it has one already."""

    def draft(state: State) -> Draft | None:
        known = state.service(service)
        if release in known.numbers:
            return None
        return Draft(Released(release=release, number=len(known.numbers) + 1), (service,), begins=True, reason=reason)

    entry = log.append(draft)
    return entry.seq if entry else None


def _stage(
    environment: Environment, log: ReleaseLog, service: str, release: str, rollout: int | None, reason: str, actor: str
) -> int:
    """Start green beside blue and probe it; on failure what was before is served again."""
    before = log.state().service(service).split
    arms = [arm for arm in before.arms if arm.release != release]
    staged = Split.model_validate({"arms": [*arms, {"release": release, "role": "warm", "percent": 0}]})
    if environment.target.refusals(service, staged):
        staged = Split.of(release)
    entry = shift_traffic(environment, service, staged, reason=reason, actor=actor, rollout=rollout, before=before)
    assert entry.rollout is not None
    _judge(environment, log, service, probe_release(environment, service, release), entry.rollout, actor)
    return entry.rollout


def _switch(
    environment: Environment, log: ReleaseLog, service: str, release: str, rollout: int, reason: str, actor: str
) -> None:
    before = log.state().service(service).split
    blue = [arm.release for arm in before.live if arm.release != release]
    after = Split.of(release, warm=blue)
    shift_traffic(environment, service, after, reason=reason, actor=actor, rollout=rollout, before=before)
    front = probe_release(environment, service, release, pinned=False)
    _judge(environment, log, service, front, rollout, actor)
    if environment.watch_seconds:
        watched = watch_release(environment, service, release)
        if watched.outcome == "could not be measured":
            say(f"live answers could not be measured ({watched.detail}); the probes at the front door passed")
            _write(log, service, watched, rollout)
        else:
            _judge(environment, log, service, watched, rollout, actor)


def _judge(environment: Environment, log: ReleaseLog, service: str, judged: Judged, rollout: int, actor: str) -> None:
    """Write a verdict down; where it is not `passed`, put back what was before the rollout and stop."""
    _write(log, service, judged, rollout)
    name = log.state().service(service).named(judged.release)
    say(f"{name}, {judged.gate}: {judged.outcome} ({judged.detail})")
    if judged.outcome != "passed":
        _stop(environment, log, service, judged.release, rollout, f"{judged.gate}: {judged.outcome}", actor)
        raise GateNotPassed(name, judged.gate, judged.outcome, judged.detail)


def _stop(
    environment: Environment, log: ReleaseLog, service: str, release: str, rollout: int, reason: str, actor: str
) -> None:
    """Serve what answered before the rollout, without the release that was stopped."""
    before = log.state().service(service).before(rollout)
    back = Split(arms=tuple(arm for arm in before.arms if arm.release != release))
    shift_traffic(environment, service, back, move_kind="rollback", reason=reason, actor=actor, rollout=rollout)


def _write(log: ReleaseLog, service: str, judged: Judged, rollout: int) -> None:
    log.append(lambda _: Draft(judged, (service,), rollout=rollout))


def _await_approval(
    environment: Environment, log: ReleaseLog, service: str, release: str, rollout: int, actor: str
) -> None:
    """Ask a person, with what there is to see; nothing is open in the log meanwhile."""
    state = log.state()
    known = state.service(service)
    name = known.named(release)
    entries = [entry for entry in log.entries() if entry.rollout == rollout]
    page = release_page(environment, state, service, release, entries)
    shown = environment.store_block.put(canonical({"format": 1, "page": page}))
    question = f"## May {name} go live in {environment.name}?\n\n{page}"
    answer = pause_flow_run(wait_for_input=Decision.with_initial_data(description=question), timeout=APPROVAL_SECONDS)
    verdict = "approved" if answer.decision == "approve" else "declined"
    log.actor, mine = Actor(name=answer.name, assurance="claimed"), log.actor
    body = Approval(release=release, decision=verdict, shown=shown)
    log.append(lambda _: Draft(body, (service,), rollout=rollout, reason=answer.reason))
    log.actor = mine
    if verdict == "declined":
        stop = f"declined by {answer.name}"
        _stop(environment, log, service, release, rollout, stop, actor)
        raise GateNotPassed(name, "approval", "failed", f"{stop}: {answer.reason or 'no reason given'}")


def _show(environment: Environment, log: ReleaseLog, service: str, release: str, rollout: int) -> None:
    """Show people what was done; the log has it already, so a failure here changes nothing."""
    state = log.state()
    name = state.service(service).named(release)
    entries = [entry for entry in log.entries() if entry.rollout == rollout]
    try:
        environment.registry_block.mark(service, release, "champion", {"name": name, "entry": str(entries[-1].seq)})
    except Exception as error:  # noqa: BLE001 - the registry is for people; the release is live whatever it says
        say(f"the registry could not be told that {name} is live: {error}")
    page = release_page(environment, state, service, release, entries)
    publish(f"release-{service}", page, f"{name}, live in {environment.name}")
