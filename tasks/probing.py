"""Gates that ask a served release: does it answer as it did when it was trained, and does it answer at all?"""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from prefect_mlops.blocks import Counters, Environment
from prefect_mlops.blocks.entry import Judged, Outcome

PREDICTIONS = "/api/v1.0/predictions"
PROBED, WATCHED = "golden probes at the front door", "live answers"
"""The gates of a release that is live already."""


@task(name="probe-release", task_run_name="probe {service} {release:.15}", persist_result=False, cache_policy=NO_CACHE)
def probe_release(environment: Environment, service: str, release: str, *, pinned: bool = True) -> Judged:
    """Send a release its golden probes where it is served, and compare the answers with the recorded ones.

    Args:
        environment: Where it is served.
        service: Name of the service.
        release: Digest of the release document.
        pinned: Whether to reach the release itself, whatever the split says; else send the probes
            as clients send requests, and expect that this release answers.

    Returns:
        `passed` if every answer came from this release and is the recorded one, to a relative
        tolerance that the probes carry; `failed` if one did not; `could not be measured` if
        nothing answered.
    """
    store = environment.store_block
    document = json.loads(store.get(store.release(release).probes))
    address = environment.target.address(service, release if pinned else None)
    gate = "golden probes" if pinned else PROBED
    try:
        answer = httpx.post(address.url + PREDICTIONS, json=document["request"], headers=address.headers, timeout=30)
    except httpx.HTTPError as error:
        return Judged(release=release, gate=gate, outcome="could not be measured", detail=f"no answer: {error}")
    outcome, detail = _compared(document, release, answer)
    return Judged(release=release, gate=gate, outcome=outcome, detail=detail)


def _compared(document: dict[str, Any], release: str, answer: httpx.Response) -> tuple[Outcome, str]:
    if answer.status_code != 200:
        return "failed", f"status {answer.status_code}: {answer.text[:200]}"
    if (by := answer.headers.get("x-release")) != release:
        return "failed", f"release {by} answered"
    expected = np.asarray(document["answers"], dtype=float)
    got = np.asarray(answer.json()["data"]["ndarray"], dtype=float)
    if got.shape != expected.shape:
        return "failed", f"answers of shape {got.shape}, expected {expected.shape}"
    wrong = ~np.isclose(got, expected, rtol=document["tolerance"], atol=document["tolerance"]).all(axis=1)
    if wrong.any():
        first = int(np.argmax(wrong))
        return "failed", (
            f"{int(wrong.sum())} of {len(expected)} answers differ, first row {first}: "
            f"{got[first].tolist()}, recorded {expected[first].tolist()}"
        )
    return "passed", f"{len(expected)} of {len(expected)} answers as recorded"


@task(name="watch-release", task_run_name="watch {service} {release:.15}", persist_result=False, cache_policy=NO_CACHE)
def watch_release(environment: Environment, service: str, release: str) -> Judged:
    """Watch the answers that a live release gives for the policy's `watch_seconds`.

    Returns:
        `passed` if it answered and at most the policy's share of its answers failed; `failed` if
        more did; `could not be measured` if nobody asked it anything, or the router was restarted
        so that its counts began anew.
    """
    target, policy = environment.target, environment.policy
    before = target.counters(service)
    time.sleep(policy.watch_seconds)
    after = target.counters(service)
    outcome, detail = _counted(before, after, release, policy.max_error_permille)
    return Judged(release=release, gate=WATCHED, outcome=outcome, detail=detail)


def _counted(before: Counters, after: Counters, release: str, permille: int) -> tuple[Outcome, str]:
    if before.start != after.start:
        return "could not be measured", "the gateway was restarted meanwhile, its counts began anew"
    answers = after.requests.get(release, 0) - before.requests.get(release, 0)
    errors = after.errors.get(release, 0) - before.errors.get(release, 0)
    if answers < 1:
        return "could not be measured", "nobody asked it anything"
    outcome: Outcome = "failed" if errors * 1000 > answers * permille else "passed"
    return outcome, f"{errors} of {answers} answers failed, at most {permille} in 1,000 allowed"
