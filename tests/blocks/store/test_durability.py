"""What was acknowledged is there after a kill and after a power loss, and nothing is ever half there."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from prefect_mlops.blocks._canonical import digest
from prefect_mlops.blocks._disk import RealDisk
from prefect_mlops.blocks._folder import Folder
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.errors import StoreError, StoreRefused
from prefect_mlops.blocks.store import Store
from tests.blocks.store.power import Names, PowerDisk, PowerLoss
from tests.blocks.store.writer import content

LOG = "log/local"
SOURCE = Path(__file__).with_name("__init__.py")
Acknowledged = dict[str, object]


def on(disk: PowerDisk) -> Store:
    """The store on that disk, as a process sees it that has just started."""
    store = Store(url="/disk/stores/one")
    store._backend = Folder(Path("/disk/stores/one"), disk)
    return store


def new_disk(kind: type[PowerDisk] = PowerDisk) -> PowerDisk:
    disk = Names()
    return kind(Names({"disk": disk}, {"disk": disk}))


def keep(store: Store, acknowledged: Acknowledged) -> None:
    """Objects and journals, noting each thing once it was acknowledged."""
    acknowledged["id"] = store.id
    for number in range(2):
        name = store.put(b"object %d" % number)
        acknowledged[name] = b"object %d" % number
    assert store.put(b"object 0") in acknowledged
    for number in range(3):
        assert store.journal(LOG).append(number, b"entry %d" % number)
        acknowledged[f"entry {number}"] = number
    store._objects.put_stream(digest(b"streamed"), lambda: [b"str", b"eamed"])
    acknowledged[digest(b"streamed")] = b"streamed"


def commit(store: Store, acknowledged: Acknowledged) -> None:
    """A commit on a branch, of data in packs."""
    snapshot = store.pack(SOURCE)
    acknowledged["packed"] = snapshot.id
    acknowledged["commit"], _ = Branch(store, "main").commit(snapshot, source="source")


Work = Callable[[Store, Acknowledged], None]
both = pytest.mark.parametrize("work", [keep, commit])


def check(store: Store, acknowledged: Acknowledged) -> None:
    """What was acknowledged is there; what is there is whole."""
    journal = store.journal(LOG)
    for name in store.digests():
        store.get(name)
    for number in journal.numbers():
        assert journal.read(number) == b"entry %d" % number
    assert list(store.strays()) == []
    assert list(store.packs_proof().faults()) == []
    for name, value in acknowledged.items():
        if name == "id":
            assert store.id == value
        elif name == "commit":
            assert Branch(store, "main").head == value
            store.commit_at(str(value))
        elif name == "packed":
            store.check(str(value))
        elif name.startswith("entry"):
            assert isinstance(value, int)
            assert journal.read(value) == name.encode()
        else:
            assert store.get(name) == value


def unfinished(disk: PowerDisk) -> list[str]:
    """What killed puts left behind; a killed proof is left to be swept after a day."""
    return [name for name, _ in disk.scan("/disk/stores/one/tmp") if not name.startswith("proof-")]


def steps_of(work: Work, disk: PowerDisk) -> int:
    work(on(disk), {})
    return disk.steps


def crashed(work: Work, stop_at: int) -> tuple[PowerDisk, Acknowledged]:
    disk, acknowledged = new_disk(), {}
    disk.stop_at = stop_at
    with pytest.raises(PowerLoss):
        work(on(disk), acknowledged)
    return disk, acknowledged


@both
def test_power_loss_at_every_step(work: Work) -> None:
    for stop_at in range(steps_of(work, new_disk())):
        disk, acknowledged = crashed(work, stop_at)
        rng = random.Random(stop_at)
        for luck in (0.0, 1.0, *[0.5] * 6):
            after = disk.after_power_loss(rng, luck)
            known = dict(acknowledged)
            check(on(after), known)
            work(on(after), known)
            check(on(after.after_power_loss(rng, 0.0)), known)
            assert unfinished(after) == []


@both
def test_a_kill_at_every_step_and_then_a_power_loss(work: Work) -> None:
    """The second process finds what the first had not synced yet, and must not take it for safe."""
    for stop_at in range(steps_of(work, new_disk())):
        disk, acknowledged = crashed(work, stop_at)
        disk = disk.killed()
        check(on(disk), acknowledged)
        work(on(disk), acknowledged)
        assert unfinished(disk) == []
        for luck in (0.0, 0.5, 0.5):
            check(on(disk.after_power_loss(random.Random(stop_at), luck)), acknowledged)


class ForgetsNames(PowerDisk):
    """Ignores the sync of folders."""

    def sync(self, descriptor: int) -> None:
        if not isinstance(self._open[descriptor][0], Names):
            super().sync(descriptor)


class ForgetsBytes(PowerDisk):
    """Ignores the sync of files."""

    def sync(self, descriptor: int) -> None:
        if isinstance(self._open[descriptor][0], Names):
            super().sync(descriptor)


@both
@pytest.mark.parametrize("kind", [ForgetsNames, ForgetsBytes])
def test_the_double_can_lose_things(kind: type[PowerDisk], work: Work) -> None:
    """Without each of the two kinds of sync something is lost, so the tests above mean something."""
    disk, acknowledged = new_disk(kind), {}
    work(on(disk), acknowledged)
    with pytest.raises((AssertionError, StoreError)):
        check(on(disk.after_power_loss(random.Random(0), 0.0)), acknowledged)


def _lines(stream: IO[str]) -> Iterator[list[str]]:
    for line in stream:
        yield line.split()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.blocks.store.writer", str(tmp_path / "store")]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0


def test_sigkill_at_random_moments(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    assert writer.stdout
    assert writer.stdin
    rng, lines, acknowledged = random.Random(0), _lines(writer.stdout), {}
    assert next(lines) == ["ready"]
    for _ in range(40):
        writer.stdin.write("begin\n")
        writer.stdin.flush()
        doomed, enough = 0, len(acknowledged) + rng.randint(0, 12)
        for what, *facts in lines:
            if what == "dead":
                break
            if what == "pid":
                doomed = int(facts[0])
            else:
                acknowledged[int(facts[0])] = facts[1]
            if doomed and len(acknowledged) >= enough:
                os.kill(doomed, signal.SIGKILL)
                enough = sys.maxsize
    store = Store(url=str(tmp_path / "store"))
    entries = dict(store.journal(LOG).entries())
    assert entries.keys() >= acknowledged.keys()
    assert all(data == content(number) for number, data in entries.items())
    for number, name in acknowledged.items():
        assert store.get(name) == b"object " + content(number)
    for name in store.digests():
        store.get(name)
    store.put(b"sweeps")
    assert [path for path in (tmp_path / "store" / "tmp").iterdir() if "part" in path.name] == []


def test_a_living_writers_file_is_not_swept(tmp_path: Path) -> None:
    """Two processes share the folder; the second starts, and sweeps, while the first writes."""
    first, second = Folder(tmp_path / "store"), Folder(tmp_path / "store")

    def slow() -> Iterator[bytes]:
        yield b"one "
        assert second.put_new("objects/other", b"x")
        yield b"two"

    assert first.put_new_stream("objects/slow", slow())
    assert first.get("objects/slow") == b"one two"


class SweptAtOnce(RealDisk):
    """Another process sweeps just when a file was made and is not locked yet."""

    def __init__(self, sweeper: Folder) -> None:
        self._sweepers = [sweeper]

    def create(self, path: str) -> int:
        descriptor = super().create(path)
        if self._sweepers:
            assert self._sweepers.pop().put_new("objects/other", b"x")
            assert not Path(path).exists()
        return descriptor


def test_a_file_swept_before_it_was_locked_is_made_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert Folder(store, SweptAtOnce(Folder(store))).put_new("objects/mine", b"x")
    assert Folder(store).get("objects/mine") == b"x"


def test_what_another_machine_left_is_swept_after_a_day(tmp_path: Path) -> None:
    scratch = tmp_path / "store" / "tmp"
    scratch.mkdir(parents=True)
    for name, age in [("part-othermachine-1", 0), ("part-othermachine-2", 90_000), ("proof-1", 90_000)]:
        (scratch / name).write_bytes(b"...")
        now = (scratch / name).stat().st_mtime
        os.utime(scratch / name, (now - age, now - age))
    Folder(tmp_path / "store").put_new("objects/a", b"a")
    assert [path.name for path in scratch.iterdir()] == ["part-othermachine-1"]


class Broken(RealDisk):
    """A file system on which one call fails."""

    def __init__(self, call: str, number: int) -> None:
        self._failing = (call, number)

    def __getattribute__(self, name: str) -> object:
        failing = object.__getattribute__(self, "_failing")
        if name != failing[0]:
            return object.__getattribute__(self, name)

        def fail(*_: object) -> None:
            raise OSError(failing[1], os.strerror(failing[1]))

        return fail


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        ("link", "EPERM", "its file system has no hard links"),
        ("link", "EOPNOTSUPP", "its file system has no hard links"),
        ("claim", "ENOLCK", "hard links and locks"),
        ("write", "ENOSPC", "free some space"),
        ("create", "EROFS", "mount it for writing"),
        ("make_folder", "EACCES", "give this user the right"),
    ],
)
def test_a_place_that_is_not_fit_is_refused(tmp_path: Path, call: str, error: str, says: str) -> None:
    store = Store(url=str(tmp_path / "store"))
    store._backend = Folder(tmp_path / "store", Broken(call, getattr(errno, error)))
    with pytest.raises(StoreRefused, match=says) as caught:
        store.put(b"a")
    assert str(tmp_path / "store") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(store.digests()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreRefused, match="name a folder"):
        Store(url=str(tmp_path / "store")).put(b"a")
