"""Flow runs that are Jobs, whose pods are killed and stopped at random moments while clients ask."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State

from prefect_mlops.blocks import verify
from prefect_mlops.blocks.commit import Commit
from tests.cluster.api import wait_for
from tests.cluster.production import SERVICE, Production
from tests.forks import Moments, drawn
from tests.places import processes_of_run

KILLS = int(os.environ.get("KILLS", "2"))
"""How many pods are killed; thirty, and more, when there is time."""


class Job:
    """A flow run that was begun, and the processes of its pod."""

    def __init__(self, run: FlowRun) -> None:
        self.run = run
        wait_for(self.processes, "the run's pod", seconds=90)
        self.began = time.monotonic()

    def processes(self) -> list[psutil.Process]:
        """What runs in its pod."""
        return processes_of_run(str(self.run.id))

    def signal(self, number: int) -> bool:
        """Send a signal to all that runs in its pod; whether there was something."""
        found = self.processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return bool(found)

    def ended(self) -> State:
        """How it ended."""
        wait_for(lambda: self._state().is_final(), "the run to end", seconds=240)
        return self._state()

    def _state(self) -> State:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(self.run.id).state
        assert state is not None
        return state


@dataclass
class Story:
    """Models that take turns, each change a run of its own."""

    production: Production
    commits: list[Commit] = field(default_factory=list)
    lived: list[str] = field(default_factory=list)
    moments: Moments = field(default_factory=lambda: Moments(drawn()))

    def begin(self) -> None:
        """Have a model that answers."""
        self.commits = [self.production.commit(seed) for seed in (1, 2, 3)]
        self.complete(self.commits[-1])

    def start(self, to: Commit | str) -> Job:
        """Release a model of a commit, or go back to a release."""
        if isinstance(to, Commit):
            return Job(self.production.release(to, seconds=0, reason="the next"))
        return Job(self.production.run("rollback-release", seconds=0, service=SERVICE, to=to, reason="back"))

    def complete(self, to: Commit | str) -> None:
        """A run does what it should, whatever the one before left behind."""
        job = self.start(to)
        state = job.ended()
        self.moments.learn(type(to), time.monotonic() - job.began)
        assert state.is_completed(), self.production.words(job.run)
        self.stands(to)

    def stands(self, to: Commit | str) -> None:
        """What was wanted is what is served, and every byte of the log says so."""
        log = self.production.environment.log()
        [live] = self.production.live()
        assert to.snapshot == self.data if isinstance(to, Commit) else to == live
        split = log.state().service(SERVICE).split
        wait_for(lambda: self.production.shows(split), "what the log says to be served", seconds=20)
        assert verify(log).faults == []
        self.lived.append(live)

    @property
    def data(self) -> str:
        """What the model that is live was trained on."""
        environment = self.production.environment
        [live] = environment.log().state().service(SERVICE).split.live
        return environment.store_block.release(live.release).data

    def next(self, number: int) -> Commit | str:
        """The next change: on to a model of the next commit, or back to what answered before."""
        if number % 2:
            return next(name for name in reversed(self.lived) if name != self.lived[-1])
        return self.commits[number // 2 % len(self.commits)]


@pytest.fixture(scope="module")
def story(production: Production) -> Story:
    story = Story(production)
    story.begin()
    return story


@pytest.mark.timeout(600 + 150 * KILLS)
def test_the_run_after_one_whose_pod_was_killed_makes_it_right(story: Story) -> None:
    struck = 0
    with story.production.clients() as clients:
        for number in range(3 * KILLS):
            to = story.next(number)
            job, moment = story.start(to), story.moments.draw(type(to))
            time.sleep(max(0.0, job.began + moment - time.monotonic()))
            if job.signal(signal.SIGKILL):
                ended = job.ended()
                struck += ended.is_crashed()
                print(f"{job.run.name} was killed after {moment:.1f} s: {ended.name}, {ended.message}")
            story.complete(to)
            if struck == KILLS:
                break
    assert struck == KILLS
    assert clients.failed == []
    print(f"{struck} pods killed, {clients.answered.total():,} requests, {len(clients.failed)} failed")


@pytest.mark.timeout(600)
def test_a_pod_that_was_stopped_and_wakes_after_a_rollback_changes_nothing(story: Story) -> None:
    production = story.production
    log = production.environment.log()
    with production.clients() as clients:
        before = log.state().next
        other = next(one for one in story.commits if one.snapshot != story.data)
        stalled = story.start(other)
        wait_for(lambda: log.state().next > before and log.state().service(SERVICE).asked, "a change", seconds=120)
        assert stalled.signal(signal.SIGSTOP)
        story.complete(story.lived[-1])
        head, split = log.state().head, log.state().service(SERVICE).split
        assert stalled.signal(signal.SIGCONT)
        ended = stalled.ended()
        assert ended.is_failed(), ended
        assert "TakenOver" in str(ended.message), ended
        assert log.state().head == head
        assert production.shows(split)
    assert clients.failed == []
