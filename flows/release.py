"""Releasing a model: from data to traffic, one flow run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from prefect import flow
from pydantic import TypeAdapter, ValidationError

from prefect_mlops.blocks import Digest, Environment, Recipe
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.flows._candidate import made_of, waived
from prefect_mlops.flows._reporting import run_name, say, shown_as, tag_run, tags
from prefect_mlops.flows._rollout import APPROVAL_SECONDS, Rollout
from prefect_mlops.tasks import register_model, snapshot_data
from prefect_mlops.tasks.traffic import open_log

Strategy = Literal["blue-green", "shadow"]

_DIGEST = TypeAdapter(Digest)

STRATEGIES = shown_as(
    "Strategy",
    "How traffic moves: blue-green switches all of it at once; shadow first compares its answers to copies.",
    enum=list(get_args(Strategy)),
)


@flow(name="release-model", flow_run_name=run_name("release", "recipe"), persist_result=False)
def release_model(
    recipe: Annotated[Recipe, shown_as("Model recipe", "What to train and serve.")],
    data: Annotated[
        Path,
        shown_as(
            "Data",
            "CSV or Parquet file to train on, on the machine where the run is, with the target; or the id of a commit.",
        ),
    ],
    environment: Annotated[str, shown_as("Environment", "Name of the Environment block to release to.")] = "local",
    strategy: Annotated[Strategy, STRATEGIES] = "blue-green",
    approval: Annotated[
        bool,
        shown_as("Ask for approval", "Wait for a person before traffic moves; a policy may insist."),
    ] = False,
    waiver: Annotated[
        bool,
        shown_as("Ask for a waiver", "Where model tests do not pass, wait for a person to waive them or to decline."),
    ] = False,
    reason: Annotated[str, shown_as("Reason", "Why, in your words; kept in the log.")] = "",
    actor: Annotated[str, shown_as("Your name", "Who wants this; the operating system's user if empty.")] = "",
) -> str:
    """Validate data, train a model on it, test it, register it, and put it live beside what was live before.

    A model is registered only when its tests passed, or a person waived them. Traffic moves only when the new
    release answers its golden probes as it did in training, agrees with what is live where it was its shadow, and,
    where asked for, a person approved. The old release stays warm, so that `rollback_release` is instant.

    Args:
        recipe: What to train and serve.
        data: CSV or Parquet file to train on, with the recipe's target column; or the id of a commit in the store,
            which a run finds wherever it is.
        environment: Name of the Environment block to release to.
        strategy: How traffic moves.
        approval: Whether to wait for a person before traffic moves.
        waiver: Whether to wait for a person where model tests do not pass; else they stop it.
        reason: Why, kept in the log.
        actor: Who wants this.

    Returns:
        The digest of the release document.

    Raises:
        Invalid: If data or recipe are not what they must be. Nothing was changed.
        DataRefused: If the data does not meet the recipe's expectations. Nothing was trained.
        TestsNotPassed: If the model was stopped by its tests. Nothing was registered.
        GateNotPassed: If a gate stopped it; what was served before is served again.
        ServiceBusy, Superseded: If somebody else is moving the service.
        SplitNotApplied: If the target did not serve it; what was before is served again.
    """
    place = Environment.find(environment)
    tag_run(tags(environment, recipe.name, "release"))
    commit = _commit(place, recipe, data, reason, actor)
    return release_commit(place, recipe, commit, strategy, approval=approval, waiver=waiver, reason=reason, actor=actor)


def _is_digest(data: str) -> bool:
    try:
        _DIGEST.validate_python(data)
    except ValidationError:
        return False
    return True


def _commit(environment: Environment, recipe: Recipe, data: Path, reason: str, actor: str) -> str:
    """The id of the commit of data that is one already, or is kept now."""
    if _is_digest(str(data)):
        known = environment.store_block.commit_at(str(data))
        say(f"commit {known.id}: {known.source or 'of no named source'}")
        return known.id
    commit = snapshot_data(environment.store_block, data, recipe.name, message=reason, actor=actor)
    rows = "" if commit.rows is None else f"{commit.rows:,} rows, "
    say(f"{data.name}: {rows}kept as commit {commit.id} of branch {recipe.name}")
    return commit.id


def release_commit(
    environment: Environment,
    recipe: Recipe,
    commit: str,
    strategy: Strategy = "blue-green",
    *,
    approval: bool = False,
    waiver: bool = False,
    reason: str = "",
    actor: str = "",
) -> str:
    """Validate a commit, train on it, test the model, register it and put it live; part of a flow.

    Raises:
        DataRefused, TestsNotPassed, GateNotPassed: If something stopped it.
        Invalid, ServiceBusy, Superseded, SplitNotApplied: As for `release_model`.
    """
    store = environment.store_block
    made = made_of(environment, recipe, commit)
    if made.tested is None:
        assert made.champion is not None
        live = Rollout(environment, open_log(environment, actor), recipe.name, made.champion, reason, actor)
        roll_out(live)
        return made.champion
    answer = waived(environment, made.tested) if waiver and made.tested.not_passed else None
    candidate = made.tested.candidate if answer else made.tested.need_passed()
    release = store.put_release(candidate.release())
    rollout = Rollout(environment, open_log(environment, actor), recipe.name, release, reason, actor, made.commit)
    rollout.begin()
    if (data := made.judged(release)) is not None:
        rollout.write(data)
    if answer:
        rollout.waive([verdict.test for verdict in made.tested.not_passed], candidate.tests, answer)
    register_model(store, environment.registry_block, candidate)
    roll_out(rollout, strategy, approval=approval)
    return release


def roll_out(rollout: Rollout, strategy: Strategy = "blue-green", *, approval: bool = False) -> None:
    """Put a registered release live; part of a flow.

    Raises:
        Invalid: If it shall be the shadow of several releases. Nothing was moved.
        GateNotPassed: If a gate stopped it; what was served before is served again.
        ServiceBusy, Superseded, SplitNotApplied: As for `shift_traffic`.
    """
    environment, service, name = rollout.environment, rollout.service, rollout.name
    tag_run(tags(environment.name, service, "release", [name]))
    say(f"this is {name}, release {rollout.release}")
    if [arm.release for arm in rollout.known.split.live] == [rollout.release]:
        say(f"{name} is live already")
        rollout.resume()
        rollout.show()
        return
    live = [rollout.known.named(arm.release) for arm in rollout.known.split.live]
    if strategy == "shadow" and len(live) > 1:
        advice = "give one of them all requests first, or release blue-green"
        raise Invalid("a shadow", "is compared with the one release that answers", ", ".join(live), advice)
    asks = approval or environment.approval
    rollout.stage(APPROVAL_SECONDS + environment.warm_minutes * 60 if asks else None)
    if strategy == "shadow" and live:
        rollout.shadow()
    if asks:
        rollout.await_approval()
    rollout.switch()
    rollout.show()
