"""A commit of a large file and many small ones, killed at random moments."""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

import pytest

from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.log import ReleaseLog
from prefect_mlops.blocks.store import Store
from prefect_mlops.blocks.verify import verify
from tests.forks import Fork, Forks, Moments, drawn

KILLS = 50
LARGE = 20 << 20
SMALL = 300
ROUNDS_A_STORE = 5
"""So often the store itself is new, and is made by the run that is killed."""


def write(folder: Path, seed: int) -> None:
    """A folder in which nothing is as it was in the one of another seed."""
    draw = random.Random(seed)
    (folder / "small").mkdir(parents=True, exist_ok=True)
    (folder / "large").write_bytes(draw.randbytes(LARGE))
    for number in range(SMALL):
        (folder / "small" / f"{number}").write_bytes(draw.randbytes(draw.randrange(2_000)))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def faults(store: Store) -> list[str]:
    """What is wrong with the store; that nobody began a log in it is not."""
    log = ReleaseLog(store, "local")
    return [fault.what for fault in verify(log).faults if fault.key != log.journal.key(0)]


class Work:
    """The commits of one folder to one store after the other."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder, self.forks = folder, forks
        self.source, self.stores = folder / "source", 0
        self.committed: list[str] = []

    def start(self) -> Fork:
        return self.forks.start("tests.kills.acts:commit", store=self.store.url, source=str(self.source))

    @property
    def store(self) -> Store:
        """The store as one sees it who never looked before."""
        return Store(url=str(self.folder / f"store-{self.stores}"))

    def new_data(self, seed: int) -> None:
        write(self.source, seed)
        if len(self.committed) == ROUNDS_A_STORE:
            self.stores, self.committed = self.stores + 1, []

    def visible(self) -> str | None:
        """The head after a kill: what it was before, or what was being committed, with all that it names."""
        if not Path(self.store.url).exists():
            return None
        assert faults(self.store) == []
        head, before = Branch(self.store, "main").head, self.committed[-1:]
        if head not in {None, *before}:
            assert self.store.commit_at(head or "").parents == tuple(before)
        return head

    def complete(self) -> None:
        """The next run does what the killed one did not, and nothing else."""
        head = self.visible()
        name = self.start().result()
        assert head in {None, *self.committed[-1:], name}
        self.committed.append(name)
        assert [move.commit for move in Branch(self.store, "main").moves()] == self.committed
        assert [name for name, _ in Branch(self.store, "main").log()] == self.committed[::-1]
        assert self.kept(name) == content(self.source)
        assert list((Path(self.store.url) / "tmp").glob("part-*")) == []

    def kept(self, commit: str) -> dict[str, bytes]:
        """What a commit checks out to."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            self.store.checkout(self.store.commit_at(commit).snapshot, Path(folder) / "out")
            return content(Path(folder) / "out")


@pytest.mark.slow
def test_a_commit_killed_at_fifty_moments_is_there_whole_or_not_at_all(tmp_path: Path, temporary: Path) -> None:
    moments, kills = Moments(drawn()), 0
    with Forks(tmp_path / "calls", "tests.kills.acts", env={"TMPDIR": str(temporary)}) as forks:
        work = Work(tmp_path, forks)
        for seed in itertools.count():
            work.new_data(seed)
            if seed < 2:  # the first finds what is found once in a process
                undisturbed = work.start()
                undisturbed.result()
                moments.learn("commit", undisturbed.seconds)
            elif work.start().killed_after(moments.draw("commit")):
                kills += 1
            work.complete()
            assert list(temporary.glob("mlops-scratch-*")) == []
            if kills == KILLS:
                break
