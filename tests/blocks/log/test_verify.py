"""Whatever is changed in a store, `verify` names it."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prefect_mlops.blocks._canonical import canonical
from prefect_mlops.blocks._objects import key_of
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.entry import Approval, Entry, Judged, Settled, Taken
from prefect_mlops.blocks.log import ReleaseLog
from prefect_mlops.blocks.split import Split
from prefect_mlops.blocks.store import Store
from prefect_mlops.blocks.verify import to_json, verify
from tests.blocks.log.stories import DEADLINE, TESTER, Teller, digest, real_release


@dataclass
class Place:
    """A store with a history, and the receipt outside of it."""

    root: Path
    receipts: Path

    def log(self) -> ReleaseLog:
        return ReleaseLog(Store(url=str(self.root)), "local", actor=TESTER, receipts=self.receipts)

    def faults(self) -> dict[str, str]:
        report = verify(self.log())
        assert json.loads(json.dumps(to_json(report)))["verified"] is report.verified
        return {fault.key: fault.what for fault in report.faults}

    def files(self) -> list[str]:
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return sorted(path for path in found if not path.startswith("tmp/"))

    def entry(self, number: int) -> Path:
        return self.root / f"log/local/{number:012d}"


def history(folder: Path) -> Place:
    """Four releases with real bytes, put live, judged, approved and rolled back: more than thirty entries.

    Beside them a branch of five commits, whose data is in packs; four of them were taken to train on.
    """
    place = Place(folder / "store", folder / "receipts")
    log = place.log()
    store = log.store
    teller = Teller(log, policy=store.put(b'{"policy":1}'))
    releases = [real_release(store, folder / "made", "credit", number) for number in range(4)]
    for number, release in enumerate(releases):
        begun = teller.released(release).seq
        old = teller.known.split.live[:1]
        teller.moved(
            Split.model_validate({"arms": [*old, {"release": release, "role": "warm", "percent": 0}]}), rollout=begun
        )
        shown = store.put(b"page %d" % number)
        teller.write(
            Judged(release=release, gate="probes", outcome="passed", evidence=store.put(b"probed %d" % number))
        )
        teller.write(Approval(release=release, decision="approved", shown=shown))
        teller.moved(Split.of(release, warm=[arm.release for arm in old]), rollout=begun)
    teller.moved(Split.of(releases[2], warm=[releases[3]]), move="rollback")
    teller.asked(Split.of(releases[3]))
    teller.seen(None, "unknown")
    teller.seen(Split.of(releases[2], warm=[releases[3]]), "undone")
    for number in range(5):
        for part in ("first", "second"):
            (folder / "packed" / part).mkdir(parents=True, exist_ok=True)
            rows = "".join(f"{part},{number},{row}\n" for row in range(50))
            (folder / "packed" / part / "rows.csv").write_text(rows)
        commit, _ = Branch(store, "main").commit(store.pack(folder / "packed"), source="made")
        if number < 4:
            taken = teller.write(Taken(branch="main", move=number, commit=commit, deadline=DEADLINE))
            evidence = store.put(b"refused %d" % number)
            teller.write(Settled(outcome="failed", detail="bad data", evidence=evidence), closes=taken.seq)
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return history(tmp_path_factory.mktemp("history"))


@pytest.fixture
def own(tmp_path: Path) -> Place:
    """A small history that a test may spoil for good."""
    place = Place(tmp_path / "store", tmp_path / "receipts")
    teller = Teller(place.log(), policy=place.log().store.put(b"policy"))
    teller.released(real_release(teller.log.store, tmp_path / "made", "credit", 1))
    teller.moved(Split.of(next(iter(teller.known.numbers))))
    return place


def test_a_sound_store_is_verified_to_the_last_byte(place: Place) -> None:
    report = verify(place.log())
    assert report.faults == []
    assert report.entries == place.log().state().next > 30
    assert report.objects == len(
        [file for file in place.files() if file.startswith(("objects/", "packs/", "indexes/"))]
    )
    assert any("not signed" in sentence for sentence in report.unproven)
    assert "that no branch lost its newest moves: nothing outside the store remembers them" in report.unproven


# --- one corruption at a time, chosen at random, put right again


class Spoiler:
    """Spoils a store in one random way, and says which keys `verify` must name, any one of each group."""

    def __init__(self, place: Place, rng: random.Random) -> None:
        self.place, self.rng = place, rng
        self.saved: dict[Path, bytes | None] = {}
        self.ways: list[Callable[[], list[set[str]]]] = [
            self.changed, self.changed, self.changed, self.removed, self.removed, self.swapped, self.truncated,
            self.extended, self.emptied, self.doubled, self.foreign, self.cut_off, self.replaced,
        ]  # fmt: skip

    def spoil(self) -> tuple[str, list[set[str]]]:
        way = self.rng.choice(self.ways)
        return way.__name__, way()

    def mend(self) -> None:
        for path, data in self.saved.items():
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data)
        self.saved.clear()

    def write(self, key: str, data: bytes | None) -> None:
        path = self.place.root / key
        self.saved.setdefault(path, path.read_bytes() if path.exists() else None)
        if data is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def any(self) -> tuple[str, bytes]:
        """A file, as often an entry as an object or a pack, and now and then the identity or an end of the log."""
        rooms = ("log/", "objects/", "branches/", "packs/", "indexes/")
        found = {room: [key for key in self.place.files() if key.startswith(room)] for room in rooms}
        ends = [found["log/"][0], found["log/"][-1], "store.json"]
        key = self.rng.choice(self.rng.choice([*found.values(), found["log/"], found["objects/"], ends]))
        return key, (self.place.root / key).read_bytes()

    def changed(self) -> list[set[str]]:
        key, data = self.any()
        where, change = self.rng.randrange(len(data)), self.rng.randrange(1, 256)
        self.write(key, data[:where] + bytes([data[where] ^ change]) + data[where + 1 :])
        return [{key}]

    def removed(self) -> list[set[str]]:
        key, _ = self.any()
        if key == "branches/main/000000000004":
            return []  # nothing remembers the newest move of a branch, and `verify` says that it cannot prove it
        self.write(key, None)
        return [{key, *self.packed()} if key.startswith("indexes/") else {key}]

    def packed(self) -> set[str]:
        """The names of what is found through indexes alone."""
        store = Store(url=str(self.place.root))
        snapshots = [store.snapshot(commit.snapshot) for _, commit in Branch(store, "main").log()]
        return {key_of(file.digest) for snapshot in snapshots for file in snapshot.files}

    def swapped(self) -> list[set[str]]:
        entries = [key for key in self.place.files() if key.startswith("log/")]
        one, two = self.rng.sample(entries, 2)
        first, second = (self.place.root / one).read_bytes(), (self.place.root / two).read_bytes()
        self.write(one, second)
        self.write(two, first)
        return [{one}, {two}]

    def truncated(self) -> list[set[str]]:
        key, data = self.any()
        self.write(key, data[: self.rng.randrange(len(data))])
        return [{key}]

    def extended(self) -> list[set[str]]:
        key, data = self.any()
        self.write(key, data + self.rng.choice([b"\n", b"\0", b"more", data]))
        return [{key}]

    def emptied(self) -> list[set[str]]:
        key, _ = self.any()
        self.write(key, b"")
        return [{key}]

    def doubled(self) -> list[set[str]]:
        key, data = self.any()
        free = f"objects/sha256/{self.rng.randrange(256):02x}/{self.rng.getrandbits(248):062x}"
        far = f"log/local/{self.rng.choice([len(self.place.files()), 999_999_999_999]):012d}"
        new = self.rng.choice([free, far, "log/other/000000000000", f"{key}.bak", "branch/x/000000000000"])
        self.write(new, data)
        return [{new}]

    def foreign(self) -> list[set[str]]:
        names = ["notes.txt", "log/local/readme", "log/local/0", "objects/x", ".DS_Store", "a/b/c", "log/000000000000"]
        new = self.rng.choice(names)
        self.write(new, self.rng.randbytes(20))
        return [{new}]

    def cut_off(self) -> list[set[str]]:
        """The last entries are gone: only the receipt remembers the very last."""
        entries = [key for key in self.place.files() if key.startswith("log/")]
        for key in entries[-self.rng.randint(1, 5) :]:
            self.write(key, None)
        return [{entries[-1]}]

    def replaced(self) -> list[set[str]]:
        """An entry is rewritten by somebody who knows the format: the chain or the receipt tells."""
        number = self.rng.randrange(1, len(list(self.place.entry(0).parent.iterdir())))
        entry = Entry.decode(number, self.place.entry(number).read_bytes())
        key = f"log/local/{number:012d}"
        self.write(key, entry.model_copy(update={"reason": "a better story"}).encode())
        return [{key, f"log/local/{number + 1:012d}"}]


def spoil_many(place: Place, seeds: Iterator[int]) -> None:
    for seed in seeds:
        spoiler = Spoiler(place, random.Random(seed))
        way, expected = spoiler.spoil()
        found = place.faults()
        spoiler.mend()
        for group in expected:
            assert group & set(found), f"seed {seed}: {way} {group}, verify named {found}"
    assert place.faults() == {}


def test_random_corruptions_are_named(place: Place) -> None:
    spoil_many(place, iter(range(150)))


@pytest.mark.slow
def test_a_thousand_random_corruptions_are_named(tmp_path: Path) -> None:
    spoil_many(history(tmp_path), iter(range(1000, 2000)))


# --- particular ones


def test_a_key_far_beyond_the_end_does_not_keep_verify_busy(own: Place) -> None:
    shutil.copy(own.entry(1), own.entry(999_999_999_999))
    faults = own.faults()
    assert set(faults) == {"log/local/000000000004", "log/local/999999999999"}
    assert faults["log/local/000000000004"].startswith("entry 4 to 999999999998 are missing")


def test_links_are_checked_behind_a_gap(own: Place) -> None:
    own.entry(1).unlink()
    entry = Entry.decode(2, own.entry(2).read_bytes())
    own.entry(2).write_bytes(entry.model_copy(update={"reason": "another"}).encode())
    assert own.faults()["log/local/000000000003"] == "it does not name the hash of entry 2"


def test_a_log_copied_over_from_another_environment_is_named(own: Place) -> None:
    for path in sorted(own.entry(0).parent.iterdir()):
        (own.root / "log/production").mkdir(exist_ok=True)
        shutil.copy(path, own.root / "log/production" / path.name)
    assert own.faults()["log/production/000000000000"] == "it is of the log of local"
    report = verify(ReleaseLog(Store(url=str(own.root)), "production", actor=TESTER))
    assert not report.verified
    assert report.entries == 0


def test_another_stores_identity_is_named(own: Place, tmp_path: Path) -> None:
    other = Store(url=str(tmp_path / "other"))
    assert other.id
    shutil.copy(tmp_path / "other/store.json", own.root / "store.json")
    assert "the log is that of store" in own.faults()["store.json"]


def test_a_release_of_another_service_is_named(own: Place) -> None:
    log = own.log()
    release = next(iter(log.state().service("credit").numbers))
    Teller(log, service="fraud").released(release)
    assert "it is a release of credit, and the log says of fraud" in own.faults()[key_of(release)]


def test_objects_that_are_no_documents_are_named(own: Place) -> None:
    log = own.log()
    Teller(log).released(log.store.put(b"no release"))
    Teller(log).released(digest(5))
    faults = own.faults()
    assert "cannot be read" in faults[key_of(log.store.put(b"no release"))]
    assert faults[key_of(digest(5))].startswith("missing")


@pytest.mark.parametrize("key", ["store.json", "log/local/000000000002", "log/local/000000000003"])
def test_a_folder_where_a_file_belongs_is_named(own: Place, key: str) -> None:
    (own.root / key).unlink()
    (own.root / key).mkdir()
    assert key in own.faults()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_what_may_not_be_read_is_named(own: Place) -> None:
    own.entry(1).chmod(0)
    assert "log/local/000000000001" in own.faults()


def test_an_anchor_tells_of_a_tail_that_was_cut_off(own: Place) -> None:
    log = own.log()
    report = verify(log, {"the gateway": 7})
    assert [(fault.key, fault.what) for fault in report.faults] == [
        ("log/local/000000000007", "entry 7 is missing, though the gateway remembers it")
    ]
    assert not verify(log, {"the gateway": (2, "sha256:" + "0" * 64)}).verified
    assert verify(log, {"the gateway": 2}).verified


def test_to_verify_nothing_says_so_and_makes_no_store(tmp_path: Path) -> None:
    report = verify(ReleaseLog(Store(url=str(tmp_path / "typo")), "local", actor=TESTER, receipts=tmp_path / "r"))
    assert [fault.key for fault in report.faults] == ["log/local/000000000000"]
    assert not (tmp_path / "typo").exists()


def test_a_receipt_that_cannot_be_kept_loses_no_entry(own: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    log = ReleaseLog(Store(url=str(own.root)), "local", actor=TESTER, receipts=tmp_path / "file")
    assert Teller(log).released(digest(7)).seq == 4
    assert own.log().state().next == 5


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"seq":"x"}', b"\xff"])
def test_a_spoilt_receipt_proves_nothing_and_breaks_nothing(own: Place, junk: bytes) -> None:
    (receipt,) = own.receipts.iterdir()
    receipt.write_bytes(junk)
    assert verify(own.log()).verified
    receipt.write_bytes(canonical({"seq": 3, "hash": "sha256:" + "0" * 64}))
    assert set(own.faults()) == {"log/local/000000000003"}


def test_time_is_told_of_the_real_clock(own: Place) -> None:
    entry = next(own.log().entries())
    assert abs((datetime.fromisoformat(entry.time) - datetime.now(UTC)).total_seconds()) < 3600
