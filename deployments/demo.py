"""The CreditCo story on this machine: two releases, the second taken back, under traffic the whole time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from prefect_mlops.blocks import Environment, verify
from prefect_mlops.blocks._canonical import short
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.deployments.traffic import PREDICTIONS, Answer, answers
from prefect_mlops.flows import release_model, rollback_release
from prefect_mlops.flows.creditco import RECIPE, TARGET, VENDOR_RECIPE, census, read_census, vendor_batch
from prefect_mlops.tasks import trace_prediction

if TYPE_CHECKING:
    import pandas as pd

    from prefect_mlops.deployments.local.place import Place

SERVICE = RECIPE.name
RATE = 400
REQUESTS = 5_000
FLIPS_ALLOWED = 0.01
ROWS = 12_000


@dataclass(frozen=True)
class Stage:
    """One step of the story: what it claims, and what was seen."""

    name: str
    expected: str
    observed: str
    ok: bool


@dataclass
class Story:
    """What happened so far."""

    stages: list[Stage] = field(default_factory=list[Stage])
    names: dict[str, str] = field(default_factory=dict[str, str])
    rollback_seconds: float = 0.0
    switch_ms: float = 0.0

    def tell(self, name: str, expected: str, observed: str, ok: bool) -> None:
        """Add a stage, and say so while the story goes on."""
        self.stages.append(Stage(name, expected, observed, ok))
        print(f" {'ok ' if ok else 'NOT'} {name}: {observed}", file=sys.stderr, flush=True)


class Traffic:
    """Clients that ask the service until they are stopped."""

    def __init__(self, url: str, questions: list[dict[str, Any]], folder: Path) -> None:
        self.out = folder / "answers"
        asked = folder / "questions"
        asked.write_text("".join(json.dumps(question) + "\n" for question in questions))
        command = [sys.executable, "-m", "prefect_mlops.deployments.traffic", url, str(asked), str(self.out)]
        self.out.touch()
        self.process = subprocess.Popen([*command, str(RATE), "8"], stdin=subprocess.PIPE)

    def answers(self, since_ns: int = 0) -> list[Answer]:
        """What was answered to questions asked since a moment of the monotonic clock, oldest first."""
        found = [answer for answer in answers(self.out) if answer.asked_ns >= since_ns]
        return sorted(found, key=lambda answer: answer.answered_ns)

    def await_answers(self, count: int, since_ns: int = 0, seconds: float = 60) -> list[Answer]:
        """Wait until `count` questions asked since then were answered.

        Raises:
            TimeoutError: If that takes longer than `seconds`.
        """
        end = time.monotonic() + seconds
        while len(found := self.answers(since_ns)) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(found)} of {count} answers after {seconds:.0f} s")
            time.sleep(0.05)
        return found

    def stop(self) -> None:
        """Let every question that is out be answered, and ask no more."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(timeout=60)


def run_demo(place: Place, data: Path | None, *, as_json: bool) -> int:
    """Tell the story, and return 0 only if every stage was seen to be what it claims.

    Args:
        place: The local place; started where it does not run.
        data: A census file; made here if None.
        as_json: Whether to print one JSON document instead of a table.

    Raises:
        Invalid: If `data` is no census file. Nothing was changed.
    """
    began = time.monotonic()
    frame = read_census(data) if data else census(ROWS, seed=1)
    print(f" starting Prefect and all that serves in {place.home}", file=sys.stderr, flush=True)
    place.up()
    with tempfile.TemporaryDirectory(prefix="prefect-mlops-") as scratch, place.settings():
        story, counts = _told(place, frame, Path(scratch))
    report = _report(place, story, counts, time.monotonic() - began)
    print(json.dumps(report) if as_json else _page(report, story))
    return 0 if all(stage.ok for stage in story.stages) and not counts["failed"] else 1


def _told(place: Place, frame: pd.DataFrame, folder: Path) -> tuple[Story, Counter[str]]:
    story = Story()
    paths = folder / "applications.csv", folder / "vendor.csv"
    frame.to_csv(paths[0], index=False)
    vendor_batch(frame, seed=2).to_csv(paths[1], index=False)
    first = release_model(RECIPE, data=paths[0], environment="local", reason="the first model")
    environment = Environment.find("local")
    with _traffic(environment, frame, folder) as traffic:
        _live(story, environment, traffic, "release", first, "the first model")
        second = release_model(VENDOR_RECIPE, data=paths[1], environment="local", reason="a vendor sells more data")
        _live(story, environment, traffic, "release", second, "trained on the vendor's data")
        flips = _found_wanting(story, environment, frame, second)
        _taken_back(story, environment, traffic, first, second, f"flip(sex) changes {flips:.1%} of answers")
        _traced(story, environment, traffic, second)
        traffic.await_answers(REQUESTS)
        traffic.stop()
        counts = _counted(story, traffic)
    _verified(story, environment)
    return story, counts


@contextmanager
def _traffic(environment: Environment, frame: pd.DataFrame, folder: Path) -> Generator[Traffic]:
    rows = json.loads(_questions(frame).head(200).to_json(orient="values"))
    names = [name for name in frame.columns if name != TARGET]
    url = environment.target.address(SERVICE).url
    traffic = Traffic(url, [{"data": {"names": names, "ndarray": [row]}} for row in rows], folder)
    try:
        yield traffic
    finally:
        traffic.stop()


def _questions(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[TARGET]).replace("?", None)


def _live(story: Story, environment: Environment, traffic: Traffic, what: str, release: str, why: str) -> None:
    """Look at who answers now that the flow says that `release` is live."""
    story.names[release] = environment.log().state().service(SERVICE).named(release)
    seen = traffic.await_answers(200, since_ns=time.monotonic_ns())
    mine = sum(answer.release == release and answer.status == 200 for answer in seen)
    name = story.names[release]
    story.tell(f"{what} {name}", f"{name} answers all", f"{mine} of {len(seen)} answers, {why}", mine == len(seen))


def _found_wanting(story: Story, environment: Environment, frame: pd.DataFrame, release: str) -> float:
    """Ask the live service about applicants twice, as man and as woman."""
    asked = _questions(frame).head(1_000)
    flipped = asked.assign(sex=asked["sex"].map({"Male": "Female", "Female": "Male"}))
    decisions = [_decisions(environment, rows) for rows in (asked, flipped)]
    flips = sum(a != b for a, b in zip(*decisions, strict=True)) / len(asked)
    observed = f"flip(sex) changes {flips:.1%} of {len(asked):,} answers"
    story.tell(
        f"{story.names[release]} leans on sex",
        f"more than {FLIPS_ALLOWED:.0%} allowed",
        observed,
        flips > FLIPS_ALLOWED,
    )
    return flips


def _decisions(environment: Environment, rows: pd.DataFrame) -> list[bool]:
    question = {"data": {"names": list(rows.columns), "ndarray": json.loads(rows.to_json(orient="values"))}}
    url = environment.target.address(SERVICE).url + PREDICTIONS
    answer = httpx.post(url, json=question, timeout=60).raise_for_status()
    return [yes > no for no, yes in answer.json()["data"]["ndarray"]]


def _taken_back(story: Story, environment: Environment, traffic: Traffic, first: str, second: str, reason: str) -> None:
    """Roll back, and find the moment of the last answer that the second release gave."""
    decided = time.monotonic_ns()
    rollback_release(SERVICE, to="previous", environment="local", reason=reason)
    seen = traffic.await_answers(400, since_ns=decided)
    settled = [answer for answer in seen if answer.asked_ns > time.monotonic_ns() - 300_000_000]
    old = [answer.answered_ns for answer in seen if answer.release == second]
    new = [answer.answered_ns for answer in seen if answer.release == first]
    story.rollback_seconds = (max(old, default=decided) - decided) / 1e9
    story.switch_ms = max(0.0, (max(old, default=decided) - min(new, default=decided)) / 1e6)
    back = bool(settled) and all(answer.release == first for answer in settled)
    failed = sum(answer.status != 200 for answer in seen)
    name = story.names[first]
    observed = f"{name} answers all after {story.rollback_seconds:.2f} s, {failed} of {len(seen)} failed"
    story.tell(f"roll back to {name}", f"{name} answers all, in 1 s", observed, back and story.rollback_seconds <= 1)


def _traced(story: Story, environment: Environment, traffic: Traffic, release: str) -> None:
    """Explain one of the second release's answers."""
    name = story.names[release]
    answer = next(answer for answer in reversed(traffic.answers()) if answer.release == release)
    try:
        trace = trace_prediction.fn(environment, answer.request_id)
    except MlopsError as error:
        story.tell("why that answer?", f"{name}, its run, code and data", str(error), ok=False)
        return
    run = trace.run.name if trace.run else "no run"
    code = str(trace.code["train"]).rpartition(".")[2]
    observed = f"{answer.request_id[:8]}…: {trace.name} · run {run} · data {short(trace.data)} · code {code}"
    story.tell(
        "why that answer?",
        f"{name}, its run, code and data",
        observed,
        trace.release == release and trace.run is not None,
    )


def _counted(story: Story, traffic: Traffic) -> Counter[str]:
    counts: Counter[str] = Counter()
    for answer in traffic.answers():
        counts["total"] += 1
        counts["failed"] += answer.status != 200
        counts[story.names.get(answer.release, "nobody")] += 1
    return counts


def _verified(story: Story, environment: Environment) -> None:
    fence = environment.target.observe(SERVICE).fence
    report = verify(environment.log(), {"the gateway": fence} if fence is not None else {})
    what = f"{report.entries} entries, {report.objects} objects"
    observed = f"{what} verified" if report.verified else "; ".join(fault.what for fault in report.faults[:3])
    story.tell("the log", "every byte as it was written", observed, report.verified)


def _report(place: Place, story: Story, counts: Counter[str], seconds: float) -> dict[str, Any]:
    environment = Environment.remembered(place.store, "local", place.receipts)
    log = environment.log()
    report = verify(log)
    by = {name: count for name, count in counts.items() if name not in ("total", "failed")}
    return {
        "stages": [asdict(stage) for stage in story.stages],
        "requests": {"total": counts["total"], "failed": counts["failed"], "by_release": by},
        "rollback_seconds": round(story.rollback_seconds, 3),
        "switch_ms": round(story.switch_ms, 1),
        "log": {"entries": report.entries, "verified": report.verified},
        "seconds": round(seconds, 1),
        "prefect": f"{place.prefect_url}/v2/runs",
        "gateway": environment.target.address(SERVICE).url,
        "home": str(place.home),
    }


def _page(report: dict[str, Any], story: Story) -> str:
    rows = [("stage", "expected", "observed")]
    rows += [(f"{number} {stage.name}", stage.expected, stage.observed) for number, stage in enumerate(story.stages, 1)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f" {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
    for number, stage in enumerate(story.stages, 1):
        if not stage.ok:
            lines[number] += "   <- not what it claims"
    requests = report["requests"]
    by = ", ".join(f"{count:,} by {name}" for name, count in requests["by_release"].items())
    lines += [
        f" {requests['total']:,} requests, {requests['failed']} failed ({by}) · {report['seconds']:.0f} s",
        f" log of {report['log']['entries']} entries {'verified' if report['log']['verified'] else 'NOT verified'}",
        f" open {report['prefect']} · try prefect-mlops status, releases, trace, rollback, verify; end with stop",
    ]
    return "\n".join(lines)
