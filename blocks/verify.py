"""Proof of the log and of everything it names, and a plain list of what cannot be proved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from prefect_mlops.blocks.entry import Asked, Entry, NotAnEntry, Released
from prefect_mlops.blocks.errors import MlopsError, ObjectDamaged, ObjectMissing
from prefect_mlops.blocks.log import ReleaseLog
from prefect_mlops.blocks.release import Release
from prefect_mlops.blocks.state import IllegalEntry, State


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
        faults: What is damaged, missing, illegal or does not belong there.
        unproven: What no check of these bytes can prove.
    """

    environment: str
    entries: int = 0
    objects: int = 0
    faults: list[Fault] = field(default_factory=list[Fault])
    unproven: list[str] = field(default_factory=list[str])

    @property
    def verified(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.faults


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
    if (receipt := log.receipt()) is not None:
        known["the receipt of the last writer on this machine"] = receipt
    entries = dict(_entries(log, report))
    state = _folded(entries.values(), report)
    _check_objects(log, report)
    for entry in entries.values():
        _check_named(log, entry, report)
    _check_anchors(log, entries, known, report)
    report.unproven = _unproven(state, known)
    return report


def _entries(log: ReleaseLog, report: Verification) -> Iterator[tuple[int, Entry]]:
    numbers = sorted(log.journal.numbers())
    if not numbers:
        report.faults.append(Fault(f"log/{log.environment}/{0:012d}", "the log has no first entry"))
    for number in range(numbers[-1] + 1 if numbers else 0):
        key = f"log/{log.environment}/{number:012d}"
        data = log.journal.read(number)
        if data is None:
            report.faults.append(Fault(key, f"entry {number} is missing, though later ones are there"))
            continue
        try:
            yield number, Entry.decode(number, data)
        except NotAnEntry as error:
            report.faults.append(Fault(key, error.reason))


def _folded(entries: Iterable[Entry], report: Verification) -> State:
    state, whole = State(), True
    for entry in entries:
        if not whole or entry.seq != state.next:
            whole = False
            continue
        try:
            state = state.then(entry)
            report.entries += 1
        except IllegalEntry as error:
            report.faults.append(Fault(f"log/{entry.environment}/{entry.seq:012d}", error.rule))
            whole = False
    return state


def _check_objects(log: ReleaseLog, report: Verification) -> None:
    store = log.store
    try:
        _ = store.id
    except MlopsError as error:
        report.faults.append(Fault("store.json", str(error)))
    for key in store.strays():
        report.faults.append(Fault(key, "nothing with that name belongs into a store"))
    for digest in store.digests():
        report.objects += 1
        try:
            store.check_object(digest)
        except (ObjectDamaged, ObjectMissing) as error:
            report.faults.append(Fault(error.key, str(error)))


def _check_named(log: ReleaseLog, entry: Entry, report: Verification) -> None:
    for digest in _named(entry):
        if not log.store.has(digest):
            _missing(report, digest, f"entry {entry.seq}")
    if isinstance(entry.body, Released):
        _check_release(log, entry.body.release, report)


def _named(entry: Entry) -> Iterator[str]:
    body = entry.body
    if isinstance(body, Asked):
        yield from (body.policy, *body.evidence)
    for name in ("shown", "evidence"):
        if isinstance(digest := getattr(body, name, None), str):
            yield digest


def _check_release(log: ReleaseLog, digest: str, report: Verification) -> None:
    store = log.store
    if not store.has(digest):
        return _missing(report, digest, "the log as a release")
    try:
        release = store.release(digest)
    except (MlopsError, ValidationError) as error:
        report.faults.append(Fault(digest, f"the release document cannot be read: {error}"))
        return None
    for named in (release.tests, release.probes):
        if not store.has(named):
            _missing(report, named, f"release {digest}")
    for name, snapshot in _snapshots(release):
        if not store.has(snapshot):
            _missing(report, snapshot, f"release {digest} as its {name}")
            continue
        try:
            files = store.snapshot(snapshot).files
        except (MlopsError, ValidationError, ValueError) as error:
            report.faults.append(Fault(snapshot, f"the snapshot cannot be read: {error}"))
            continue
        for file in files:
            if not store.has(file.digest):
                _missing(report, file.digest, f"release {digest} as {name}/{file.path}")
    return None


def _snapshots(release: Release) -> Iterator[tuple[str, str]]:
    yield from (("data", release.data), ("code", release.code), ("runtime", release.runtime), ("model", release.model))
    for number, component in enumerate(release.components):
        yield f"component {number}", component


def _missing(report: Verification, digest: str, by: str) -> None:
    fault = Fault(digest, f"missing, though it is named by {by}")
    if fault not in report.faults:
        report.faults.append(fault)


def _check_anchors(
    log: ReleaseLog, entries: Mapping[int, Entry], known: Mapping[str, int | tuple[int, str]], report: Verification
) -> None:
    for where, anchor in known.items():
        number, expected = anchor if isinstance(anchor, tuple) else (anchor, None)
        entry = entries.get(number)
        key = f"log/{log.environment}/{number:012d}"
        if entry is None and key not in {fault.key for fault in report.faults}:
            report.faults.append(Fault(key, f"entry {number} is missing, though {where} remembers it"))
        elif entry is not None and expected is not None and entry.hash != expected:
            report.faults.append(Fault(key, f"entry {number} is not the one that {where} remembers"))


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
