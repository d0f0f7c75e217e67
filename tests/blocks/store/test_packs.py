"""Packs: the same snapshots in less space, on a folder and in a bucket, whatever is killed or changed."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_mlops.blocks._chunks import LARGEST, chunks
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import Invalid, ObjectDamaged, ObjectMissing
from prefect_mlops.blocks.store import Store

Connect = Callable[[], Store]
MIB = 1 << 20


def rows(seed: int, size: int) -> bytes:
    """Text such as a table's, of about `size` bytes."""
    draw = random.Random(seed)
    line = b"%d,%d,%.4f,Private,HS-grad,%d\n"
    return b"".join(
        line % (number, draw.randrange(99), draw.random(), draw.randrange(9)) for number in range(size // 34)
    )


def alike(seed: int, size: int) -> bytes:
    """Lines that differ only far behind their beginnings, as those of a log do."""
    draw = random.Random(seed)
    line = b'{"time":"2026-01-01T00:00:00Z","service":"credit","score":%.9f}\n'
    return b"".join(line % draw.random() for _ in range(size // 70))


KINDS = {"rows": rows, "alike": alike, "noise": lambda seed, size: random.Random(seed).randbytes(size)}


def cut(content: bytes) -> list[bytes]:
    return [bytes(chunk) for chunk in chunks(io.BytesIO(content).readinto)]


def kept(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.integers(1, 3 * MIB).map(bytes),
            st.tuples(st.integers(0, 9), st.integers(1, 3 * MIB)).map(lambda one: rows(*one)),
            st.tuples(st.integers(0, 9), st.integers(1, 3 * MIB)).map(
                lambda one: random.Random(one[0]).randbytes(one[1])
            ),
        ),
        max_size=5,
    ).map(b"".join)
)
def test_chunks_are_the_file_and_none_is_too_large(content: bytes) -> None:
    found = cut(content)
    assert b"".join(found) == content
    assert all(0 < len(chunk) <= LARGEST for chunk in found)


@pytest.mark.parametrize("steps", [1, 7, 4096, 100_000])
def test_chunks_do_not_depend_on_how_a_file_is_read(steps: int) -> None:
    content = rows(1, 3 * MIB)
    source = io.BytesIO(content)
    found = [bytes(chunk) for chunk in chunks(lambda buffer: source.readinto(buffer[: max(steps, len(buffer) // 50)]))]
    assert found == cut(content)


def test_chunks_that_somebody_holds_stay_as_they_are() -> None:
    content = rows(1, 48 * MIB)
    source = io.BytesIO(content)
    assert b"".join(list(chunks(source.readinto))) == content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edit", ["replaced", "inserted", "removed"])
def test_an_edit_changes_the_chunks_around_it_alone(kind: str, edit: str) -> None:
    size, middle, much = 48 * MIB, 24 * MIB, MIB // 2
    before = KINDS[kind](1, size)
    new = b"" if edit == "removed" else random.Random(2).randbytes(much)
    after = before[:middle] + new + before[middle if edit == "inserted" else middle + much :]
    old = set(cut(before))
    added = sum(len(chunk) for chunk in cut(after) if chunk not in old)
    assert added <= len(new) + 3 * LARGEST


def tree(folder: Path) -> Path:
    """A folder with small, large, empty and equal files."""
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "big.csv").write_bytes(rows(1, 3 * MIB))
    (folder / "noise").write_bytes(random.Random(1).randbytes(MIB))
    (folder / "empty").write_bytes(b"")
    (folder / "deep" / "er" / "größe").write_text("x")
    (folder / "deep" / "same").write_text("x")
    for number in range(300):
        (folder / "deep" / f"{number}").write_text(f"{number}\n" * number)
    return folder


def test_a_packed_snapshot_is_the_same_snapshot(store: Store, connect: Connect, tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    packed = store.pack(source)
    assert connect().pack(source) == packed
    connect().check(packed.id)
    assert connect().checkout(packed.id, tmp_path / "out") == packed
    assert store.add(tmp_path / "out") == packed
    assert list(store.strays()) == []


def test_what_is_known_takes_no_space(store: Store, connect: Connect, tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    store.pack(source)
    before = set(store._guarded.list(""))
    assert connect().pack(source) == store.pack(source)
    assert set(store._guarded.list("")) == before

    (source / "deep" / "new").write_text("new")
    connect().pack(source)
    new = set(store._guarded.list("")) - before
    assert sorted(key.partition("/")[0] for key in new) == ["indexes", "objects", "packs"]


def test_a_large_file_that_was_edited_adds_little(tmp_path: Path) -> None:
    store, path = Store(url=str(tmp_path / "store")), tmp_path / "data.csv"
    content = rows(1, 32 * MIB)
    path.write_bytes(content)
    first = store.pack(path)
    before = kept(tmp_path / "store")
    edit = rows(2, MIB // 3)
    path.write_bytes(content[: 16 * MIB] + edit + content[16 * MIB + len(edit) :])
    second = store.pack(path)
    assert second != first
    assert kept(tmp_path / "store") - before < len(edit) + 2 * LARGEST
    store.checkout(second.id, tmp_path / "out")
    assert (tmp_path / "out" / "data.csv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("room", ["packs", "indexes"])
def test_damage_is_never_checked_out(tmp_path: Path, room: str) -> None:
    store = Store(url=str(tmp_path / "store"))
    snapshot = store.pack(tree(tmp_path / "source"))
    victims = sorted((tmp_path / "store" / room).rglob("?" * 62))
    draw = random.Random(3)
    for number in range(40):
        victim = draw.choice(victims)
        whole = victim.read_bytes()
        at = draw.randrange(len(whole))
        victim.chmod(0o600)
        victim.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
        key = victim.relative_to(tmp_path / "store").as_posix()
        again = Store(url=str(tmp_path / "store"))
        assert key in {fault for fault, _ in again.packs_proof().faults()}
        try:
            again.checkout(snapshot.id, tmp_path / f"out-{number}")
        except (ObjectDamaged, ObjectMissing) as error:
            assert key in str(error) or room == "indexes"  # noqa: PT017
        else:
            assert store.add(tmp_path / f"out-{number}") == snapshot  # the table of a pack is only read by a check
        victim.write_bytes(whole)
    assert list(store.packs_proof().faults()) == []


def test_a_file_that_changes_while_it_is_packed_is_refused(tmp_path: Path) -> None:
    store, path = Store(url=str(tmp_path / "store")), tmp_path / "data.csv"
    content = rows(1, 8 * MIB)
    path.write_bytes(content)
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys\nwhile True:\n open(sys.argv[1], 'ab').write(b'1,2\\n')", str(path)]
    )
    try:
        assert wait_until(lambda: path.stat().st_size > len(content), seconds=30)
        with pytest.raises(Invalid, match="stays as it is while it is added"):
            store.pack(path)
    finally:
        writer.kill()
        writer.wait()


PACKER = """
import sys
from pathlib import Path
from prefect_mlops.blocks.store import Store
print("ready", flush=True)
print(Store(url=sys.argv[1]).pack(Path(sys.argv[2])).id, flush=True)
"""


def packer(store: Path, source: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PACKER, str(store), str(source)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_at_any_moment_it_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    (source / "more.csv").write_bytes(rows(3, 80 * MIB))
    reference = Store(url=str(tmp_path / "reference"))
    began = time.monotonic()
    expected = reference.pack(source).id
    whole = time.monotonic() - began
    draw = random.Random(4)
    for number in range(34):
        folder = tmp_path / f"store-{number % 3}"
        with packer(folder, source) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.uniform(0, whole * 1.2))
            process.send_signal(signal.SIGKILL)
            acknowledged = process.stdout.read().strip()
        store = Store(url=str(folder))
        if folder.exists():
            assert list(store.packs_proof().faults()) == []
        if acknowledged:
            store.check(acknowledged)
        (source / f"new-{number}").write_text(f"{number}")
        if number % 3 == 2:
            snapshot = store.pack(source)
            store.check(snapshot.id)
            assert snapshot == reference.pack(source)
    assert expected


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say how much memory was used")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        for seed in range(100):
            file.write(random.Random(seed).randbytes(8 * MIB))
    code = PACKER + 'print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))'
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "big")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(said[-1]) * 1024 < 300 * MIB
