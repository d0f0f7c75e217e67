"""Data arriving: kept on one branch, and let through to another once it is what is expected."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Annotated, get_args

import pandas as pd
from prefect import flow

from prefect_mlops.blocks import Environment
from prefect_mlops.blocks._functions import FunctionName, function_named
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.flows._candidate import validated
from prefect_mlops.flows._reporting import run_name, say, shown_as, tag_run, tags
from prefect_mlops.tasks import move_branch, snapshot_data


@flow(name="ingest-data", flow_run_name=run_name("ingest", "branch"), persist_result=False)
def ingest_data(
    source: Annotated[
        str,
        shown_as("Source", "CSV or Parquet file, folder, or module:function that returns one of them or a DataFrame."),
    ],
    environment: Annotated[str, shown_as("Environment", "Name of the Environment block whose store it is.")] = "local",
    branch: Annotated[str, shown_as("Branch", "Branch that the data is committed to.")] = "staging",
    onto: Annotated[
        str,
        shown_as("Onto", "Branch that is then moved to the data, if it is as expected; none if left empty."),
    ] = "",
    expectations: Annotated[
        str,
        shown_as(
            "Expectations", "File of a Great Expectations suite that the data must meet, or package:file; may be empty."
        ),
    ] = "",
    arguments: Annotated[
        dict[str, str], shown_as("Arguments", "What the function is told, by name; kept for ever, so never a secret.")
    ] = {},  # noqa: B006 - nobody changes it, and forms show an empty group
    reason: Annotated[str, shown_as("Reason", "Why, in your words; kept with the data.")] = "",
    actor: Annotated[str, shown_as("Your name", "Who wants this; the operating system's user if empty.")] = "",
) -> str:
    """Keep data on a branch; where `onto` is given, validate what is there and move `onto` to it.

    So data may arrive often, and count only when somebody says so: only a move of the branch that training waits
    for starts a training, however many commits came before. Data that is there already is not committed again.

    Args:
        source: A file, a folder, or `module:function`, whose code is kept too.
        environment: Name of the Environment block whose store it is.
        branch: Branch that the data is committed to.
        onto: Branch that is then moved; none if empty.
        expectations: Suite that the data must meet before `onto` is moved; none if empty.
        arguments: What the function is told.
        reason: Why, kept with the data.
        actor: Who wants this.

    Returns:
        Id of the commit that is at the head of `onto`, or of `branch` where `onto` is empty.

    Raises:
        Invalid: If the source, a branch or the suite are not what they must be.
        DataRefused: If the data does not meet what is expected of it. It stays on `branch`.
        BranchMoved: If somebody else moved `onto` meanwhile. The data stays on `branch`; look, then run this again.
    """
    place = Environment.find(environment)
    tag_run([f"branch:{branch}", *([f"branch:{onto}"] if onto else []), *tags(environment, "", "ingest")])
    expected = Branch(place.store_block, onto).head if onto else None
    keep(place, source, branch, arguments, reason=reason, actor=actor)
    head = Branch(place.store_block, branch).head
    assert head is not None
    if not onto:
        return head
    kept = validated(place, head, expectations, branch)
    return let_through(place, kept.commit if kept else head, onto, expected, reason=reason, actor=actor)


def keep(
    environment: Environment, source: str, branch: str, arguments: dict[str, str], *, reason: str = "", actor: str = ""
) -> str:
    """Commit what `source` has to a branch; part of a flow.

    Raises:
        Invalid: If there is no such file, folder or function, or it returns something else.
    """
    extractor = source if is_function(source) else ""
    data = extracted(source, arguments) if extractor else Path(source)
    if arguments and not extractor:
        raise Invalid(
            "arguments", "are for a function", ", ".join(arguments), "name one as the source, or leave it out"
        )
    commit = snapshot_data(
        environment.store_block,
        data,
        branch,
        source=source,
        extractor=extractor,
        arguments=arguments,
        message=reason,
        actor=actor,
    )
    rows = "" if commit.rows is None else f"{commit.rows:,} rows, "
    say(f"{source}: {rows}kept as commit {commit.id} of branch {branch}")
    return commit.id


def is_function(source: str) -> bool:
    """Whether `source` is the name of a function; a file that is there with such a name is that file."""
    pattern = get_args(FunctionName)[1].pattern
    return re.fullmatch(pattern, source) is not None and not Path(source).exists()


def extracted(function: str, arguments: dict[str, str]) -> Path | str | pd.DataFrame:
    """What a team's own function takes from where the data is.

    Raises:
        Invalid: If there is no such function, it takes other arguments, or returns something else.
    """
    call = function_named(function, "extractor")
    try:
        inspect.signature(call).bind(**arguments)
    except TypeError as error:
        raise Invalid("arguments", f"are what {function} takes ({error})", ", ".join(arguments) or "none") from None
    data: object = call(**arguments)
    if not isinstance(data, (Path, str, pd.DataFrame)):
        raise Invalid(f"what {function} returns", "is a path or a DataFrame", type(data).__name__)
    return data


def let_through(
    environment: Environment, commit: str, onto: str, expected: str | None, *, reason: str = "", actor: str = ""
) -> str:
    """Move a branch to a commit, unless it has that data already; part of a flow.

    Args:
        environment: Whose store it is.
        commit: Id of the commit.
        onto: The branch.
        expected: Id of the commit that it must be at; None if it must be empty.
        reason: Why, kept with the move.
        actor: Who wants this.

    Returns:
        Id of the commit that the branch is at.

    Raises:
        BranchMoved: If the branch is elsewhere by now. Nothing was moved.
    """
    store = environment.store_block
    if expected is not None and store.commit_at(expected).snapshot == store.commit_at(commit).snapshot:
        say(f"branch {onto} has this data already, as commit {expected}; it stays there")
        return expected
    move = move_branch(store, onto, commit, expected=expected, reason=reason, actor=actor)
    say(f"branch {onto} is at commit {commit} now, by its move {move.seq}")
    return commit
