"""What a store promises, on a folder and on a bucket alike."""

from __future__ import annotations

import copy
import os
import pickle
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import pytest

from prefect_mlops.blocks import _tree
from prefect_mlops.blocks._canonical import digest
from prefect_mlops.blocks.errors import Invalid, ObjectDamaged, ObjectMissing, StoreRefused
from prefect_mlops.blocks.release import File, Release, Snapshot
from prefect_mlops.blocks.store import Store

Connect = Callable[[], Store]
NOTHING = digest(b"never stored")
A = digest(b"a")


def tamper(store: Store, key: str, data: bytes | None) -> None:
    """Do behind the store's back what nothing of ours does: change or remove what is there."""
    if store.url.startswith("/"):
        path = Path(store.url) / key
        path.unlink(missing_ok=True)
        if data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return
    backend: Any = store._guarded._backend
    obstore.delete(backend._store, key)
    if data is not None:
        obstore.put(backend._store, key, data)


def key(name: str) -> str:
    return f"objects/sha256/{name[7:9]}/{name[9:]}"


@pytest.mark.parametrize("data", [b"", b"a", os.urandom(3 << 20)], ids=["empty", "one byte", "3 MiB"])
def test_bytes_come_back(store: Store, connect: Connect, data: bytes) -> None:
    name = store.put(data)
    assert name == digest(data)
    assert connect().get(name) == data
    assert connect().has(name)
    assert not connect().has(NOTHING)


def test_the_same_bytes_are_kept_once(store: Store) -> None:
    assert store.put(b"a") == store.put(b"a")
    assert list(store.digests()) == [A]


def test_what_is_missing_is_named(store: Store) -> None:
    store.put(b"a")
    with pytest.raises(ObjectMissing, match=key(NOTHING)):
        store.get(NOTHING)


@pytest.mark.parametrize("damage", [b"b", b"", b"aa"])
def test_damage_is_found_when_read_and_when_put_again(store: Store, damage: bytes) -> None:
    name = store.put(b"a")
    tamper(store, key(name), damage)
    for action in (lambda: store.get(name), lambda: store.put(b"a")):
        with pytest.raises(ObjectDamaged) as caught:
            action()
        assert caught.value.args == (store.url, key(name), digest(damage))
        assert key(name) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "a" * 64, "sha256:" + "A" * 64, "sha256:../../../../etc/passwd", "md5:" + "0" * 32]
)
def test_only_digests_name_objects(store: Store, name: str) -> None:
    for action in (store.get, store.has, store.snapshot, store.release, store.check):
        with pytest.raises(Invalid, match="a digest"):
            action(name)


def test_identity_is_drawn_once(connect: Connect) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: connect().id, range(8)))
    assert len(ids) == 1
    assert re.fullmatch(r"[0-9a-f]{32}", ids.pop())


def test_identity_that_was_removed_or_changed_is_noticed(store: Store, connect: Connect) -> None:
    store.put(b"a")
    kept = store._guarded.get("store.json")
    assert kept is not None
    tamper(store, "store.json", None)
    with pytest.raises(StoreRefused, match=r"holds things but no store\.json"):
        connect().put(b"b")
    tamper(store, "store.json", kept.replace(b"format", b"formal"))
    with pytest.raises(ObjectDamaged, match=r"store\.json"):
        _ = connect().id
    tamper(store, "store.json", kept)
    assert connect().id == store.id


def test_a_store_of_a_later_format_is_refused(store: Store, connect: Connect) -> None:
    line = b'{"format":2,"hash":"sha256","id":"%s"}' % store.id.encode()
    tamper(store, "store.json", line + b"\n" + digest(line)[7:].encode() + b"\n")
    with pytest.raises(StoreRefused, match="use the version of this library that wrote it"):
        connect().put(b"a")


def test_snapshots_come_back_whole(store: Store, connect: Connect, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "a b.txt").write_bytes(b"1")
    (source / "deep" / "er" / "größe").write_bytes(os.urandom(2_500_000))
    (source / "deep-file").write_bytes(b"")
    (source / "link").symlink_to("deep/er/größe")
    snapshot = store.add(source)
    assert [file.path for file in snapshot.files] == ["a b.txt", "deep-file", "deep/er/größe", "link"]
    assert store.add(source).id == snapshot.id
    assert connect().snapshot(snapshot.id) == snapshot
    assert connect().checkout(snapshot.id, tmp_path / "to" / "out") == snapshot
    assert store.add(tmp_path / "to" / "out").id == snapshot.id
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["out"]
    connect().check(snapshot.id)


def test_one_file_is_a_snapshot_too(store: Store, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"1,2\n")
    snapshot = store.add(tmp_path / "data.csv")
    assert [(file.path, file.size) for file in snapshot.files] == [("data.csv", 4)]
    assert snapshot.files[0].digest == digest(b"1,2\n")
    assert digest(snapshot.canonical()) == snapshot.id


@pytest.mark.parametrize("damage", [None, b"x"], ids=["missing", "changed"])
@pytest.mark.parametrize("which", ["manifest", "file"])
def test_a_damaged_snapshot_is_never_checked_out(
    store: Store, tmp_path: Path, which: str, damage: bytes | None
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    snapshot = store.add(source)
    bad = snapshot.id if which == "manifest" else digest(b"b")
    tamper(store, key(bad), damage)
    for action in (lambda: store.check(snapshot.id), lambda: store.checkout(snapshot.id, tmp_path / "out")):
        with pytest.raises(ObjectMissing if damage is None else ObjectDamaged, match=key(bad)):
            action()
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_manifest_that_lies_about_a_size(store: Store, tmp_path: Path) -> None:
    lie = Snapshot(files=(File(path="a", size=2, digest=store.put(b"a")),))
    store.put(lie.canonical())
    for action in (lambda: store.check(lie.id), lambda: store.checkout(lie.id, tmp_path / "out")):
        with pytest.raises(Invalid, match="is that of its bytes, 1, got 2"):
            action()
    assert not (tmp_path / "out").exists()


def test_checkout_leaves_other_files_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    snapshot = store.add(tmp_path / "file")
    out = tmp_path / "out"
    out.mkdir()
    store.checkout(snapshot.id, out)
    store.checkout(snapshot.id, out)
    (out / "file").write_bytes(b"2")
    with pytest.raises(Invalid, match="holds just this snapshot"):
        store.checkout(snapshot.id, out)
    assert (out / "file").read_bytes() == b"2"


def test_checkout_where_nothing_can_be_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    snapshot = store.add(tmp_path / "file")
    for folder in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/out")):
        with pytest.raises(Invalid, match="can be written, got"):
            store.checkout(snapshot.id, folder)
    assert (tmp_path / "file").read_bytes() == b"1"


def test_many_checkouts_at_once(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / str(number)).write_bytes(os.urandom(1000))
    snapshot = store.add(source)
    for place in ("out-1", "out-2", "out-3"):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _, place=place: store.checkout(snapshot.id, tmp_path / place), range(8)))
        assert store.add(tmp_path / place).id == snapshot.id
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out-1", "out-2", "out-3"]


def test_a_killed_checkout_is_swept(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    snapshot = store.add(tmp_path / "file")
    (tmp_path / ".out.draft-0123").mkdir()
    (tmp_path / ".out.draft-0123" / "half").write_bytes(b"...")
    store.checkout(snapshot.id, tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def _socket(folder: Path) -> None:
    path = os.open(folder, os.O_RDONLY)  # a socket's own path may be too long
    try:
        socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{path}/odd")
    finally:
        os.close(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: (folder / "odd").symlink_to("/etc/hostname"), "stays inside"),
        (lambda folder: (folder / "odd").symlink_to("nowhere"), "no such file"),
        (lambda folder: (folder / "odd").symlink_to("."), "is a plain file, got 'folder'"),
        (lambda folder: os.mkfifo(folder / "odd"), "is a plain file, got 'pipe'"),
        (lambda folder: (folder / "back\\slash").touch(), "rename it"),
        (lambda folder: os.close(os.open(os.fsencode(folder) + b"/\xff", os.O_CREAT | os.O_WRONLY)), "rename it"),
    ],
    ids=["link out", "broken link", "folder link", "pipe", "backslash", "no text"],
)
def test_odd_files_are_refused(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    store, source = Store(url=str(tmp_path / "store")), tmp_path / "source"
    source.mkdir()
    make(source)
    with pytest.raises(Invalid, match=re.escape(says)):
        store.add(source)
    assert list(store.digests()) == []


def test_nothing_to_add_is_refused(tmp_path: Path) -> None:
    store = Store(url=str(tmp_path / "store"))
    (tmp_path / "empty" / "er").mkdir(parents=True)
    with pytest.raises(Invalid, match="at least one file"):
        store.add(tmp_path / "empty")
    with pytest.raises(Invalid, match="no such file"):
        store.add(tmp_path / "nowhere")


def test_a_file_that_changes_while_it_is_read_is_refused(store: Store, tmp_path: Path) -> None:
    """The change comes between hashing and copying, where it would put wrong bytes under a right name."""
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 100)
    before = _tree._unchanged(str(path), digest(b"x" * 100))
    path.write_bytes(b"x" * 101)
    name = digest(b"x" * 100)
    with pytest.raises(Invalid, match="stays as it is while it is added"):
        store._objects.put_stream(name, lambda: before)
    assert not store.has(name)


def test_large_files_stream(store: Store, tmp_path: Path) -> None:
    """The heap must not grow by the file; what is mapped from a disk is not the heap."""
    path, size = tmp_path / "large", 64 << 20
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    store.put(b"warm")
    peak = _peak_of_heap(lambda: store.checkout(store.add(path).id, tmp_path / "out"))
    assert peak < 24 << 20
    assert (tmp_path / "out" / "large").stat().st_size == size


def _peak_of_heap(action: Callable[[], object]) -> int:
    """Highest anonymous memory, in bytes, above what it was before."""

    def anonymous() -> int:
        found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) << 10

    done, before, seen = threading.Event(), anonymous(), [0]

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    return max(seen)


def release(service: str = "credit") -> Release:
    return Release(service=service, data=A, code=A, runtime=A, model=A, tests=A, probes=A)


def test_release_documents_come_back(store: Store, connect: Connect) -> None:
    name = store.put_release(release())
    assert name == release().id
    assert connect().release(name) == release()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"files": []}', b'{"files":[{"path":"a"}]}'])
def test_what_is_no_document_is_refused(store: Store, data: bytes) -> None:
    name = store.put(data)
    with pytest.raises(Invalid, match="is a release in canonical form"):
        store.release(name)
    with pytest.raises(Invalid, match="is a snapshot in canonical form"):
        store.snapshot(name)


def test_listings(store: Store, connect: Connect) -> None:
    assert (list(store.digests()), list(store.strays()), store.journals()) == ([], [], ())
    names = sorted(store.put(bytes([number])) for number in range(20))
    store.journal("log/local").append(0, b"x")
    store.journal("log/production").append(0, b"x")
    store.journal("branch/data/main").append(0, b"x")
    tamper(store, f"records/ns/svc/pod/segment-20261121T101300123456Z-{'0' * 64}.parquet", b"?")
    strays = [
        "log/local/1",
        "log/local/000000000001.part",
        "objects/note",
        "objects/sha256/ab/" + "0" * 61,
        "readme.txt",
        "records/ns/svc/pod/segment-1.parquet",
        f"records/ns/svc/segment-20261121T101300123456Z-{'0' * 64}.parquet",
    ]
    for stray in strays:
        tamper(store, stray, b"?")
    again = connect()
    assert list(again.digests()) == names
    assert again.journals() == ("branch/data/main", "log/local", "log/production")
    assert sorted(again.strays()) == sorted(strays)


def test_a_stray_whose_name_is_no_text(tmp_path: Path) -> None:
    store = Store(url=str(tmp_path / "store"))
    store.put(b"a")
    os.close(os.open(os.fsencode(tmp_path / "store" / "log") + b"\xff", os.O_CREAT | os.O_WRONLY))
    assert list(store.strays()) == ["log\\xff"]


def test_stores_travel_between_processes(store: Store) -> None:
    name = store.put(b"a")
    assert pickle.loads(pickle.dumps(store)).get(name) == b"a"
    assert copy.deepcopy(store).get(name) == b"a"
    assert store.model_copy(deep=True).id == store.id


def test_snapshot_ids_depend_on_content_alone(tmp_path: Path) -> None:
    ids: set[str] = set()
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        for name in ("b", "a") if place == "one" else ("a", "b"):
            (tmp_path / place / name).write_text(name)
        ids.add(Store(url=str(tmp_path / f"store-{place}")).add(tmp_path / place).id)
    (only,) = ids
    assert only == Snapshot.model_validate_json(Store(url=str(tmp_path / "store-one")).get(only)).id
