"""The stages of the story: each does what a team would do, and says what was seen of it.

What was seen are the answers that clients got, the entries of the log and the objects of the store, never only what
a flow returned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect_mlops.blocks import Entry, Environment
from prefect_mlops.blocks._canonical import short
from prefect_mlops.blocks.entry import Judged, Waiver
from prefect_mlops.blocks.errors import DataRefused, TestsNotPassed
from prefect_mlops.deployments.demo._clients import Clients
from prefect_mlops.deployments.demo._person import decided
from prefect_mlops.deployments.traffic import Answer
from prefect_mlops.flows import release_model, rollback_release
from prefect_mlops.flows.creditco import LABELS, RECIPE, VENDOR_RECIPE
from prefect_mlops.tasks import Comparison, trace_prediction

if TYPE_CHECKING:
    import pandas as pd

    from prefect_mlops.deployments.demo._batches import Batches

SERVICE = RECIPE.name
PERSON = "Ana Lima"
WAIVED_BECAUSE = "the vendor's offer ends this week; we watch what it decides"
FLIPS_ALLOWED = 0.01
ASKED_TWICE = 1_000
ROLLBACK_SECONDS = 5.0
"""What is at once on a busy machine; under one on an idle one."""


@dataclass(frozen=True)
class Stage:
    """One step of the story: what it claims, what was seen, and the same for a program."""

    name: str
    expected: str
    observed: str
    ok: bool
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Scene:
    """Where the story plays.

    Attributes:
        environment: Where releases go.
        batches: The data files.
        applicants: Whom clients ask about, without the label.
        clients: Those who ask all the while.
        first: Digest of the release that the story begins with.
        evidence: Digest of what stopped the second one, once it was stopped.
    """

    environment: Environment
    batches: Batches
    applicants: pd.DataFrame
    clients: Clients
    first: str
    evidence: str = ""

    def name(self, release: str) -> str:
        """A release as people call it: v1, v2."""
        return self.environment.log().state().service(SERVICE).named(release).removeprefix(f"{SERVICE}-")

    def entries(self, since: int) -> list[Entry]:
        """The log from an entry's number on."""
        return [entry for entry in self.environment.log().entries() if entry.seq >= since]

    @property
    def next(self) -> int:
        """The number that the next entry of the log will have."""
        return self.environment.log().state().next


def first_release(scene: Scene) -> Stage:
    """The release that the story begins with answers everybody."""
    name = scene.name(scene.first)
    share, seen = _share(scene.clients.await_answers(ASKED_TWICE // 2), scene.first)
    return Stage(
        f"release {SERVICE}-{name}, blue/green",
        f"{name} answers all",
        f"{name} {_percent(share)} ({seen})",
        share == 1,
        {"release": scene.first, "name": f"{SERVICE}-{name}"},
    )


def misspelt_batch(scene: Scene) -> Stage:
    """Labels that are spelt otherwise stop a release before anything is trained."""
    with _untouched(scene) as seen:
        try:
            release_model(VENDOR_RECIPE, data=scene.batches.misspelt, reason="a vendor sells us more data")
            observed, facts = "not stopped", {}
        except DataRefused as refused:
            observed = f"stopped: {refused.reasons[0].partition(';')[0]}"
            facts = {"rows": refused.bad_rows, "commit": refused.commit, "quarantine": refused.quarantine}
            seen.stopped = bool(refused.quarantine and scene.environment.store_block.has(refused.quarantine))
    return Stage("vendor batch, labels misspelt", "stopped at validation", observed, seen.nothing, facts)


def biased_candidate(scene: Scene) -> Stage:
    """A model that leans on a contested attribute is stopped by its tests: no number, nothing in the registry."""
    number = len(scene.environment.log().state().service(SERVICE).numbers) + 1
    with _untouched(scene) as seen:
        try:
            release_model(VENDOR_RECIPE, data=scene.batches.vendor, reason="the vendor mended the labels")
            observed, facts = "not stopped", {}
        except TestsNotPassed as stopped:
            details = {test: detail for test, _, detail in stopped.verdicts}
            observed = f"stopped: {'; '.join(detail.partition(';')[0] for detail in details.values())}"
            facts = {"tests": details, "evidence": stopped.evidence}
            scene.evidence, seen.stopped = stopped.evidence, "flip(sex)" in details
    return Stage(f"v{number} leans on a contested attribute", "stopped by its tests", observed, seen.nothing, facts)


def waived_and_taken_back(scene: Scene) -> Stage:
    """A person waives the tests; the model goes live, is found out from outside, and is rolled back."""
    began = scene.next
    decision = {"decision": "waive", "name": PERSON, "reason": WAIVED_BECAUSE}
    second = decided(lambda: _waivable(scene), f"service:{SERVICE}", decision)
    waivers = [entry for entry in scene.entries(began) if isinstance(entry.body, Waiver)]
    live, _ = _share(scene.clients.await_answers(ASKED_TWICE // 5), second)
    flips = _flips(scene)
    back = _roll_back(scene, second, f"flip(sex) changes {_percent(flips, 1)} of answers")
    failed = sum(one.status != 200 for one in scene.clients.answers())
    was, now = scene.name(second), scene.name(scene.first)
    facts = {
        "waivers": [{"person": one.actor.name, "reason": one.reason, **one.body.model_dump()} for one in waivers],
        "release": second,
        "flips": round(flips, 4),
        "seconds": round(back.seconds, 3),
        "switch_ms": round(back.switch_ms, 1),
    }
    return Stage(
        f"{was} waived by a person, live, found out",
        f"rolled back to {now} at once",
        f"{_percent(flips, 1)} of answers flip; {now} {_percent(back.share)} after {back.seconds:.2f} s; "
        f"{failed} failed requests",
        _waived(scene, waivers)
        and live == back.share == 1
        and not failed
        and flips > FLIPS_ALLOWED
        and back.seconds <= ROLLBACK_SECONDS,
        facts,
    )


def shadowed(scene: Scene) -> Stage:
    """A model of new data answers copies of live requests, agrees with what is live, and is promoted."""
    began = scene.next
    third = release_model(RECIPE, data=scene.batches.to_date, strategy="shadow", reason="all applications to date")
    verdicts = [body for entry in scene.entries(began) if isinstance(body := entry.body, Judged)]
    [judged] = [verdict for verdict in verdicts if verdict.evidence and verdict.gate == "shadow agreement"]
    found = Comparison.model_validate_json(scene.environment.store_block.get(judged.evidence or ""))
    name, agreement = scene.name(third), found.agreed / found.rows
    share, seen = _share(scene.clients.await_answers(ASKED_TWICE // 5), third)
    return Stage(
        f"{name} in shadow of {scene.name(found.champion)}",
        "agrees, promoted",
        f"{_percent(agreement, 1)} agreement on {found.rows:,} pairs; {name} {_percent(share)} ({seen})",
        judged.outcome == "passed" and share == 1 and found.challenger == third,
        {"release": third, "agreement": round(agreement, 4), "pairs": found.rows, "evidence": judged.evidence},
    )


def explained(scene: Scene) -> Stage:
    """One applicant's no is traced to release, run, commit and rows."""
    request = _a_no(scene)
    found = trace_prediction.fn(scene.environment, request)
    commit = scene.environment.store_block.commit_at(found.commit) if found.commit else None
    run = found.run.name if found.run else "none"
    rows = f"rows 1-{found.rows:,}" if found.rows else "rows unknown"
    facts = {
        "request_id": request,
        "run": run,
        **found.model_dump(include={"name", "commit", "source", "rows", "data"}),
    }
    return Stage(
        f"why did applicant {request[:4]}… get a no?",
        "release, run, data",
        f"{scene.name(found.release)} · {run} · commit {short(found.commit or 'unknown')} · {rows}",
        found.run is not None and commit is not None and commit.snapshot == found.data,
        facts,
    )


STAGES: tuple[Callable[[Scene], Stage], ...] = (
    first_release,
    misspelt_batch,
    biased_candidate,
    waived_and_taken_back,
    shadowed,
    explained,
)


# --- what is seen ----------------------------------------------------------------------------


@dataclass
class _Seen:
    """Whether something was stopped, and whether that changed nothing for anybody."""

    stopped: bool = False
    nothing: bool = False


@contextmanager
def _untouched(scene: Scene) -> Generator[_Seen]:
    """Look whether the first release answers all the while, and log and registry stay as they are."""
    seen, before, began = _Seen(), _recorded(scene), time.monotonic_ns()
    yield seen
    share, _ = _share(scene.clients.await_answers(ASKED_TWICE // 5, began), scene.first)
    seen.nothing = seen.stopped and share == 1 and _recorded(scene) == before


def _recorded(scene: Scene) -> tuple[Entry | None, int]:
    """The newest entry of the log, and how many versions of the model the registry has."""
    versions = scene.environment.registry_block.client().search_model_versions(f"name='{SERVICE}'")
    return scene.environment.log().state().head, len(versions)


def _share(answers: list[Answer], release: str) -> tuple[float, str]:
    """Which share of the answers a release gave, and that in words."""
    given = sum(one.release == release and one.status == 200 for one in answers)
    return given / len(answers), f"{given:,} of {len(answers):,} answers"


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _waivable(scene: Scene) -> str:
    return release_model(VENDOR_RECIPE, data=scene.batches.vendor, waiver=True, reason="the vendor's data, once more")


def _waived(scene: Scene, waivers: list[Entry]) -> bool:
    """Whether the log says who let what pass and why, having seen the very evidence that had stopped it."""
    store = scene.environment.store_block
    bodies = [entry.body for entry in waivers if isinstance(entry.body, Waiver)]
    if not bodies or any((entry.actor.name, entry.reason) != (PERSON, WAIVED_BECAUSE) for entry in waivers):
        return False
    shown = json.loads(store.get(bodies[0].shown))
    stopped = {verdict["test"] for verdict in shown["verdicts"] if verdict["outcome"] != "passed"}
    return {body.shown for body in bodies} == {scene.evidence} and {body.gate for body in bodies} == stopped


def _flips(scene: Scene) -> float:
    """Which share of the live answers changes when applicants are asked about twice, as man and as woman."""
    rows = scene.applicants.head(ASKED_TWICE)
    (men, _), (women, _) = (scene.clients.ask(rows.assign(sex=sex)) for sex in ("Male", "Female"))
    return sum(a != b for a, b in zip(men, women, strict=True)) / len(rows)


@dataclass(frozen=True)
class _Back:
    """What clients saw of a rollback: how long it took, and how long both releases answered."""

    share: float
    seconds: float
    switch_ms: float


def _roll_back(scene: Scene, second: str, reason: str) -> _Back:
    """Roll back, and find the moment of the last answer that the second release gave."""
    decided_ns = time.monotonic_ns()
    rollback_release(SERVICE, reason=reason)
    done_ns = time.monotonic_ns()
    share, _ = _share(scene.clients.await_answers(ASKED_TWICE // 5, done_ns), scene.first)
    seen = scene.clients.answers(decided_ns)
    old = max((one.answered_ns for one in seen if one.release == second), default=decided_ns)
    new = min((one.answered_ns for one in seen if one.release == scene.first), default=decided_ns)
    return _Back(share, (old - decided_ns) / 1e9, max(0.0, (old - new) / 1e6))


def _a_no(scene: Scene) -> str:
    """The id of a request that was answered with a no.

    Raises:
        LookupError: If nobody gets a no.
    """
    for number in range(ASKED_TWICE):
        [yes], request = scene.clients.ask(scene.applicants[number : number + 1])
        if not yes:
            return request
    raise LookupError(f"none of {ASKED_TWICE:,} applicants is answered {LABELS[0]}")
