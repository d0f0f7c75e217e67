"""The seven transitions of a release, each under traffic: first, canary, promote, shadow, abort, rollbacks."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from prefect_mlops.blocks import Arm, Split
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import ArmNotReady
from tests.blocks.serving.conftest import Place


def canary(old: str, new: str, percent: int) -> Split:
    arms = (Arm(release=old, role="live", percent=100 - percent), Arm(release=new, role="live", percent=percent))
    return Split(arms=arms)


def shows(place: Place, split: Split) -> bool:
    return place.serving().observe("credit").shows(split)


def test_first_release_is_served_by_all_its_replicas(shared: Place) -> None:
    a = shared.release("a")
    before = shared.serving().observe("credit")
    assert (before.routes, before.fence) == (Split(), None)

    shared.apply(Split.of(a))

    observed = shared.serving().observe("credit")
    assert observed.shows(Split.of(a))
    assert (observed.ready, observed.fence) == ({a: 2}, 1)
    answer = shared.ask()
    assert (answer.status, answer.release, answer.body["path"]) == (200, a, "/api/v1.0/predictions")
    assert answer.body["headers"]["x-mlops-role"] == "live"
    assert {shared.ask().body["pid"] for _ in range(30)} == {shared.pid(a, 0), shared.pid(a, 1)}


def test_the_gateway_gives_each_request_an_id_of_its_own_and_keeps_the_callers(shared: Place) -> None:
    shared.apply(Split.of(shared.release("a")))
    mine = {"x-request-id": "mine", "x-mlops-role": "shadow", "x-envoy-max-retries": "99"}
    answers = [shared.ask(headers=mine).body["headers"] for _ in range(2)]
    assert answers[0]["x-request-id"] != answers[1]["x-request-id"]
    assert answers[0]["x-request-id"] != "mine"
    for headers in answers:
        assert headers["x-client-request-id"] == "mine"
        assert headers["x-mlops-role"] == "live"
        assert headers["x-envoy-attempt-count"] == "1"
        assert "x-envoy-max-retries" not in headers


def test_what_is_not_served_is_answered_by_a_sentence(shared: Place) -> None:
    shared.apply(Split.of(shared.release("a")))
    unknown = shared.ask(service="nobody")
    pinned = shared.ask(pin="sha256:" + "9" * 64)
    assert (unknown.status, pinned.status) == (404, 404)
    assert "no such service" in unknown.body["status"]["info"]
    assert "no arm" in pinned.body["status"]["info"]

    shared.apply(Split())
    nothing = shared.ask()
    assert nothing.status == 503
    assert "serves no release" in nothing.body["status"]["info"]
    assert shows(shared, Split())


def test_a_canary_gets_its_percent_and_is_promoted_without_a_failed_request(shared: Place) -> None:
    a, b = shared.release("a"), shared.release("b")
    shared.apply(Split.of(a))
    with shared.traffic() as traffic:
        traffic.wait(50)
        shared.apply(canary(a, b, 20))
        assert shows(shared, canary(a, b, 20))
        started, before = len(traffic.answers), shared.serving().counters("credit")
        traffic.wait(1000)
        seen = Counter(answer.release for answer in traffic.answers[started:])
        after = shared.serving().counters("credit")
        shared.apply(Split.of(b, warm=[a]))
        moved = time.monotonic()
        traffic.wait(100)

    share = seen[b] / seen.total()
    assert 0.2 - 5 * 0.0127 < share < 0.2 + 5 * 0.0127  # five standard deviations of 1,000 draws
    assert after.start == before.start
    assert after.requests[b] - before.requests.get(b, 0) == pytest.approx(seen[b], abs=20)
    assert not traffic.failed
    assert {answer.release for answer in traffic.answers if answer.began > moved} == {b}
    assert shows(shared, Split.of(b, warm=[a]))
    assert shared.ask(pin=a).release == a
    assert shared.ask(pin=a).body["headers"]["x-mlops-role"] == "warm"


def test_a_shadow_gets_copies_and_goes_live_in_the_same_processes(shared: Place) -> None:
    a, b = shared.release("a"), shared.release("b")
    shared.apply(Split.of(a))
    shared.apply(Split.of(a, shadow=b, percent=40))
    assert shows(shared, Split.of(a, shadow=b, percent=40))
    records = shared.home / "serving" / "records" / "credit"
    for file in records.glob("*/seen.jsonl"):
        file.write_text("")
    with shared.traffic() as traffic:
        traffic.wait(500)
    copies = [
        json.loads(line) for file in records.glob(f"credit-{b[7:23]}-*/*") for line in file.read_text().splitlines()
    ]
    assert {answer.release for answer in traffic.answers} == {a}
    assert {copy["headers"]["x-mlops-role"] for copy in copies} == {"shadow"}
    assert len(copies) / len(traffic.answers) == pytest.approx(0.4, abs=0.11)

    pids = [shared.pid(b, 0), shared.pid(b, 1)]
    with shared.traffic() as traffic:
        shared.apply(Split.of(b, warm=[a]))
        traffic.wait(50)
    assert not traffic.failed
    assert shows(shared, Split.of(b, warm=[a]))
    assert [shared.pid(b, 0), shared.pid(b, 1)] == pids


def test_a_hung_shadow_does_not_slow_the_primary(shared: Place) -> None:
    a, hung = shared.release("a"), shared.release("hung", delay=3600)
    shared.apply(Split.of(a, shadow=hung), drain_seconds=0)
    with shared.traffic() as traffic:
        traffic.wait(300)
    shared.apply(Split.of(a), drain_seconds=0)
    times = sorted(answer.ended - answer.began for answer in traffic.answers)
    assert not traffic.failed
    assert times[len(times) * 9 // 10] < 0.5


@pytest.mark.parametrize("code", [1, 78])
def test_a_candidate_that_crashes_leaves_the_traffic_alone(shared: Place, code: int) -> None:
    a, bad = shared.release("a"), shared.release(f"bad{code}", crash="no module named tablets", code=code)
    shared.apply(Split.of(a))
    began = time.monotonic()
    with shared.traffic() as traffic, pytest.raises(ArmNotReady, match="no module named tablets") as caught:
        shared.apply(canary(a, bad, 10))
    assert caught.value.release == bad
    assert time.monotonic() - began < 10
    assert not traffic.failed
    assert {answer.release for answer in traffic.answers} == {a}
    assert shows(shared, Split.of(a))
    assert shared.ask(pin=bad).status == 404
    gone = wait_until(
        lambda: not any(bad[7:23] in name for name in shared.serving()._supervisor.processes()), seconds=5
    )
    assert gone
    shared.apply(Split.of(a))
    assert shows(shared, Split.of(a))


def test_a_candidate_that_never_gets_ready_is_given_up_in_time(shared: Place) -> None:
    a, slow = shared.release("a"), shared.release("slow", boot=60)
    shared.apply(Split.of(a))
    with pytest.raises(ArmNotReady, match="was not ready after 1 s"):
        shared.apply(Split.of(slow, warm=[a]), start_seconds=1, drain_seconds=1)
    assert shows(shared, Split.of(a))


def test_a_warm_rollback_is_a_switch_and_a_cold_one_starts_what_was_ended(shared: Place) -> None:
    a, b = shared.release("a"), shared.release("b")
    shared.apply(Split.of(a))
    shared.apply(Split.of(b, warm=[a]))
    with shared.traffic() as traffic:
        traffic.wait(50)
        began = time.monotonic()
        shared.apply(Split.of(a, warm=[b]))
        took = time.monotonic() - began
        last_old = max(answer.ended for answer in traffic.answers if answer.release == b)
        traffic.wait(20)
        shared.apply(Split.of(a))
        assert shared.ask(pin=b).status == 404
        assert wait_until(lambda: len(shared.serving()._supervisor.processes()) == 5, seconds=5)
        shared.apply(Split.of(b, warm=[a]))
        traffic.wait(20)
    assert took < 1
    assert last_old - began < 1
    assert not traffic.failed
    assert shows(shared, Split.of(b, warm=[a]))


def test_the_fewer_replicas_asked_for_are_what_remains(shared: Place) -> None:
    a = shared.release("a")
    shared.apply(Split.of(a), replicas=3)
    three = shared.serving(replicas=3)
    assert wait_until(lambda: three.observe("credit").ready == {a: 3}, seconds=5)
    shared.apply(Split.of(a), replicas=1)
    assert wait_until(lambda: three.observe("credit").ready == {a: 1}, seconds=5)
    shared.apply(Split.of(a))
    assert wait_until(lambda: shared.serving().observe("credit").ready == {a: 2}, seconds=5)


def test_services_share_a_gateway_and_nothing_else(shared: Place) -> None:
    a, other = shared.release("a"), shared.release("other", service="fraud")
    shared.apply(Split.of(a))
    pids = [shared.pid(a, number) for number in range(2)]
    shared.apply(Split.of(other), service="fraud")
    assert (shared.ask().release, shared.ask(service="fraud").release) == (a, other)
    assert shared.serving().services() == ("credit", "fraud")
    assert shared.ask(pin=other).status == 404
    assert shared.serving().counters("fraud").requests.keys() == {other}
    shared.apply(Split(), service="fraud")
    assert (shared.ask().release, shared.ask(service="fraud").status) == (a, 503)
    assert [shared.pid(a, number) for number in range(2)] == pids


def test_a_body_over_the_limit_is_refused_by_the_gateway(shared: Place) -> None:
    a = shared.release("a")
    shared.apply(Split.of(a))
    large, too_large = b"x" * (16 * 2**20 - 1), b"x" * (16 * 2**20 + 1)
    assert shared.ask(body=large).body["length"] == len(large)
    assert shared.ask(body=too_large).status == 413
    shared.apply(Split.of(a), max_body_bytes=1000)
    assert shared.ask(body=b"x" * 1001).status == 413
