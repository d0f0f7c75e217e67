"""Keeping data: every version of it, with how it came."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.commit import Commit, Extractor, Move
from prefect_mlops.blocks.entry import Actor
from prefect_mlops.blocks.errors import is_transient
from prefect_mlops.blocks.writer import os_user
from prefect_mlops.tasks import _runtime, _tables
from prefect_mlops.tasks._scratch import scratch_folder
from prefect_mlops.tasks.announcing import announce
from prefect_mlops.tasks.runs import current_run


def _snapshot_name() -> str:
    data = task_run.parameters["data"]
    return "snapshot a frame" if isinstance(data, pd.DataFrame) else f"snapshot {Path(str(data)).name}"


@task(
    name="snapshot-data",
    task_run_name=_snapshot_name,
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=1,
    retry_condition_fn=is_transient,
)
def snapshot_data(
    store: Store,
    data: Path | str | pd.DataFrame,
    branch: str = "main",
    *,
    source: str = "",
    extractor: str = "",
    arguments: dict[str, str] | None = None,
    message: str = "",
    actor: str = "",
) -> Commit:
    """Keep a data file, a folder of them or a frame in the store, and put it at the head of a branch.

    Only what is new takes space. Data that is at the head already is not committed again.

    Args:
        store: Where to keep it.
        data: File or folder, in which links that lead out of it are refused; or a frame, kept as Parquet.
        branch: Name of the branch; it need not exist yet.
        source: Where the data came from; the path itself if empty.
        extractor: `module:function` that took it from there, whose code is kept too; none if empty.
        arguments: What the extractor was told; never a secret.
        message: What a person says of it.
        actor: Who wants this; the operating system's user if empty.

    Returns:
        The commit at the head of the branch, with the snapshot's id, columns, number of rows and parents.

    Raises:
        Invalid: If there is nothing at `data`, or it changes while it is read. Nothing is committed.
        StoreUnreachable: If the store does not answer.
    """
    onto = _branch(store, branch, actor)
    with scratch_folder() as scratch:
        if isinstance(data, pd.DataFrame):
            path, source = _tables.write_frame(data, scratch / "data.parquet"), source or "a frame"
        else:
            path, source = Path(data), source or str(data)
        snapshot = store.pack(path)
        columns, rows = _tables.shape(path)
        code = None
        if extractor:
            _runtime.write_extractor(extractor, scratch / "code")
            code = store.add(scratch / "code").id
    before = onto.tip()
    _, commit = onto.commit(
        snapshot,
        source=source,
        extractor=Extractor(name=extractor, code=code, arguments=arguments or {}) if extractor else None,
        columns=columns,
        rows=rows,
        message=message,
    )
    if (tip := onto.tip()) is not None and tip != before:
        announce(tip)
    return commit


@task(
    name="move-branch",
    task_run_name="move {branch}",
    persist_result=False,
    cache_policy=NO_CACHE,
)
def move_branch(
    store: Store, branch: str, commit: str, *, expected: str | None = None, reason: str = "", actor: str = ""
) -> Move:
    """Have a branch at a commit, if it still is where it was looked at. Whoever waits for its data is told.

    Args:
        store: Holds the branch.
        branch: Name of the branch; it need not exist yet.
        commit: Id of a commit that is in the store.
        expected: Id of the commit that the branch must be at; None if it must be empty.
        reason: Why, in a person's words.
        actor: Who wants this; the operating system's user if empty.

    Returns:
        The move as it is stored.

    Raises:
        BranchMoved: If the branch is elsewhere by now. Nothing is written.
        Invalid, ObjectMissing, ObjectDamaged: If `commit` is no commit of the store. Nothing is written.
        StoreUnreachable: If the store does not answer; whether the branch was moved is unknown.
    """
    move = _branch(store, branch, actor).move(commit, expected=expected, reason=reason)
    announce(move)
    return move


def _branch(store: Store, name: str, actor: str) -> Branch:
    behalf = Actor(name=actor, assurance="claimed") if actor else os_user()
    return Branch(store, name, run=current_run(), actor=behalf)
