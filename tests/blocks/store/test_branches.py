"""Branches: commits in a line that two writers extend without losing one, and moves that are looked at first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefect_mlops.blocks import ReleaseLog, verify
from prefect_mlops.blocks.branch import Branch, BranchMoved, NotAMove, branches
from prefect_mlops.blocks.commit import Column, Extractor
from prefect_mlops.blocks.errors import Invalid, ObjectMissing
from prefect_mlops.blocks.release import Snapshot
from prefect_mlops.blocks.store import Store

Connect = Callable[[], Store]


def snapshot(store: Store, folder: Path, text: str) -> Snapshot:
    (folder / "data.csv").write_text(text)
    return store.pack(folder / "data.csv")


def test_a_commit_says_how_data_came(store: Store, connect: Connect, tmp_path: Path) -> None:
    first = snapshot(store, tmp_path, "a\n1\n")
    extractor = Extractor(name="sales:extract", arguments={"day": "2026-11-21"})
    name, commit = Branch(store, "main").commit(
        first, source="https://vendor/sales", extractor=extractor, columns=(Column(name="a", type="int64"),), rows=1
    )
    assert connect().commit_at(name) == commit
    assert (commit.parents, commit.rows, commit.extractor) == ((), 1, extractor)
    assert Branch(connect(), "main").head == name

    other, then = Branch(connect(), "main").commit(
        snapshot(store, tmp_path, "a\n2\n"), source="day two", message="more"
    )
    assert then.parents == (name,)
    assert [one for one, _ in Branch(store, "main").log()] == [other, name]
    assert store.diff(commit.snapshot, then.snapshot).changed == ("data.csv",)
    assert branches(store) == ("main",)


def test_unchanged_data_is_no_new_commit(store: Store, tmp_path: Path) -> None:
    first = snapshot(store, tmp_path, "a\n1\n")
    name, _ = Branch(store, "main").commit(first, source="a")
    assert Branch(store, "main").commit(first, source="b")[0] == name
    assert len(list(Branch(store, "main").moves())) == 1


def test_a_branch_moves_from_where_it_was_looked_at_or_not_at_all(store: Store, tmp_path: Path) -> None:
    staging, main = Branch(store, "staging"), Branch(store, "main")
    commits = [staging.commit(snapshot(store, tmp_path, f"a\n{number}\n"), source="vendor")[0] for number in range(3)]
    main.move(commits[0], expected=None)
    with pytest.raises(BranchMoved, match=r"branch main is at commit sha256:.* and not at none any more"):
        main.move(commits[2], expected=None)
    main.move(commits[2], expected=commits[0], reason="ten at once")
    assert [one for one, _ in main.log()] == commits[::-1]
    assert [move.reason for move in main.moves()] == ["", "ten at once"]
    with pytest.raises(ObjectMissing):
        main.move("sha256:" + "0" * 64, expected=commits[2])
    with pytest.raises(Invalid, match="is a commit in canonical form"):
        main.move(store.put(b"{}"), expected=commits[2])
    assert main.head == commits[2]


def test_two_writers_lose_no_commit(store: Store, connect: Connect, tmp_path: Path) -> None:
    def write(writer: int) -> list[str]:
        folder = tmp_path / str(writer)
        folder.mkdir()
        own = connect()
        return [
            Branch(own, "main").commit(snapshot(own, folder, f"a\n{writer}{number}\n"), source=f"{writer}")[0]
            for number in range(8)
        ]

    assert store.id
    with ThreadPoolExecutor(3) as pool:
        written = {name for names in pool.map(write, range(3)) for name in names}
    log = [name for name, _ in Branch(store, "main").log()]
    assert (len(log), set(log)) == (24, written)


@pytest.mark.parametrize("name", ["", "Main", "a/b", "-a", "a" * 64])
def test_names_of_branches(store: Store, name: str) -> None:
    with pytest.raises(Invalid):
        Branch(store, name)


def test_damage_to_a_branch_is_named(tmp_path: Path) -> None:
    store = Store(url=str(tmp_path / "store"))
    branch = Branch(store, "main")
    for number in range(3):
        branch.commit(snapshot(store, tmp_path, f"a\n{number}\n"), source="vendor")
    log = ReleaseLog(store, "local")
    log.begin({})
    assert verify(log).faults == []

    entry = tmp_path / "store" / "branches" / "main" / "000000000001"
    whole = entry.read_bytes()
    entry.chmod(0o600)
    entry.write_bytes(whole.replace(b"vendor", b"vendoR") if b"vendor" in whole else whole[:40] + b"x" + whole[41:])
    assert [fault.key for fault in verify(log).faults] == ["branches/main/000000000001"]
    with pytest.raises(NotAMove, match="entry 1 of branch main is damaged"):
        _ = Branch(Store(url=str(tmp_path / "store")), "main").head
    entry.unlink()
    assert "branches/main/000000000001" in [fault.key for fault in verify(log).faults]


def test_a_folder_where_a_move_belongs_is_named(tmp_path: Path) -> None:
    store = Store(url=str(tmp_path / "store"))
    for number in range(3):
        Branch(store, "main").commit(snapshot(store, tmp_path, f"a\n{number}\n"), source="vendor")
    log = ReleaseLog(store, "local")
    log.begin({})
    entry = tmp_path / "store" / "branches" / "main" / "000000000001"
    entry.unlink()
    entry.mkdir()
    assert "branches/main/000000000001" in {fault.key for fault in verify(log).faults}
