"""Commits and branches: how data came to be, and which of it counts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prefect_mlops.blocks._canonical import BranchName, Digest, Value, digest
from prefect_mlops.blocks._sealed import Sealed
from prefect_mlops.blocks.entry import Actor, Run, Time, Writer


class Column(Value):
    """A column of a table."""

    name: str = Field(description="Its name.")
    type: str = Field(description="Type of its values, as Apache Arrow calls it.")


class Extractor(Value):
    """What took the data from where it was."""

    name: str = Field(description="The function, as module:function, or the program.")
    code: Digest | None = Field(default=None, description="Snapshot of its code.")
    arguments: dict[str, str] = Field(default={}, description="What it was told; never a secret.")


class Commit(Value):
    """A snapshot and how it came: source, extractor, run, schema, parents. Its id is the digest of its bytes."""

    snapshot: Digest = Field(description="The data.")
    parents: tuple[Digest, ...] = Field(description="The commits that it was made from or that it follows.")
    source: str = Field(max_length=2000, description="Where the data came from: a path, a URL, a query.")
    extractor: Extractor | None = Field(default=None, description="What took it from there.")
    columns: tuple[Column, ...] = Field(default=(), description="The columns, where it is one table.")
    rows: int | None = Field(default=None, ge=0, description="How many rows the table has.")
    run: Run | None = Field(description="The flow run that made it.")
    actor: Actor = Field(description="On whose behalf.")
    message: str = Field(default="", max_length=2000, description="What a person says of it.")
    time: Time = Field(description="What the clock of the writer said.")
    format: Literal[1] = Field(default=1, description="Version of this document's format.")

    @property
    def id(self) -> str:
        """The digest of the canonical document."""
        return digest(self.canonical())


class Move(Sealed):
    """One entry of a branch: from here on, `commit` is its head."""

    v: Literal[1] = 1
    store: str
    branch: BranchName
    seq: int = Field(ge=0, lt=10**12)
    prev: Digest | None
    commit: Digest
    run: Run | None
    writer: Writer
    actor: Actor
    reason: str = Field(max_length=2000)
    time: Time
