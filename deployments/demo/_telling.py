"""Telling the story: the stages one after the other, then one table or document of what was seen."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_mlops.blocks import Environment, Verification, verify
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.deployments.demo._batches import Batches, all_applications, questions
from prefect_mlops.deployments.demo._clients import Clients, asking
from prefect_mlops.deployments.demo._stages import SERVICE, STAGES, Scene, Stage
from prefect_mlops.flows import release_model
from prefect_mlops.flows.creditco import RECIPE
from prefect_mlops.tasks._scratch import scratch_folder

if TYPE_CHECKING:
    from prefect_mlops.deployments.local.place import Place

REQUESTS = 5_000
"""So many requests at least are sent while the story is told."""


def tell_story(place: Place, data: Path | None) -> tuple[dict[str, Any], str]:
    """Tell the story of CreditCo.

    Args:
        place: The local place; started where it does not run.
        data: A census file; made here if None.

    Returns:
        All that was seen, as a document and as a page; its `ok` is true only if every stage was seen to be what it
        claims, no request failed, and the log is whole.

    Raises:
        Invalid: If `data` is no census file. Nothing was changed.
        DataRefused, TestsNotPassed, GateNotPassed: If not even the first model can be released.
    """
    began = time.monotonic()
    frame = all_applications(data)
    _say(f"starting Prefect and all that serves in {place.home}")
    place.up()
    batches = Batches.write(frame, place.home / "demo")
    with scratch_folder() as scratch, place.settings():
        first = release_model(RECIPE, data=batches.applications, reason="the first model")
        environment, applicants = Environment.find("local"), questions(frame)
        with asking(environment.target.address(SERVICE).url, applicants, scratch) as clients:
            stages = _told(Scene(environment, batches, applicants, clients, first))
            clients.await_answers(REQUESTS, since_ns=0)
        requests = _counted(environment, clients)
    document: dict[str, Any] = {
        "stages": [asdict(stage) for stage in stages],
        "requests": requests,
        "rollback_seconds": next((stage.facts["seconds"] for stage in stages if "seconds" in stage.facts), None),
        "log": _verified(environment),
        "seconds": round(time.monotonic() - began, 1),
        "prefect": f"{place.prefect_url}/v2/runs",
        "gateway": environment.target.address(SERVICE).url,
        "home": str(place.home),
    }
    whole = len(stages) == len(STAGES) and all(stage.ok for stage in stages)
    document["ok"] = whole and not document["requests"]["failed"] and document["log"]["verified"]
    return document, _page(document)


def _told(scene: Scene) -> list[Stage]:
    """Stage after stage, until one is not what it claims: those that follow rest on it."""
    stages: list[Stage] = []
    for number, play in enumerate(STAGES, 1):
        try:
            stage = play(scene)
        except (MlopsError, LookupError, TimeoutError) as error:
            stage = Stage((play.__doc__ or "").partition(".")[0], "no error", str(error), ok=False)
        stages.append(stage)
        _say(f"{'ok ' if stage.ok else 'NOT'} {number} {stage.name}: {stage.observed}")
        if not stage.ok:
            break
    return stages


def _counted(environment: Environment, clients: Clients) -> dict[str, Any]:
    """How many requests were answered, and by whom."""
    answers = clients.answers()
    known = environment.log().state().service(SERVICE)
    by = Counter(known.named(one.release) for one in answers if one.status == 200)
    return {"total": len(answers), "failed": len(answers) - by.total(), "by_release": dict(by)}


def _verified(environment: Environment) -> dict[str, Any]:
    fence = environment.target.observe(SERVICE).fence
    report: Verification = verify(environment.log(), {} if fence is None else {"the gateway": fence})
    faults = [fault.what for fault in report.faults]
    return {"entries": report.entries, "objects": report.objects, "verified": report.verified, "faults": faults}


def _say(line: str) -> None:
    print(f" {line}", file=sys.stderr, flush=True)


def _page(document: dict[str, Any]) -> str:
    stages, requests, log = document["stages"], document["requests"], document["log"]
    rows = [("stage", "expected", "observed")]
    rows += [
        (f"{number} {stage['name']}", stage["expected"], stage["observed"]) for number, stage in enumerate(stages, 1)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f" {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
    for number, stage in enumerate(stages, 1):
        if not stage["ok"]:
            lines[number] += "   <- not what it claims"
    entries = f"log of {log['entries']} entries {'verified' if log['verified'] else 'NOT verified'}"
    return "\n".join(
        [
            *lines,
            f" {requests['total']:,} requests, {requests['failed']} failed · {entries} · {document['seconds']:.0f} s",
            f" open {document['prefect']} · try prefect-mlops status, releases, trace, rollback, verify; end with stop",
        ]
    )
