"""Who may change what is served: the fence, two at once, and applies that stall or are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest

from prefect_mlops.blocks import Arm, Release, Snapshot, Split, Store
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import FenceTooLow, MlopsError, TargetRefused
from tests.blocks.serving.conftest import Place

ROOT = Path(__file__).parents[3]


class StallingStore:
    """A store whose releases are read only when the test says so."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked, self.go = threading.Event(), threading.Event()

    def release(self, digest: str) -> Release:
        self.asked.set()
        assert self.go.wait(20)
        return self._store.release(digest)

    def checkout(self, snapshot_id: str, folder: Path) -> Snapshot:
        return self._store.checkout(snapshot_id, folder)


@contextmanager
def another_process(place: Place, fence: int, split: Split) -> Generator[subprocess.Popen[str]]:
    """An apply that waits for the word, in a process that can be stopped and killed."""
    arguments = [str(place.folder), "credit", str(fence), split.model_dump_json()]
    command = [sys.executable, "-m", "tests.blocks.serving.apply", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def programs(place: Place) -> set[str]:
    found = place.serving()._supervisor.processes()
    return {name for name in found if name.startswith("credit-")}


def settled(place: Place, split: Split) -> bool:
    """Whether `split` is served by exactly the servers it names."""
    wanted = {f"credit-{release[7:23]}-{number}" for release in split.releases for number in range(2)}
    return place.serving().observe("credit").shows(split) and programs(place) == wanted


def test_a_lower_fence_changes_nothing_and_an_equal_one_may(shared: Place) -> None:
    a, b = shared.release("a"), shared.release("b")
    serving = shared.serving()
    serving.apply("credit", Split.of(a), fence=5, store=shared.store)
    with pytest.raises(FenceTooLow) as caught:
        serving.apply("credit", Split.of(b), fence=4, store=shared.store)
    assert caught.value.args == ("credit", 4, 5)
    assert programs(shared) == {f"credit-{a[7:23]}-{number}" for number in range(2)}
    assert serving.observe("credit").fence == 5

    serving.apply("credit", Split.of(a), fence=5, store=shared.store)
    serving.apply("credit", Split.of(b), fence=5, store=shared.store)
    assert serving.observe("credit").shows(Split.of(b))
    shared.fence = 5


def test_the_fence_of_one_service_is_not_anothers(shared: Place) -> None:
    shared.apply(Split.of(shared.release("a")))
    other = shared.release("x", service="fraud")
    shared.serving().apply("fraud", Split.of(other), fence=0, store=shared.store)
    assert shared.serving().observe("fraud").fence == 0


def test_an_apply_that_stalls_while_it_reads_wakes_and_changes_nothing(shared: Place) -> None:
    a, b = shared.release("a"), shared.release("b")
    shared.apply(Split.of(a))
    store = StallingStore(shared.store)
    low, caught = shared.fence + 1, []

    def stalled() -> None:
        try:
            shared.serving().apply("credit", Split.of(b), fence=low, store=cast("Store", store))
        except FenceTooLow as error:
            caught.append(error)

    thread = threading.Thread(target=stalled)
    thread.start()
    assert store.asked.wait(20)
    shared.fence = low
    shared.apply(Split.of(a))
    store.go.set()
    thread.join(20)
    assert [error.args for error in caught] == [("credit", low, low + 1)]
    assert settled(shared, Split.of(a))


def test_an_apply_that_waits_for_its_servers_gives_way(shared: Place) -> None:
    a, slow = shared.release("a"), shared.release("slow", boot=60)
    shared.apply(Split.of(a))
    low, caught = shared.fence + 1, []

    def waiting() -> None:
        try:
            shared.serving(drain_seconds=1).apply("credit", Split.of(slow), fence=low, store=shared.store)
        except FenceTooLow as error:
            caught.append(error)

    thread = threading.Thread(target=waiting)
    thread.start()
    assert wait_until(lambda: f"credit-{slow[7:23]}-1" in programs(shared), seconds=10)
    shared.fence = low
    shared.apply(Split.of(a))
    thread.join(10)
    assert caught
    assert wait_until(lambda: settled(shared, Split.of(a)), seconds=10)


@pytest.mark.parametrize("after", [0.3, 0.6])
def test_a_stopped_process_that_is_continued_changes_nothing(shared: Place, after: float) -> None:
    a, b = shared.release("a"), shared.release("b", boot=1.0)
    shared.apply(Split.of(a))
    low = shared.fence + 1
    with another_process(shared, low, Split.of(b, warm=[a])) as child:
        go(child)
        time.sleep(after)  # any moment will do
        os.kill(child.pid, signal.SIGSTOP)
        shared.fence = low
        took_over = True
        try:
            shared.apply(Split.of(a))
        except MlopsError:  # stopped while it held the lock
            took_over = False
        os.kill(child.pid, signal.SIGCONT)
        out, err = child.communicate(timeout=30)
    if took_over:
        assert settled(shared, Split.of(a)), (out, err)
        assert "applied" in out or "FenceTooLow" in err
    shared.apply(Split.of(a))
    assert wait_until(lambda: settled(shared, Split.of(a)), seconds=10)


def test_of_two_at_once_the_higher_fence_is_served(shared: Place) -> None:
    a, b = shared.release("a"), shared.release("b")
    for _ in range(3):
        low, high = shared.fence + 1, shared.fence + 2
        outcomes: dict[int, str] = {}

        def one(fence: int, split: Split, outcomes: dict[int, str] = outcomes) -> None:
            try:
                shared.serving().apply("credit", split, fence=fence, store=shared.store)
                outcomes[fence] = "done"
            except FenceTooLow:
                outcomes[fence] = "gave way"

        threads = [
            threading.Thread(target=one, args=(low, Split.of(a))),
            threading.Thread(target=one, args=(high, Split.of(b, warm=[a]))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        shared.fence = high
        assert outcomes[high] == "done"
        assert settled(shared, Split.of(b, warm=[a])), outcomes


def killed_once(place: Place, seconds: float, split: Split) -> None:
    place.fence += 1
    with another_process(place, place.fence, split) as child:
        go(child)
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
        child.kill()


def converges(place: Place, rounds: list[float]) -> None:
    a, b, c = (place.release(name) for name in "abc")
    splits = [
        Split.of(b, warm=[a]),
        Split.of(c),
        Split(arms=(Arm(release=a, role="live", percent=50), Arm(release=b, role="live", percent=50))),
        Split.of(a, shadow=c),
        Split(),
    ]
    place.apply(Split.of(a))
    for number, seconds in enumerate(rounds):
        wanted = splits[number % len(splits)]
        with place.traffic() as traffic:
            killed_once(place, seconds, wanted)
            seen = place.serving().observe("credit").routes
            assert seen in (Split.of(a), wanted), f"killed after {seconds} s: {seen}"
            final = Split.of(a, warm=[b])
            place.apply(final, drain_seconds=2)
            assert wait_until(lambda final=final: settled(place, final), seconds=10), f"killed after {seconds} s"
            place.apply(Split.of(a), drain_seconds=2)
            assert wait_until(lambda: settled(place, Split.of(a)), seconds=10)
        if wanted.live:
            assert not traffic.failed, (seconds, traffic.failed[0])


def test_after_an_apply_that_was_killed_the_next_one_converges(shared: Place) -> None:
    converges(shared, [0.05, 0.2, 0.35])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_an_apply_that_was_killed_anywhere_the_next_one_converges(shared: Place) -> None:
    draw = random.Random(3)
    converges(shared, [draw.uniform(0, 0.6) for _ in range(20)])


def test_a_release_of_another_service_is_refused(shared: Place) -> None:
    shared.apply(Split.of(shared.release("a")))
    before = programs(shared)
    with pytest.raises(ValueError, match="is for fraud"):
        shared.apply(Split.of(shared.release("x", service="fraud")))
    assert programs(shared) == before


def test_a_service_name_that_is_no_label_is_refused(shared: Place) -> None:
    serving = shared.serving()
    assert serving.refusals("credit", Split(), shared.store) == []
    with pytest.raises(TargetRefused, match="DNS label"):
        serving.apply("Credit Card", Split(), fence=1, store=shared.store)
    assert "Credit Card" not in serving.services()


def test_what_an_apply_left_to_drain_is_kept_when_its_owner_goes_back(shared: Place) -> None:
    busy, b = shared.release("busy", delay=1.5), shared.release("b")
    shared.apply(Split.of(busy))
    with shared.traffic(1) as traffic:
        assert wait_until(lambda: shared.serving()._gateways.idle(busy_clusters(busy)) is False, seconds=5)
        shared.apply(Split.of(b))  # its removal waits for the answer of `busy`
        shared.serving().apply("credit", Split.of(busy), fence=shared.fence, store=shared.store)
        traffic.wait(2)
    assert not traffic.failed
    assert settled(shared, Split.of(busy))


def busy_clusters(release: str) -> set[str]:
    return {f"credit/{release[7:]}"}
