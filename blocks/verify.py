"""Proof of the log and of everything it names, and a plain list of what cannot be proved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prefect_mlops.blocks._guard import IDENTITY
from prefect_mlops.blocks._objects import key_of
from prefect_mlops.blocks.branch import Branch, NotAMove, branches, decoded
from prefect_mlops.blocks.commit import Move
from prefect_mlops.blocks.entry import Asked, Entry, NotAnEntry, Released, Taken
from prefect_mlops.blocks.errors import (
    Invalid,
    MlopsError,
    ObjectDamaged,
    ObjectMissing,
    StoreRefused,
    StoreUnreachable,
)
from prefect_mlops.blocks.log import ReleaseLog
from prefect_mlops.blocks.release import Release
from prefect_mlops.blocks.state import IllegalEntry, State
from prefect_mlops.blocks.store import Journal, Store

_UNSOUND = (ObjectDamaged, ObjectMissing, StoreRefused, Invalid)


@dataclass(frozen=True)
class Fault:
    """One thing in the store that is not as it was written."""

    key: str
    what: str


@dataclass
class Verification:
    """What `verify` found.

    Attributes:
        entries: How many entries were read and found right.
        objects: How many objects were read to the last byte.
        faults: What is damaged, missing, illegal or does not belong there; one for each key in the store.
        unproven: What no check of these bytes can prove.
    """

    environment: str
    entries: int = 0
    objects: int = 0
    faults: list[Fault] = field(default_factory=list[Fault])
    unproven: list[str] = field(default_factory=list[str])
    _keys: set[str] = field(default_factory=set[str], repr=False, compare=False)

    @property
    def verified(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.faults

    def blame(self, key: str, what: str) -> None:
        """Add what is wrong with `key`, if nothing was found wrong with it before."""
        if key not in self._keys:
            self._keys.add(key)
            self.faults.append(Fault(key, what))


def verify(log: ReleaseLog, anchors: Mapping[str, int | tuple[int, str]] | None = None) -> Verification:
    """Check the log of one environment, every byte it names, and every other byte in its store.

    Args:
        log: The log to check.
        anchors: Places outside the store that remember an entry: the number alone, or with its hash.

    Raises:
        StoreUnreachable: If the store does not answer, so that nothing can be said.
    """
    report = Verification(log.environment)
    known = dict(anchors or {})
    check = _Check(log.store, report)
    numbers = log.journal.numbers()
    if not numbers:
        report.blame(log.journal.key(0), "the log has no first entry")
    elif (identity := check.identity()) is not None and (receipt := log.receipt(identity)) is not None:
        known["the receipt of the last writer on this machine"] = receipt
    check.objects()
    state, hashes = check.log(log, numbers)
    report.entries = state.next
    check.others(log)
    moved = check.branches()
    _check_anchors(log, hashes, known, report)
    report.unproven = _unproven(state, known)
    if moved:
        report.unproven.append("that no branch lost its newest moves: nothing outside the store remembers them")
    return report


@dataclass
class _Check:
    """One pass over a store; what was found sound once is not read again."""

    store: Store
    report: Verification
    id: str | None = None
    sound: set[str] = field(default_factory=set[str])
    walked: set[str] = field(default_factory=set[str])
    packed: set[str] = field(default_factory=set[str])

    def identity(self) -> str | None:
        """The store's id, if it can be read."""
        try:
            self.id = self.store.id
        except StoreUnreachable:
            raise
        except (MlopsError, ValueError) as error:
            self.report.blame(IDENTITY, str(error))
        return self.id

    def objects(self) -> None:
        """Read every object, and find what does not belong into a store."""
        for key in self.store.strays():
            self.report.blame(key, "nothing with that name belongs into a store")
        for digest in self.store.digests():
            self.report.objects += 1
            try:
                self.store.check_object(digest)
                self.sound.add(digest)
            except _UNSOUND as error:
                self.report.blame(key_of(digest), str(error))
        segments = self.store.records()
        for key in segments.names():
            self.report.objects += 1
            try:
                segments.read(key)
            except ObjectDamaged as error:
                self.report.blame(key, str(error))
        proof = self.store.packs_proof()
        for key, what in proof.faults():
            self.report.blame(key, what)
        self.report.objects += proof.keys
        self.packed = proof.files

    def branches(self) -> bool:
        """Check every branch, and what its commits name; whether there is any."""
        names = branches(self.store)
        for name in names:
            branch = Branch(self.store, name)
            journal = branch.journal
            before: Move | None = None
            for number, data in self._stored(journal, journal.numbers()):
                before = before if before and before.seq == number - 1 else None
                try:
                    before = decoded(name, number, data, before)
                except NotAMove as error:
                    self.report.blame(journal.key(number), error.reason)
                    continue
                if self.id not in (None, before.store):
                    self.report.blame(journal.key(number), f"it is of store {before.store}")
                self._commit(before.commit, f"entry {number} of branch {name}")
        return bool(names)

    def _commit(self, digest: str, by: str) -> None:
        """A commit, its snapshot and all that it came from."""
        waiting = [(digest, by)]
        while waiting:
            digest, by = waiting.pop()
            if digest in self.walked or not self._need(digest, by):
                continue
            self.walked.add(digest)
            try:
                commit = self.store.commit_at(digest)
            except _UNSOUND as error:
                self.report.blame(key_of(digest), f"the commit cannot be read: {error}")
                continue
            named = [commit.snapshot, *([commit.extractor.code] if commit.extractor and commit.extractor.code else [])]
            for snapshot in named:
                if self._need(snapshot, f"commit {digest}") and snapshot not in self.walked:
                    self.walked.add(snapshot)
                    self._snapshot(snapshot, f"commit {digest}")
            waiting += [(parent, f"commit {digest} as a parent") for parent in commit.parents]

    def others(self, log: ReleaseLog) -> None:
        """Check the logs of other environments too: what they name must be there as well."""
        for name in self.store.journals():
            kind, _, environment = name.partition("/")
            journal = self.store.journal(name)
            if kind == "branches":
                continue
            if kind != "log":
                for number in journal.numbers():
                    self.report.blame(journal.key(number), f"{name} is neither a log nor a branch")
            elif environment != log.environment:
                self.log(ReleaseLog(self.store, environment, actor=log.actor), journal.numbers())

    def log(self, log: ReleaseLog, numbers: list[int]) -> tuple[State, dict[int, str]]:
        """Fold a log as far as it is legal; return that state, and the hash of each entry that can be read."""
        state, hashes, whole = State(), dict[int, str](), True
        for number, data in self._stored(log.journal, numbers):
            key = log.journal.key(number)
            try:
                entry = Entry.decode(number, data)
                hashes[number] = entry.hash
                _check_place(log, entry, hashes.get(number - 1))
                self._named(entry)
                state = state.then(entry) if whole and number == state.next else state
            except NotAnEntry as error:
                self.report.blame(key, error.reason)
            except IllegalEntry as error:
                self.report.blame(key, error.rule)
            whole = whole and number == state.next - 1
        if state.genesis is not None and self.id not in (None, state.genesis.store):
            self.report.blame(IDENTITY, f"it says store {self.id}, and the log is that of store {state.genesis.store}")
        return state, hashes

    def _stored(self, journal: Journal, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
        """The bytes of each entry that is there; of many missing in a row the first is blamed."""
        expected = 0
        for number in numbers:
            data = self._read(journal, number)
            if number > expected:
                missing = f"{expected} is" if number == expected + 1 else f"{expected} to {number - 1} are"
                self.report.blame(journal.key(expected), f"entry {missing} missing, though later ones are there")
            if data is not None:
                yield number, data
            expected = number + 1

    def _read(self, journal: Journal, number: int) -> bytes | None:
        try:
            if (data := journal.read(number)) is None:
                self.report.blame(journal.key(number), "it was listed, and is not there")
        except _UNSOUND as error:
            self.report.blame(journal.key(number), str(error))
            return None
        return data

    def _named(self, entry: Entry) -> None:
        for digest in _named(entry):
            self._need(digest, f"entry {entry.seq}")
        if isinstance(entry.body, Released) and self._need(entry.body.release, "the log as a release"):
            self._release(entry.service, entry.body.release)
        if isinstance(entry.body, (Released, Taken)) and entry.body.commit is not None:
            self._commit(entry.body.commit, f"entry {entry.seq}")
        if isinstance(entry.body, Taken):
            self._taken(entry.body, f"entry {entry.seq}")

    def _taken(self, body: Taken, by: str) -> None:
        """A move that was taken is there, and is the one that was taken; so branches are anchored in the log."""
        journal = Branch(self.store, body.branch).journal
        try:
            data = journal.read(body.move)
            if data is None:
                self.report.blame(journal.key(body.move), f"missing, though {by} took it")
            elif decoded(body.branch, body.move, data, None).commit != body.commit:
                self.report.blame(journal.key(body.move), f"it does not name the commit that {by} took")
        except NotAMove as error:
            self.report.blame(journal.key(body.move), error.reason)
        except _UNSOUND as error:
            self.report.blame(journal.key(body.move), str(error))

    def _release(self, service: str, digest: str) -> None:
        try:
            release = self.store.release(digest)
        except _UNSOUND as error:
            return self.report.blame(key_of(digest), f"the release document cannot be read: {error}")
        if release.service != service:
            self.report.blame(key_of(digest), f"it is a release of {release.service}, and the log says of {service}")
        for document in (release.tests, release.probes):
            self._need(document, f"release {digest}")
        for name, snapshot in _snapshots(release):
            if self._need(snapshot, f"release {digest} as its {name}") and snapshot not in self.walked:
                self.walked.add(snapshot)
                self._snapshot(snapshot, f"release {digest} as {name}")
        return None

    def _snapshot(self, digest: str, by: str) -> None:
        try:
            files = self.store.snapshot(digest).files
        except _UNSOUND as error:
            return self.report.blame(key_of(digest), f"the snapshot cannot be read: {error}")
        for file in files:
            if file.digest not in self.packed:
                self._need(file.digest, f"{by}/{file.path}")
        return None

    def _need(self, digest: str, by: str) -> bool:
        """Whether the object is sound; where it is not there, blame it."""
        if digest not in self.sound and not self.store.has(digest):
            self.report.blame(key_of(digest), f"missing, though it is named by {by}")
        return digest in self.sound


def _check_place(log: ReleaseLog, entry: Entry, before: str | None) -> None:
    """The links of the chain hold also behind a break, where the fold stops."""
    if entry.environment != log.environment:
        raise NotAnEntry(entry.seq, f"it is of the log of {entry.environment}")
    if before is not None and entry.prev != before:
        raise NotAnEntry(entry.seq, f"it does not name the hash of entry {entry.seq - 1}")


def _named(entry: Entry) -> Iterator[str]:
    body = entry.body
    if isinstance(body, Asked):
        yield from (body.policy, *body.evidence)
    for name in ("shown", "evidence"):
        if isinstance(digest := getattr(body, name, None), str):
            yield digest


def _snapshots(release: Release) -> Iterator[tuple[str, str]]:
    yield from (("data", release.data), ("code", release.code), ("runtime", release.runtime), ("model", release.model))
    for number, component in enumerate(release.components):
        yield f"component {number}", component


def _check_anchors(
    log: ReleaseLog, hashes: Mapping[int, str], known: Mapping[str, int | tuple[int, str]], report: Verification
) -> None:
    for where, anchor in known.items():
        number, expected = anchor if isinstance(anchor, tuple) else (anchor, None)
        found = hashes.get(number)
        if found is None:
            report.blame(log.journal.key(number), f"entry {number} is missing, though {where} remembers it")
        elif expected is not None and found != expected:
            report.blame(log.journal.key(number), f"entry {number} is not the one that {where} remembers")


def _unproven(state: State, known: Mapping[str, int | tuple[int, str]]) -> list[str]:
    newest = max((anchor[0] if isinstance(anchor, tuple) else anchor for anchor in known.values()), default=None)
    head = state.head.seq if state.head else -1
    sentences = ["who wrote an entry: entries are not signed", "that an entry's time is right: clocks are claims"]
    if newest is None:
        sentences.append("that no entries were cut off the end: nothing outside the store remembers one")
    elif newest < head:
        sentences.append(f"that no entries were cut off after {head}: the newest anchor remembers {newest}")
    else:
        sentences.append(f"that no entries after {newest} were written and then cut off")
    return sentences


def to_json(report: Verification) -> dict[str, object]:
    """The report as plain data."""
    return json.loads(
        json.dumps(
            {
                "environment": report.environment,
                "verified": report.verified,
                "entries": report.entries,
                "objects": report.objects,
                "faults": [{"key": fault.key, "what": fault.what} for fault in report.faults],
                "unproven": report.unproven,
            }
        )
    )
