"""Comparing what two releases answered to the same requests."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from prefect_mlops.blocks import Digest, Environment, Label, Policy
from prefect_mlops.blocks._canonical import Value
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.entry import Judged, Outcome, Time
from prefect_mlops.blocks.records import Record, predictions_of
from prefect_mlops.tasks import _agreement

GATE = "shadow agreement"
POLL_SECONDS = 0.5


class Slice(Value):
    """How far two releases agreed on the rows with one value in one column."""

    column: str = Field(description="The column.")
    value: str = Field(description="The value in it.")
    rows: int = Field(description="Rows with that value.")
    agreed: int = Field(description="Of these, the rows on which both decided the same.")


class Comparison(Value):
    """Evidence of a shadow: what two releases answered to the same requests. Shares are in thousandths."""

    service: Label = Field(description="The service that was asked.")
    champion: Digest = Field(description="The release that answered.")
    challenger: Digest = Field(description="The release in its shadow.")
    since: Time = Field(description="From when on requests were looked at.")
    requests: int = Field(description="Requests that both answered.")
    failed: int = Field(description="Requests that the shadow answered with an error.")
    rows: int = Field(default=0, description="Rows in the requests that both answered.")
    agreed: int = Field(default=0, description="Rows on which both decided the same.")
    low: int = Field(default=0, description="Lower end of the 95 % confidence interval of the agreement.")
    high: int = Field(default=1000, description="Upper end of it.")
    wanted: int = Field(description="Agreement that the policy asks for.")
    p95_us: dict[str, int] = Field(description="95th percentile of the time to an answer, by role, in microseconds.")
    outputs: tuple[str, ...] = Field(default=(), description="Names of the answer's columns; the last is the score.")
    scores: dict[str, tuple[int, ...]] = Field(default={}, description="Histogram of the scores, by role.")
    slices: tuple[Slice, ...] = Field(
        default=(), description="Agreement by value of the columns with few, the least first."
    )
    outcome: Outcome = Field(description="Whether the policy is met.")
    format: int = Field(default=1, description="Version of this document's format.")


@task(
    name="compare-predictions",
    task_run_name="compare {champion:.15} and {challenger:.15}",
    persist_result=False,
    cache_policy=NO_CACHE,
)
def compare_predictions(environment: Environment, service: str, champion: str, challenger: str, since: str) -> Judged:
    """Wait until a shadow answered enough requests, and compare what it said with what the live release said.

    Answers are joined by request id. Enough is the policy's `shadow_requests`; it waits at most `shadow_seconds`.

    Args:
        environment: Where both are served.
        service: Name of the service.
        champion: Digest of the release that is live.
        challenger: Digest of the release in its shadow.
        since: Moment from which on requests count, in UTC with microseconds.

    Returns:
        `passed` if the whole confidence interval of the agreement is at or above the policy's
        `shadow_agreement_permille`, `failed` if the whole of it is below, or if more of the shadow's answers are
        errors than `max_error_permille` lets pass; `inconclusive` in between; `could not be measured` if too few
        requests came. The evidence is a `Comparison` in the store.
    """
    policy = environment.policy
    pairs: list[Pair] = []

    def enough() -> bool:
        nonlocal pairs
        records = predictions_of(environment.records(service), (champion, challenger), since)
        pairs = _joined(record for record in records if record.service == service)
        return len(pairs) >= policy.shadow_requests

    measured = wait_until(enough, seconds=policy.shadow_seconds, pause=POLL_SECONDS)
    facts = {"service": service, "champion": champion, "challenger": challenger, "since": since}
    comparison = Comparison.model_validate({**facts, **_facts(pairs, policy), "outcome": "could not be measured"})
    if measured and comparison.rows:
        outcome = _outcome(comparison, policy.max_error_permille)
        comparison = comparison.model_copy(update={"outcome": outcome})
    evidence = environment.store_block.put(comparison.canonical())
    detail = in_words(comparison)
    return Judged(release=challenger, gate=GATE, outcome=comparison.outcome, detail=detail, evidence=evidence)


Pair = tuple[Record, Record]
"""What the champion answered to a request, and what the shadow did."""


def in_words(comparison: Comparison) -> str:
    """A comparison in a sentence."""
    if comparison.outcome == "could not be measured":
        return f"only {comparison.requests:,} requests were answered by both in time"
    share = 100 * comparison.agreed / comparison.rows if comparison.rows else 0.0
    return (
        f"{share:.1f} % of {comparison.rows:,} answers agree (95 % interval {comparison.low / 10:.1f} to "
        f"{comparison.high / 10:.1f} %), at least {comparison.wanted / 10:g} % wanted; "
        f"{comparison.failed:,} of {comparison.requests + comparison.failed:,} failed"
    )


def _joined(records: Iterable[Record]) -> list[Pair]:
    by_role: dict[bool, dict[str, Record]] = {True: {}, False: {}}
    for record in records:
        by_role[record.role == "shadow"][record.request_id] = record
    shadows = by_role[True]
    return [(live, shadows[one]) for one, live in by_role[False].items() if live.status == 200 and one in shadows]


def _facts(pairs: list[Pair], policy: Policy) -> dict[str, Any]:
    """Everything that was counted."""
    answered = [(live, shadow) for live, shadow in pairs if shadow.status == 200]
    facts = {
        "requests": len(answered),
        "failed": len(pairs) - len(answered),
        "wanted": policy.shadow_agreement_permille,
        "p95_us": _p95_us(answered),
    }
    if not answered:
        return facts
    champion, challenger = (_outputs(records) for records in zip(*answered, strict=True))
    same, first = _agreement.agrees(champion, challenger), answered[0][0]
    low, high = _agreement.wilson(int(same.sum()), len(same))
    inputs = [row for live, _ in answered for row in live.inputs or ()]
    sliced = _agreement.slices(first.input_names or (), inputs, same.tolist())
    return facts | {
        "rows": len(same),
        "agreed": int(same.sum()),
        "low": floor(low * 1000),
        "high": ceil(high * 1000),
        "outputs": first.output_names or (),
        "scores": _agreement.histograms(champion, challenger),
        "slices": [dict(zip(("column", "value", "rows", "agreed"), one, strict=True)) for one in sliced],
    }


def _outputs(records: Iterable[Record]) -> NDArray[np.float64]:
    return np.array([row for record in records for row in record.outputs or ()], dtype=np.float64)


def _p95_us(answered: list[Pair]) -> dict[str, int]:
    roles = zip(("champion", "challenger"), zip(*answered, strict=True), strict=False)
    return {role: int(np.percentile([one.latency_ms for one in some], 95) * 1000) for role, some in roles}


def _outcome(comparison: Comparison, permille: int) -> Outcome:
    if comparison.failed * 1000 > (comparison.requests + comparison.failed) * permille:
        return "failed"
    if comparison.low >= comparison.wanted:
        return "passed"
    return "failed" if comparison.high < comparison.wanted else "inconclusive"
