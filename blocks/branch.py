"""Branches: journals of commits, whose newest entry names the head."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prefect_mlops.blocks._canonical import BRANCH
from prefect_mlops.blocks.commit import Column, Commit, Extractor, Move
from prefect_mlops.blocks.entry import Actor, Run
from prefect_mlops.blocks.errors import Invalid, MlopsError, ObjectMissing
from prefect_mlops.blocks.release import Snapshot
from prefect_mlops.blocks.store import Journal, Store
from prefect_mlops.blocks.writer import moment, os_user, this_writer

_ROOM = "branches/"


class NotAMove(MlopsError):
    """Bytes in a branch that are no entry of it, or one that may not stand where it stands."""

    def __init__(self, branch: str, number: int, reason: str) -> None:
        super().__init__(branch, number, reason)
        self.branch, self.number, self.reason = branch, number, reason

    def __str__(self) -> str:
        return f"entry {self.number} of branch {self.branch} is damaged: {self.reason}; run `prefect-mlops verify`"


class BranchMoved(MlopsError):
    """Somebody else moved the branch meanwhile."""

    transient = True

    def __init__(self, branch: str, expected: str | None, found: str | None) -> None:
        super().__init__(branch, expected, found)
        self.branch, self.expected, self.found = branch, expected, found

    def __str__(self) -> str:
        return (
            f"branch {self.branch} is at commit {self.found or 'none'}, and not at {self.expected or 'none'} any more; "
            "look at what came, then do it again"
        )


@dataclass
class Branch:
    """A name for the newest of a line of commits. Every move of it stays.

    Args:
        store: Holds the journal `branches/<name>`.
        name: Name of the branch.
        run: The flow run on whose behalf it is moved, where there is one.
        actor: The person or program on whose behalf it is moved.
        clock: Tells the time, which orders nothing.
    """

    store: Store
    name: str
    run: Run | None = None
    actor: Actor = field(default_factory=os_user)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _last: Move | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(BRANCH, self.name):
            raise Invalid(
                "the name of a branch", "is at most 63 of a-z, 0-9, . _ and -, a letter or digit first", self.name
            )

    @property
    def journal(self) -> Journal:
        """Where its moves are."""
        return self.store.journal(_ROOM + self.name)

    def moves(self, start: int = 0) -> Iterator[Move]:
        """Every move from number `start` on, oldest first.

        Raises:
            NotAMove: At the first one that is damaged.
        """
        before: Move | None = None
        for number, data in self.journal.entries(start):
            before = decoded(self.name, number, data, before)
            yield before

    def tip(self) -> Move | None:
        """The newest move; only what came since the last call is read.

        Raises:
            NotAMove: If a move is damaged.
            StoreUnreachable: If the store does not answer.
        """
        last = self._last
        for number, data in self.journal.entries(last.seq + 1 if last else 0):
            last = decoded(self.name, number, data, last)
        self._last = last
        return last

    @property
    def head(self) -> str | None:
        """Id of the commit that it is at; None if nothing was ever committed."""
        tip = self.tip()
        return tip.commit if tip else None

    def move(self, commit: str, *, reason: str = "", expected: str | None = None) -> Move:
        """Have the branch at `commit`, if it still is where it was looked at.

        Args:
            commit: Id of a commit that is in the store.
            reason: Why, in a person's words.
            expected: Id of the commit that it must be at; None if it must be empty.

        Returns:
            The move as it is stored.

        Raises:
            Invalid, ObjectMissing, ObjectDamaged: If `commit` is no commit of the store. Nothing is written.
            BranchMoved: If the branch is elsewhere. Nothing is written.
        """
        self.store.put(self.store.commit_at(commit).canonical())  # its writer may have died before it was durable
        while True:
            tip = self.tip()
            if (found := tip.commit if tip else None) != expected:
                raise BranchMoved(self.name, expected, found)
            move = Move(
                store=self.store.id,
                branch=self.name,
                seq=tip.seq + 1 if tip else 0,
                prev=tip.hash if tip else None,
                commit=commit,
                run=self.run,
                writer=this_writer(),
                actor=self.actor,
                reason=reason,
                time=moment(self.clock()),
            )
            if self.journal.append(move.seq, move.encode()):
                self._last = move
                return move

    def commit(
        self,
        snapshot: Snapshot,
        *,
        source: str,
        parents: tuple[str, ...] = (),
        extractor: Extractor | None = None,
        columns: tuple[Column, ...] = (),
        rows: int | None = None,
        message: str = "",
    ) -> tuple[str, Commit]:
        """Add a commit of a snapshot to the branch; where the head has that snapshot already, it is returned as it is.

        Args:
            snapshot: A snapshot that the store has kept.
            source: Where the data came from.
            parents: Ids of other commits that it was made from; the head of the branch always is the first.
            extractor: What took it from there.
            columns: The columns, where it is one table.
            rows: How many rows the table has.
            message: What a person says of it.

        Returns:
            The commit's id, and the commit.

        Raises:
            ObjectMissing: If the store does not have `snapshot`. Nothing is written.
            Invalid, ObjectMissing, ObjectDamaged: If a parent is no commit of the store. Nothing is written.
            StoreUnreachable: If the store does not answer.
        """
        if not self.store.has(snapshot.id):
            raise ObjectMissing(self.store.url, f"the manifest {snapshot.id}")
        self.store.put(snapshot.canonical())
        for parent in parents:
            self.store.commit_at(parent)
        while True:
            head = self.head
            if head is not None and (there := self.store.commit_at(head)).snapshot == snapshot.id:
                self.settle()
                return head, there
            commit = Commit(
                snapshot=snapshot.id,
                parents=tuple(dict.fromkeys([*([head] if head else []), *parents])),
                source=source,
                extractor=extractor,
                columns=columns,
                rows=rows,
                run=self.run,
                actor=self.actor,
                message=message,
                time=moment(self.clock()),
            )
            name = self.store.put(commit.canonical())
            try:
                self.move(name, expected=head, reason=message)
            except BranchMoved:
                continue
            return name, commit

    def settle(self) -> None:
        """Make the newest move that was looked at durable: whoever wrote it may have been killed before it was."""
        if self._last is not None:
            self.journal.append(self._last.seq, self._last.encode())

    def log(self) -> Iterator[tuple[str, Commit]]:
        """The commits that led to the head, newest first, each once: its first parents, then the others.

        Raises:
            ObjectMissing, ObjectDamaged: If one is not whole.
        """
        waiting, seen = [self.head], set[str]()
        while waiting:
            name = waiting.pop(0)
            if name is None or name in seen:
                continue
            seen.add(name)
            commit = self.store.commit_at(name)
            yield name, commit
            waiting = [*commit.parents[:1], *waiting, *commit.parents[1:]]


def branches(store: Store) -> tuple[str, ...]:
    """The names of all branches that a listing of `store` shows."""
    return tuple(name.removeprefix(_ROOM) for name in store.journals(_ROOM))


def decoded(branch: str, number: int, data: bytes, before: Move | None) -> Move:
    """The move stored under `number`, which must follow `before`, where that is known.

    Raises:
        NotAMove: If it does not, or is none.
    """
    try:
        move = Move.unsealed(data)
    except ValueError as error:
        raise NotAMove(branch, number, str(error)) from None
    if (move.seq, move.branch) != (number, branch):
        raise NotAMove(branch, number, f"it says that it is number {move.seq} of {move.branch}")
    if (number == 0) != (move.prev is None) or (before is not None and move.prev != before.hash):
        raise NotAMove(branch, number, "it does not name the hash of the entry before it")
    return move
