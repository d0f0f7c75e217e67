"""Releases, by blue/green and from a shadow, and rollbacks, killed at random moments while clients ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prefect_mlops.blocks import Environment, Split, verify
from prefect_mlops.blocks.entry import Judged, Released
from prefect_mlops.flows.creditco import census
from prefect_mlops.tasks.probing import WATCHED
from tests.forks import Moments, drawn
from tests.storm.checks import live
from tests.storm.home import ROWS, SERVICE
from tests.storm.runs import Script
from tests.storm.storm import Storm

RATE = 50
POLICY = {"watch_seconds": 1, "shadow_requests": 40, "shadow_agreement_permille": 500}
KILLS = {
    ("whole release", "blue-green"): 2,
    ("whole release", "shadow"): 1,
    ("release", "blue-green"): 4,
    ("release", "shadow"): 5,
    ("rollback", ""): 8,
}
"""How often each kind of run is killed. A whole release trains; else one that was trained goes live again."""


@dataclass
class Story:
    """Runs on a home under traffic, each of which changes what is live."""

    storm: Storm
    files: int = 0
    released: list[str] = field(default_factory=list[str])

    def destination(self, kind: str) -> str:
        """A file that nobody trained on, or a release that does not answer now, mostly one that is still warm."""
        if kind == "whole release":
            self.files += 1
            census(ROWS, seed=100 + self.files).to_csv(self.storm.scratch / f"batch-{self.files}.csv", index=False)
            return f"batch-{self.files}.csv"
        split = self.split
        others = [release for release in self.storm.releases if release not in live(split)]
        return self.storm.random.choice([*others, *(arm.release for arm in split.arms if arm.role == "warm")])

    def start(self, kind: str, strategy: str, to: str) -> Script:
        more = {"strategy": strategy} if strategy else {}
        return self.storm.scripts.act(kind, prefect=True, heartbeats=False, to=to, **more)

    @property
    def split(self) -> Split:
        return self.storm.checks.log.state().service(SERVICE).split

    def complete(self, kind: str, strategy: str, to: str) -> Script:
        """A run does what it should: one state, that everybody sees."""
        run = self.start(kind, strategy, to)
        said, checks = run.result(), self.storm.checks
        checks.converged()
        assert live(self.split) == {to if kind == "rollback" else said}
        if kind != "rollback":
            change = checks.log.state().service(SERVICE).changes[-1]
            since = [entry.body for entry in checks.log.entries() if entry.seq > change.closed.seq]
            verdicts = [(one.release, one.gate, one.outcome) for one in since if isinstance(one, Judged)]
            assert (said, WATCHED, "passed") in verdicts
        return run

    def killed(self, kind: str, strategy: str, moment: float) -> bool:
        """Kill a run, look, and do the same again; whether it was still at work."""
        checks, to = self.storm.checks, self.destination(kind)
        began = checks.log.state().next
        struck = self.start(kind, strategy, to).killed_after(moment)
        checks.truth(dead=True)
        assert verify(checks.log).faults == []
        self.complete(kind, strategy, to)
        assert verify(checks.log).faults == []
        numbered = [entry.body for entry in checks.log.entries() if entry.seq >= began]
        assert sum(isinstance(body, Released) for body in numbered) == (kind == "whole release")
        assert checks.wrong == []
        return struck


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_releases_and_rollbacks_killed_at_twenty_moments(tmp_path: Path) -> None:
    draw = drawn()
    storm = Storm(tmp_path / "home", tmp_path / "storm", seed=draw.randrange(1_000), rate=RATE, prefect=True)
    moments = Moments(draw)
    with storm.calm(worker=False):
        with storm.place.settings():
            Environment.find("local").model_copy(update=POLICY).save("local", overwrite=True)
        story = Story(storm)
        for what in KILLS:
            moments.learn(what, story.complete(*what, story.destination(what[0])).seconds)
        left = [what for what, count in KILLS.items() for _ in range(count)]
        draw.shuffle(left)
        while left:
            if story.killed(*left[-1], moments.draw(left[-1])):
                left.pop()
    assert [answer for answer in storm.clients.answers if answer.status != 200] == []
    assert storm.unrecorded() == 0
    assert storm.rest() == []
