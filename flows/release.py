"""Releasing a model: from data to traffic, one flow run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from prefect import flow

from prefect_mlops.blocks import Environment, Recipe
from prefect_mlops.flows._reporting import run_name, say, shown_as, tag_run, tags
from prefect_mlops.flows._rollout import APPROVAL_SECONDS, Rollout
from prefect_mlops.tasks import register_model, snapshot_data, train_model
from prefect_mlops.tasks.traffic import open_log


@flow(name="release-model", flow_run_name=run_name("release", "recipe"), persist_result=False)
def release_model(
    recipe: Annotated[Recipe, shown_as("Model recipe", "What to train and serve.")],
    data: Annotated[
        Path, shown_as("Data", "CSV or Parquet file to train on, on the machine where the run is; with the target.")
    ],
    environment: Annotated[str, shown_as("Environment", "Name of the Environment block to release to.")] = "local",
    strategy: Annotated[
        Literal["blue-green"],
        shown_as("Strategy", "How traffic moves: blue-green switches all of it at once.", enum=["blue-green"]),
    ] = "blue-green",
    approval: Annotated[
        bool,
        shown_as("Ask for approval", "Wait for a person before traffic moves; a policy may insist."),
    ] = False,
    reason: Annotated[str, shown_as("Reason", "Why, in your words; kept in the log.")] = "",
    actor: Annotated[str, shown_as("Your name", "Who wants this; the operating system's user if empty.")] = "",
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
    tag_run(tags(environment, recipe.name, "release"))
    snapshot = snapshot_data(place.store_block, data)
    size = sum(file.size for file in place.store_block.snapshot(snapshot).files)
    say(f"{data.name}: {size:,} bytes, kept as {snapshot}; training {recipe.name} on it with {recipe.train}")
    candidate = train_model(place.store_block, recipe, snapshot)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in candidate.metrics.items())
    say(f"trained on {candidate.rows:,} rows, {recipe.holdout_percent} % of them held out: {figures}; registering it")
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
    rollout = Rollout(environment, open_log(environment, actor), service, release, reason, actor)
    rollout.begin()
    name = rollout.name
    tag_run(tags(environment.name, service, "release", [name]))
    say(f"this is {name}, release {release}")
    if [arm.release for arm in rollout.known.split.live] == [release]:
        say(f"{name} is live already; nothing to do")
        return
    asks = approval or environment.approval
    rollout.stage(APPROVAL_SECONDS + environment.warm_minutes * 60 if asks else None)
    if asks:
        rollout.await_approval()
    rollout.switch()
    rollout.show()
