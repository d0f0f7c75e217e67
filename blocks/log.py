"""The log of an environment: append-only, hash-chained, enough to say what was live and to put it back."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from prefect_mlops.blocks._canonical import canonical
from prefect_mlops.blocks.entry import Actor, Body, Entry, Genesis, Run
from prefect_mlops.blocks.errors import Invalid, MlopsError
from prefect_mlops.blocks.split import Split
from prefect_mlops.blocks.state import IllegalEntry, Moving, State, at
from prefect_mlops.blocks.store import Journal, Store
from prefect_mlops.blocks.writer import moment, os_user, this_writer

logger = logging.getLogger("prefect_mlops")


class NoLog(MlopsError):
    """An environment that has not begun."""

    def __init__(self, environment: str, store: str, others: tuple[str, ...] = ()) -> None:
        super().__init__(environment, store, others)
        self.environment, self.store, self.others = environment, store, others

    def __str__(self) -> str:
        advice = "release something to it first"
        if self.others:
            advice = f"there are those of {', '.join(self.others)}: name one with --environment, or {advice}"
        return f"environment {self.environment!r} has no log in {self.store}; {advice}"


@dataclass(frozen=True)
class Draft:
    """What somebody wants to write, decided from a state of the log."""

    body: Body
    services: tuple[str, ...] = ()
    rollout: int | None = None
    begins: bool = False
    """Whether the entry begins a rollout, which then has the entry's own number."""
    closes: int | None = None
    reason: str = ""


@dataclass
class ReleaseLog:
    """Reads and writes the log of one environment.

    Nobody acts on a state that was only read: what may be done follows from an append that succeeded.
    A number that somebody else took means: fold again, decide again.

    Args:
        store: Holds the journal `log/<environment>`.
        environment: Whose log it is.
        run: The flow run on whose behalf entries are written, where there is one.
        actor: The person or program on whose behalf they are written.
        receipts: Folder outside the store that keeps the newest entry's hash, so that `verify`
            notices a log whose end was cut off.
        clock: Tells the time; its jumps are recorded and never reorder the log.
    """

    store: Store
    environment: str
    run: Run | None = None
    actor: Actor = field(default_factory=os_user)
    receipts: Path | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _state: State = field(default_factory=State, init=False, repr=False)

    def on_behalf_of(self, actor: Actor, run: Run | None) -> ReleaseLog:
        """The same log, written on behalf of somebody else; what was read so far is not read again."""
        log = copy(self)
        log.actor, log.run = actor, run
        return log

    @property
    def journal(self) -> Journal:
        """Where the entries are."""
        return self.store.journal(f"log/{self.environment}")

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first.

        Raises:
            NotAnEntry: At the first one whose bytes are damaged.
        """
        for number, data in self.journal.entries():
            yield Entry.decode(number, data)

    def state(self) -> State:
        """What the log says now.

        Only what was written since the last call is read.

        Raises:
            NotAnEntry: If an entry's bytes are damaged.
            IllegalEntry: If an entry may not stand where it stands.
            StoreUnreachable: If the store does not answer.
        """
        state = self._state
        for number, data in self.journal.entries(state.next):
            entry = Entry.decode(number, data)
            if entry.environment != self.environment:
                raise IllegalEntry(number, entry.kind, f"it is of the log of {entry.environment}")
            self._state = state = state.then(entry)
        return state

    def at(self, service: str, when: datetime) -> Split | Moving:
        """What `service` served at a moment, as far as the log says.

        Raises:
            Invalid: If the log had not begun then.
            NotAnEntry, IllegalEntry, StoreUnreachable: As for `state`.
        """
        return at(self.entries(), service, moment(when))

    def begun(self) -> State:
        """What the log says now.

        Raises:
            NoLog: If nothing was ever written.
        """
        state = self.state()
        if state.head is None:
            others = tuple(name.removeprefix("log/") for name in self.store.journals("log/"))
            raise NoLog(self.environment, self.store.url, others)
        return state

    def begin(self, configuration: dict[str, dict[str, str | int | bool | None]]) -> Entry:
        """Write the first entry, or return the one that is there."""
        state = self.state()
        if state.genesis is None:
            self.append(lambda now: None if now.genesis else Draft(Genesis(configuration=configuration)))
            state = self.begun()
        assert state.genesis is not None
        return state.genesis

    def append(self, decide: Callable[[State], Draft | None]) -> Entry | None:
        """Write what `decide` wants to say about the state that it is given.

        Args:
            decide: Looks at the newest state and returns what to write, or None to write nothing. It is
                called again whenever somebody else wrote first, and may raise to give up.

        Returns:
            The entry as it is stored, or None where `decide` had nothing to say.

        Raises:
            IllegalEntry: If the draft may not come next. Nothing is written.
            Invalid: If an entry cannot hold what the draft or the actor says. Nothing is written.
            StoreUnreachable: If the store does not answer. Whether the entry is there is unknown;
                folding again tells.
        """
        while True:
            state = self.state()
            draft = decide(state)
            if draft is None:
                return None
            entry = self._sealed(state, draft)
            after = state.then(entry)
            if self.journal.append(entry.seq, entry.encode()):
                self._state = after
                self._keep_receipt(entry)
                return entry

    def _sealed(self, state: State, draft: Draft) -> Entry:
        raw = moment(self.clock())
        time = max(raw, state.head.time) if state.head else raw
        writer = this_writer()
        try:
            return Entry(
                store=self.store.id,
                environment=self.environment,
                seq=state.next,
                prev=state.head.hash if state.head else None,
                services=draft.services,
                rollout=state.next if draft.begins else draft.rollout,
                closes=draft.closes,
                run=self.run,
                writer=writer,
                actor=self.actor,
                reason=draft.reason,
                time=time,
                raw_time=raw,
                clamped=time != raw,
                body=draft.body,
            )
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            where = ".".join(map(str, wrong["loc"]))
            raise Invalid(f"{where} of a log entry", f"is legal ({wrong['msg']})", wrong["input"]) from error

    def receipt_path(self, store_id: str) -> Path | None:
        """Where the newest entry's hash is kept outside the store, if anywhere."""
        return self.receipts / f"{store_id}-{self.environment}.json" if self.receipts else None

    def receipt(self, store_id: str) -> tuple[int, str] | None:
        """Number and hash of the newest entry that somebody on this machine wrote, if that is known."""
        path = self.receipt_path(store_id)
        try:
            kept = json.loads(path.read_bytes()) if path else None
            return (int(kept["seq"]), str(kept["hash"])) if kept else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep_receipt(self, entry: Entry) -> None:
        """Remember `entry`; it is written whatever becomes of that, so a failure here is only told."""
        path, kept = self.receipt_path(entry.store), self.receipt(entry.store)
        if path is None or (kept is not None and kept[0] >= entry.seq):
            return
        draft = path.with_name(f"{path.name}.{entry.writer.nonce}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(canonical({"seq": entry.seq, "hash": entry.hash}))
            draft.replace(path)
        except OSError as error:
            logger.warning("log entry %s is written, but %s could not be: %s", entry.seq, path, error)
