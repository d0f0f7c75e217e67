"""Snapshots and releases: what production answers, named by digest."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from prefect_mlops.blocks._canonical import Digest, Label, Value, digest


class File(Value):
    """One file of a snapshot."""

    path: str = Field(description="Path inside the snapshot, with forward slashes.")
    size: int = Field(ge=0, description="Length in bytes.")
    digest: Digest = Field(description="Digest of the bytes.")

    @model_validator(mode="after")
    def _inside(self) -> File:
        parts = self.path.split("/")
        if not self.path or self.path.startswith("/") or "\\" in self.path or {"", ".", ".."} & set(parts):
            raise ValueError(f"a file's path stays inside its snapshot, got {self.path!r}")
        return self


class Snapshot(Value):
    """A set of files, named by their content alone: equal bytes have an equal id, for ever."""

    files: tuple[File, ...] = Field(description="The files, sorted by path.")

    @model_validator(mode="after")
    def _sorted(self) -> Snapshot:
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            raise ValueError(f"the files of a snapshot are sorted by path and each path is there once, got {paths}")
        return self

    @cached_property
    def id(self) -> str:
        """The digest of the canonical manifest."""
        return digest(self.canonical())


class Diff(Value):
    """What differs between two snapshots."""

    added: tuple[str, ...] = Field(description="Paths that only the second has.")
    removed: tuple[str, ...] = Field(description="Paths that only the first has.")
    changed: tuple[str, ...] = Field(description="Paths that both have, with other bytes.")

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Diff:
        """What makes `after` of `before`."""
        old, new = ({file.path: file.digest for file in one.files} for one in (before, after))
        return cls(
            added=tuple(sorted(new.keys() - old.keys())),
            removed=tuple(sorted(old.keys() - new.keys())),
            changed=tuple(sorted(path for path in old.keys() & new.keys() if old[path] != new[path])),
        )


class Release(Value):
    """One immutable document that names, by digest, all that led to what production answers.

    Its id is the digest of its canonical form. People call it `credit-v3`; the log gives the number.
    """

    service: Label = Field(description="The service that it is for.")
    data: Digest = Field(description="Snapshot of the training data.")
    code: Digest = Field(description="Snapshot of the training code.")
    runtime: Digest = Field(description="Snapshot of the software environment: its lock and its Python.")
    model: Digest = Field(description="Snapshot of the model's files.")
    tests: Digest = Field(description="Document of the model tests and their verdicts.")
    probes: Digest = Field(description="Document of golden probes: requests and the answers they must get.")
    components: tuple[Digest, ...] = Field(default=(), description="Snapshots of what is served around the model.")
    format: Literal[1] = Field(default=1, description="Version of this document's format.")

    @property
    def id(self) -> str:
        """The digest of the canonical document."""
        return digest(self.canonical())
