"""Each head of a branch is trained on once, whoever dies, stalls or comes twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.entry import Actor, Released, Run, Settled, Taken
from prefect_mlops.blocks.errors import TakenOver
from prefect_mlops.blocks.log import ReleaseLog
from prefect_mlops.blocks.state import Claim, IllegalEntry
from prefect_mlops.blocks.store import Store
from prefect_mlops.blocks.verify import verify
from prefect_mlops.tasks._taking import MOST_TRIES, Fate, release, settle, standing, take
from tests.blocks.log.stories import digest, real_release

SERVICE = "credit"
LEASE = timedelta(hours=1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Runner:
    """One run after the other on a store in a folder; how they ended is in `over`."""

    folder: Path
    over: dict[str, Fate]
    now: datetime = BEGIN

    def log(self, run: str) -> ReleaseLog:
        """The log, as the run sees it."""
        log = ReleaseLog(
            Store(url=str(self.folder / "store")),
            "local",
            run=Run(id=run, name=run, flow="train-candidate"),
            actor=Actor(name="ana", assurance="claimed"),
            clock=lambda: self.now,
        )
        log.begin({})
        return log

    def main(self, log: ReleaseLog) -> Branch:
        return Branch(log.store, "main")

    def take(self, run: str) -> Any:
        log = self.log(run)
        found = take(log, SERVICE, self.main(log), lease=LEASE, fate=lambda run: self.over.get(run.id, "unknown"))
        return log, found

    def commit(self, number: int) -> str:
        """Have main at new data."""
        log = self.log("ingest")
        path = self.folder / "rows.csv"
        path.write_text(f"a,b\n1,{number}\n")
        name, _ = self.main(log).commit(log.store.pack(path), source="made")
        return name

    def claim(self) -> Claim:
        return self.log("eye").state().service(SERVICE).claims["main"]

    def standing(self) -> str:
        log = self.log("eye")
        return standing(log.state().service(SERVICE), self.main(log))

    def verified(self) -> None:
        report = verify(self.log("eye"))
        assert [fault for fault in report.faults if fault.key.startswith(("log/", "branches/"))] == []


@pytest.fixture
def runs(tmp_path: Path) -> Runner:
    return Runner(tmp_path, {})


def test_nothing_is_there_to_take(runs: Runner) -> None:
    assert runs.take("one")[1] is None
    assert runs.standing() == "branch main has no commit yet"


def test_a_head_is_taken_once_and_what_came_of_it_is_said(runs: Runner) -> None:
    commit = runs.commit(1)
    log, taken = runs.take("one")
    assert (taken.body.move, taken.body.commit) == (0, commit)
    assert runs.take("two")[1] is None
    assert runs.standing() == "run one, by ana is training on move 0 of main (log entry 1)"
    made = real_release(log.store, runs.folder / "made", SERVICE, 1)
    assert isinstance(release(log, taken, made, commit).body, Released)
    assert runs.take("three")[1] is None
    assert runs.standing() == "run one, by ana made credit-v1 of move 0 of main (log entry 1)"
    runs.verified()


def test_of_many_moves_only_the_newest_is_taken(runs: Runner) -> None:
    commits = [runs.commit(number) for number in range(5)]
    _, taken = runs.take("one")
    assert (taken.body.move, taken.body.commit) == (4, commits[-1])


def test_a_move_that_came_meanwhile_waits_for_the_end(runs: Runner) -> None:
    runs.commit(1)
    log, taken = runs.take("one")
    runs.commit(2)
    assert runs.take("two")[1] is None
    settle(log, taken, "failed", "bad data")
    assert runs.take("two")[1].body.move == 1


def test_what_failed_for_a_reason_is_not_tried_again(runs: Runner) -> None:
    runs.commit(1)
    log, taken = runs.take("one")
    settle(log, taken, "failed", "income: 4 of 9 rows", log.store.put(b"evidence"))
    runs.over["one"] = "ended"
    runs.now += 10 * LEASE
    assert runs.take("two")[1] is None
    assert runs.standing().endswith("made nothing of move 0 of main (log entry 1): failed, income: 4 of 9 rows")
    runs.verified()


@pytest.mark.parametrize("how", ["Prefect says so", "silent for too long"])
def test_a_run_that_is_gone_is_taken_over_and_can_say_nothing_any_more(runs: Runner, how: str) -> None:
    runs.commit(1)
    log, taken = runs.take("one")
    if how == "Prefect says so":
        runs.over["one"] = "ended"
    else:
        runs.now += LEASE
    other, again = runs.take("two")
    assert runs.claim().tries == 2
    with pytest.raises(TakenOver, match="entry 1 of credit was taken over by run two"):
        settle(log, taken, "failed", "too late")
    with pytest.raises(TakenOver):
        release(log, taken, digest(1), taken.body.commit)
    release(other, again, digest(1), taken.body.commit)
    with pytest.raises(TakenOver):
        release(other, again, digest(2), taken.body.commit)
    assert list(runs.log("eye").state().service(SERVICE).numbers) == [digest(1)]


def test_a_head_in_which_every_run_ends_is_given_up(runs: Runner) -> None:
    runs.commit(1)
    for number in range(MOST_TRIES):
        assert runs.take(str(number))[1] is not None
        runs.over[str(number)] = "ended"
    assert runs.take("last")[1] is None
    closed = runs.claim().closed
    assert closed is not None
    assert isinstance(closed.body, Settled)
    assert closed.body.outcome == "could not be measured"
    assert "run 2, by ana was the last of 3 that ended in the midst of it" in runs.standing()
    runs.commit(2)
    assert runs.take("next")[1] is not None


def test_what_a_person_cancelled_is_not_tried_again(runs: Runner) -> None:
    runs.commit(1)
    runs.take("one")
    runs.over["one"] = "cancelled"
    assert runs.take("two")[1] is None
    assert runs.standing().endswith("run one, by ana was cancelled; move the branch once more to have it tried again")
    assert runs.take("three")[1] is None


def test_two_services_take_the_same_head_each(runs: Runner) -> None:
    runs.commit(1)
    runs.take("one")
    log = runs.log("two")
    assert take(log, "fraud", runs.main(log), lease=LEASE) is not None


def test_the_same_release_again_keeps_its_number(runs: Runner) -> None:
    for number in (1, 2):
        commit = runs.commit(number)
        log, taken = runs.take(str(number))
        entry = release(log, taken, digest(7), commit)
    assert entry.body == Settled(outcome="passed", release=digest(7), detail="it was made of the very same before")
    assert runs.standing().startswith("run 2, by ana made credit-v1 of")


def test_verify_names_a_branch_that_lost_what_was_taken(runs: Runner) -> None:
    runs.commit(1)
    runs.commit(2)
    runs.take("one")
    (runs.folder / "store/branches/main/000000000001").unlink()
    faults = {fault.key: fault.what for fault in verify(runs.log("eye")).faults}
    assert faults == {"branches/main/000000000001": "missing, though entry 1 took it"}


def test_what_the_fold_refuses(runs: Runner) -> None:
    commits = [runs.commit(number) for number in range(3)]
    log, taken = runs.take("one")

    def write(body: Any, closes: int | None = None) -> None:
        from prefect_mlops.blocks.log import Draft

        log.append(lambda _: Draft(body, (SERVICE,), closes=closes))

    older = Taken(branch="main", move=1, commit=commits[1], deadline=taken.body.deadline)
    with pytest.raises(IllegalEntry, match="move 2 of main was taken, which came after 1"):
        write(older)
    with pytest.raises(IllegalEntry, match="no run of credit has taken"):
        write(Settled(outcome="failed"), closes=0)
    with pytest.raises(IllegalEntry, match="no run of credit has taken"):
        write(Settled(outcome="failed"))
    with pytest.raises(IllegalEntry, match="what passed names a release"):
        write(Settled(outcome="passed"), closes=taken.seq)
    with pytest.raises(IllegalEntry, match="was never released"):
        write(Settled(outcome="passed", release=digest(9)), closes=taken.seq)
    write(Settled(outcome="inconclusive"), closes=taken.seq)
    with pytest.raises(IllegalEntry, match="and entry 2 says what came of it"):
        write(taken.body)
