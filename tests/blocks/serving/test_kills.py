"""SIGKILL of each part of a place under constant traffic, and what it costs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from prefect_mlops.blocks import Split
from prefect_mlops.blocks._wait import wait_until
from tests.blocks.serving.conftest import Answer, Place, Traffic

CLIENTS = 3
HANG_UP_SECONDS = 0.15
"""A killed process is still asked until the kernel has hung up for it, and nobody answers that."""


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def gone(place: Place, what: Callable[[], int], old: int) -> bool:
    """Whether another process has taken the place of the killed one."""

    def succeeded() -> bool:
        try:
            return what() != old
        except (AssertionError, OSError, ValueError):
            return False

    return wait_until(succeeded, seconds=15, pause=0.02)


def whole(place: Place, split: Split) -> bool:
    observed = place.serving().observe("credit")
    gateways = place.serving().counters("credit").start.split()
    return observed.shows(split) and set(observed.ready.values()) == {2} and "-" not in gateways


def asked_late(answers: list[Answer], killed: float) -> list[Answer]:
    """Those of `answers` that were asked after the kernel had hung up for a process killed at `killed`."""
    return [answer for answer in answers if answer.began > killed + HANG_UP_SECONDS]


def killing(place: Place, traffic: Traffic, what: Callable[[], int]) -> tuple[float, list[Answer]]:
    """Kill one part under traffic; when that was, and what failed until it was back."""
    failed = len(traffic.failed)
    traffic.wait(30)
    old = what()
    killed = time.monotonic()
    kill(old)
    traffic.wait(30)
    assert gone(place, what, old)
    traffic.wait(60)
    return killed, traffic.failed[failed:]


def test_no_request_fails_when_model_servers_and_supervisors_are_killed(shared: Place) -> None:
    a, b = shared.release("a"), shared.release("b")
    split = Split.of(a, warm=[b])
    shared.apply(split)
    with shared.traffic(CLIENTS) as traffic:
        lost = {
            "server 0": killing(shared, traffic, lambda: shared.pid(a, 0))[1],
            "supervisor": killing(shared, traffic, shared.supervisor)[1],
            "successor": killing(shared, traffic, lambda: shared.program("phoenix"))[1],
            "server 1, adopted": killing(shared, traffic, lambda: shared.pid(a, 1))[1],
            "supervisor again": killing(shared, traffic, shared.supervisor)[1],
        }
        assert wait_until(lambda: whole(shared, split), seconds=15)
        shared.apply(Split.of(b, warm=[a]))
    assert not any(lost.values()), lost


def test_a_killed_gateway_costs_only_what_it_was_asked(shared: Place) -> None:
    a, b = shared.release("a"), shared.release("b")
    shared.apply(Split.of(a, warm=[b]))
    with shared.traffic(CLIENTS) as traffic:
        for name in ("gateway-0", "gateway-1"):
            killed, lost = killing(shared, traffic, lambda name=name: shared.program(name))
            assert not asked_late(lost, killed), lost
            assert wait_until(lambda: whole(shared, Split.of(a, warm=[b])), seconds=15)
        started = shared.serving().counters("credit").start
        kill(shared.program("gateway-1"))
        shared.apply(Split.of(b, warm=[a]))  # one gateway is enough, and the other reads it when it starts
        moved = time.monotonic()
        traffic.wait(100)
    assert {answer.release for answer in traffic.answers if answer.began > moved and answer.status == 200} == {b}
    assert wait_until(lambda: shared.serving().counters("credit").start != started, seconds=5)


def test_a_server_killed_with_requests_in_it_loses_none(shared: Place) -> None:
    slow = shared.release("slow answers", delay=0.2)
    shared.apply(Split.of(slow))
    with shared.traffic(6) as traffic:
        traffic.wait(12)
        kill(shared.pid(slow, 0))
        traffic.wait(60)
    assert not traffic.failed
    attempts = [answer.body["headers"]["x-envoy-attempt-count"] for answer in traffic.answers]
    assert "2" in attempts


@pytest.mark.slow
def test_sixty_random_kills(shared: Place) -> None:
    draw = random.Random(7)
    a, b = shared.release("a"), shared.release("b")
    live, warm = a, b
    shared.apply(Split.of(live, warm=[warm]))
    with shared.traffic(CLIENTS) as traffic:
        for _ in range(60):
            parts: dict[str, Callable[[], int]] = {
                "server": lambda: shared.pid(draw.choice([a, b]), draw.randrange(2)),
                "gateway": lambda: shared.program(draw.choice(["gateway-0", "gateway-1"])),
                "supervisor": shared.supervisor,
                "successor": lambda: shared.program("phoenix"),
            }
            part = draw.choice(list(parts))
            before, killed = len(traffic.failed), time.monotonic()
            with suppress(ProcessLookupError):  # killed a moment ago, and its next try is a second away
                kill(parts[part]())
            live, warm = warm, live
            split = Split.of(live, warm=[warm])
            shared.apply(split)
            assert wait_until(lambda split=split: whole(shared, split), seconds=20), part
            lost = traffic.failed[before:]
            assert not (asked_late(lost, killed) if part == "gateway" else lost), (part, lost)
    assert len(traffic.answers) > 1000
