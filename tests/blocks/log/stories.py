"""Logs and stores to tell stories with: what a test wants written, without what it does not care for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prefect_mlops.blocks.entry import Actor, Asked, Body, Entry, Move, Released, Seen, Verdict
from prefect_mlops.blocks.log import Draft, ReleaseLog
from prefect_mlops.blocks.release import Release
from prefect_mlops.blocks.split import Split
from prefect_mlops.blocks.state import Service, State
from prefect_mlops.blocks.store import Store
from tests.blocks.store.doubles import Shelf, flaky_store

TESTER = Actor(name="tester", assurance="claimed")
DEADLINE = "2026-01-01T00:00:00.000000Z"
POLICY = "sha256:" + "9" * 64


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


class Teller:
    """Writes entries of one service as the protocol does, one method a sentence."""

    def __init__(self, log: ReleaseLog, *, policy: str = POLICY, service: str = "credit") -> None:
        self.log, self.policy, self.service = log, policy, service
        log.begin({"store": {"url": "memory"}})

    def write(
        self, body: Body, *, rollout: int | None = None, begins: bool = False, closes: int | None = None
    ) -> Entry:
        entry = self.log.append(lambda _: Draft(body, (self.service,), rollout=rollout, begins=begins, closes=closes))
        assert entry is not None
        return entry

    def released(self, release: str) -> Entry:
        number = len(self.known.numbers) + 1
        return self.write(Released(release=release, number=number), begins=True)

    def asked(self, after: Split, *, move: Move = "advance", rollout: int | None = None) -> Entry:
        body = Asked(before=self.known.split, after=after, move=move, policy=self.policy, deadline=DEADLINE)
        return self.write(body, rollout=rollout, begins=rollout is None)

    def seen(self, split: Split | None, verdict: Verdict = "applied") -> Entry:
        asked, fence = self.known.asked, self.known.fence
        assert asked is not None
        assert fence is not None
        body = Seen(split=split, ready={}, fence=fence, verdict=verdict)
        return self.write(body, rollout=asked.rollout, closes=None if verdict == "unknown" else asked.seq)

    def moved(self, after: Split, *, move: Move = "advance", rollout: int | None = None) -> Entry:
        """Asked for and applied; returns the ask, whose number is the rollout's if it began one."""
        asked = self.asked(after, move=move, rollout=rollout)
        self.seen(after)
        return asked

    @property
    def state(self) -> State:
        return self.log.state()

    @property
    def known(self) -> Service:
        return self.state.service(self.service)


def memory_log(shelf: Shelf | None = None) -> ReleaseLog:
    return ReleaseLog(
        flaky_store(shelf or Shelf()), "local", actor=TESTER, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC)
    )


def real_release(store: Store, folder: Path, name: str, number: int) -> str:
    """A release with real bytes behind everything it names."""
    root = folder / f"{name}-{number}"
    for part in ("data", "code", "runtime", "model"):
        (root / part / "more").mkdir(parents=True)
        (root / part / f"{part}.bin").write_bytes(f"{part} {number} ".encode() * 40)
        (root / part / "more" / "shared.txt").write_bytes(part.encode())
    snapshots = {part: store.add(root / part).id for part in ("data", "code", "runtime", "model")}
    tests = store.put(b'{"format":1,"tests":%d}' % number)
    probes = store.put(b'{"format":1,"probes":%d}' % number)
    document = {"service": name, "tests": tests, "probes": probes, **snapshots}
    return store.put_release(Release.model_validate(document))
