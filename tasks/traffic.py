"""Moving traffic: the one task that does it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from prefect_mlops.blocks.entry import Actor, Entry
from prefect_mlops.blocks.environment import Environment
from prefect_mlops.blocks.errors import is_transient
from prefect_mlops.blocks.log import ReleaseLog
from prefect_mlops.blocks.split import Split
from prefect_mlops.tasks._moving import Plan, move
from prefect_mlops.tasks.runs import current_run, has_ended


def open_log(environment: Environment, actor: str = "") -> ReleaseLog:
    """The log of `environment`, written on behalf of the current flow run.

    Args:
        actor: Name that the person who started the run gave; the operating system's user if empty.
    """
    claimed = Actor(name=actor, assurance="claimed") if actor else None
    return environment.log(run=current_run(), actor=claimed)


@task(
    name="shift-traffic",
    task_run_name="shift {service} to {split}",
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=1,
    retry_condition_fn=is_transient,
)
def shift_traffic(
    environment: Environment,
    service: str,
    split: Split,
    *,
    move_kind: Literal["advance", "rollback", "reassert"] = "advance",
    reason: str = "",
    actor: str = "",
    rollout: int | None = None,
    before: Split | None = None,
    warm_seconds: int | None = None,
) -> Entry:
    """Make `service` serve `split`, look at what it really serves, and record that.

    The only way to move traffic. What is asked for is written to the log before anything moves, and
    what was then observed after it; a split that is not served as asked is undone.

    Args:
        environment: Where the service is.
        service: Name of the service, a DNS label of at most 30 characters.
        split: What it shall serve; each release in it must have been released before.
        move_kind: `rollback` says that a run that dies in it is carried forward, not undone.
        reason: Why, in a person's words; kept in the log.
        actor: Name of the person who wants it; the operating system's user if empty.
        rollout: Number of the log entry that this rollout began with; None begins one.
        before: What it must be serving now for the change to make sense; None for whatever it is.
        warm_seconds: When its warm arms may go, in seconds from now; the environment's `warm_minutes` if None.

    Returns:
        The log entry that records what is served.

    Raises:
        TargetRefused: If the target cannot do it. Nothing was changed or written.
        ServiceBusy: If another run has the service in its hands. Nothing was changed or written.
        Superseded: If a later rollout moved the service. Nothing was changed or written.
        SplitNotApplied: If it was accepted and something else is served. Never retried.
        TakenOver: If another run carried on with it meanwhile.
        TargetUnreachable, StoreUnreachable: Retried; a split can be applied twice.
    """
    warm = environment.warm_minutes * 60 if warm_seconds is None else warm_seconds
    plan = Plan(
        after=split,
        move=move_kind,
        reason=reason,
        rollout=rollout,
        before=before,
        warm_until=datetime.now(UTC) + timedelta(seconds=warm)
        if any(arm.role == "warm" for arm in split.arms)
        else None,
    )
    return move(environment, open_log(environment, actor), service, plan, ended=has_ended)
