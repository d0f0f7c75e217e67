"""Releases and rollbacks on a cluster, killed and stopped at random moments while clients ask."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_mlops.blocks import verify
from prefect_mlops.blocks._wait import wait_until
from tests.cluster import acts
from tests.cluster.acts import SERVICE
from tests.cluster.serving import Place
from tests.forks import Fork, Forks, Moments, drawn

KILLS = int(os.environ.get("KILLS", "6"))
"""How many runs are killed; thirty, and more, when there is time."""


@pytest.fixture
def forks(place: Place, tmp_path: Path) -> Iterator[Forks]:
    with Forks(tmp_path / "forks", "tests.cluster.acts") as found:
        yield found


class Story:
    """Three releases that take turns."""

    def __init__(self, place: Place, forks: Forks) -> None:
        self.place, self._forks = place, forks
        self.log = acts.environment(place).log()
        self.releases = [place.release(name) for name in "abc"]
        for release in self.releases:
            acts.known(place, release)

    def start(self, act: str, to: str) -> Fork:
        return self._forks.start(f"tests.cluster.acts:{act}", to=to, **self.place.where)

    def complete(self, act: str, to: str) -> Fork:
        """A run does what it should, whatever the one before left behind."""
        run = self.start(act, to)
        run.result()
        split = self.log.state().service(SERVICE).split
        assert [arm.release for arm in split.live] == [to]
        assert wait_until(lambda: self.place.shows(split), seconds=10, pause=0.1)
        assert verify(self.log).faults == []
        return run

    def other(self, number: int) -> tuple[str, str]:
        """The next change: onwards to a release that has to be started, or back to the one before."""
        live = self.log.state().service(SERVICE).split.live[0].release
        if number % 2:
            arms = self.log.state().service(SERVICE).split.arms
            return "rollback", next((arm.release for arm in arms if arm.role == "warm"), self.releases[0])
        return "release", self.releases[(self.releases.index(live) + 1) % 3]


@pytest.mark.timeout(900)
def test_the_run_after_one_that_was_killed_makes_it_right(place: Place, forks: Forks) -> None:
    story, moments, struck = Story(place, forks), Moments(drawn()), 0
    story.complete("release", story.releases[0])
    with place.clients(count=1) as clients:
        for number in range(2):
            act, to = story.other(number)
            moments.learn(act, story.complete(act, to).seconds)
        for number in range(3 * KILLS):
            act, to = story.other(number)
            struck += story.start(act, to).killed_after(moments.draw(act))
            story.complete(act, to)
            if struck == KILLS:
                break
    assert struck == KILLS
    assert clients.failed == []
    print(f"{struck} killed, {clients.answered.total():,} requests, {len(clients.failed)} failed")


def test_a_run_that_was_stopped_and_wakes_after_a_rollback_changes_nothing(place: Place, forks: Forks) -> None:
    story = Story(place, forks)
    a, b, _ = story.releases
    story.complete("release", a)
    with place.clients(count=1) as clients:
        stalled = story.start("release", b)
        assert wait_until(lambda: b[7:17] in str(place.deployment()["spec"]), seconds=20, pause=0.01)
        stalled.proc.kill(signal.SIGSTOP)
        story.complete("rollback", a)
        split, before = story.log.state().service(SERVICE).split, story.log.state().head
        stalled.proc.kill(signal.SIGCONT)
        assert wait_until(lambda: stalled.report() is not None, seconds=60, pause=0.05)
        report = stalled.report()
        assert report is not None
        assert report["error"] == "TakenOver", report
        assert story.log.state().head == before
        assert place.shows(split)
    assert clients.failed == []
    assert set(clients.answered) == {a}
