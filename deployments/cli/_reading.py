"""`releases`, `trace` and `verify`: they ask the store, the log and the target, never Prefect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefect_mlops.blocks import Entry, Environment, Verification, verify
from prefect_mlops.blocks.entry import Released
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.blocks.state import Service
from prefect_mlops.blocks.verify import to_json
from prefect_mlops.deployments.cli import _exits
from prefect_mlops.deployments.cli._output import Answer, brief, columns, day_and_time, fields
from prefect_mlops.deployments.cli._where import Where, newest_page

_ENTRY_ROW = re.compile(r"^\| (\d+) \| \d{4}-\d\d-\d\dT", re.MULTILINE)

# --- releases --------------------------------------------------------------------------------


def releases_of(where: Where, name: str) -> Answer:
    """Every release of every service, newest first."""
    environment = where.environment(name)
    log = environment.log()
    state, entries = log.state(), list(log.entries())
    services = {
        service: [_release(environment, known, entry) for entry in reversed(entries) if _releases(entry, service)]
        for service, known in sorted(state.services.items())
    }
    return Answer({"environment": name, "services": services}, _releases_page(name, services))


def _releases(entry: Entry, service: str) -> bool:
    return isinstance(entry.body, Released) and entry.service == service


def _release(environment: Environment, known: Service, entry: Entry) -> dict[str, Any]:
    assert isinstance(entry.body, Released)
    release = entry.body.release
    arm = known.split.arm(release)
    return {
        "number": entry.body.number,
        "name": known.named(release),
        "digest": release,
        **_made_of(environment, release),
        "role": arm.role if arm else None,
        "times_live": _times_live(known, release),
        "time": entry.time,
        "actor": entry.actor.model_dump(),
        "run": entry.run.model_dump() if entry.run else None,
        "reason": entry.reason,
        "entry": entry.seq,
    }


def _made_of(environment: Environment, release: str) -> dict[str, str | None]:
    parts = ("data", "code", "runtime", "model")
    try:
        document = environment.store_block.release(release)
    except (MlopsError, ValidationError):
        return dict.fromkeys(parts)
    return {part: getattr(document, part) for part in parts}


def _times_live(known: Service, release: str) -> int:
    """How often it began to answer."""
    answering = [any(arm.release == release for arm in change.split.live) for change in known.changes]
    return sum(now and not before for before, now in zip([False, *answering], answering, strict=False))


def _releases_page(environment: str, services: dict[str, list[dict[str, Any]]]) -> str:
    lines: list[str] = []
    header = ("release", "now", "model", "data", "live", "released", "by", "run")
    for service, releases in services.items():
        rows = [
            (
                one["name"],
                one["role"] or "",
                brief(one["model"]),
                brief(one["data"]),
                f"{one['times_live']} x",
                day_and_time(one["time"]),
                one["actor"]["name"],
                one["run"]["name"] if one["run"] else "",
            )
            for one in releases
        ]
        lines += [f"{service} in {environment}", *(columns(header, rows) if rows else ["  no release"]), ""]
    return "\n".join(lines).rstrip() or f"nothing was released to {environment} yet"


# --- trace -----------------------------------------------------------------------------------


def trace_of(where: Where, name: str, request_id: str) -> Answer:
    """All that led to one answer.

    Raises:
        NotRecorded: If no model server recorded such a request.
    """
    from prefect_mlops.tasks import trace_prediction

    found = trace_prediction.fn(where.environment(name), request_id)
    document = found.model_dump(mode="json")
    return Answer(document, _trace_page(document))


def _trace_page(trace: dict[str, Any]) -> str:
    code, runtime = trace["code"], trace["runtime"]
    made = [f"{part} {trace[part]}" for part in ("model", "data")]
    run = f"{trace['run']['name']} ({trace['run']['id']})" if trace["run"] else "none: it was done without Prefect"
    pairs = [
        ("release", f"{trace['name']}\n{trace['release']}"),
        ("run", run),
        ("by", f"{trace['actor']['name']} ({trace['actor']['assurance']}), log entry {trace['entry']}"),
        ("why", trace["reason"] or "no reason was given"),
        ("made of", "\n".join(made)),
        ("files", ", ".join(trace["files"])),
        ("commit", "\n".join(_origin_lines(trace))),
        ("code", ", ".join(f"{name} {value}" for name, value in code.items() if isinstance(value, str))),
        ("runtime", ", ".join(f"{name} {value}" for name, value in runtime.items() if isinstance(value, str))),
        ("figures", ", ".join(f"{name} {value:.4f}" for name, value in trace["metrics"].items())),
    ]
    heads = [line for record in trace["records"] for line in _record_lines(record)]
    return "\n".join([f"{trace['service']} answered {trace['request_id']}", *fields(pairs), "", *heads])


def _origin_lines(trace: dict[str, Any]) -> Iterator[str]:
    if trace["commit"]:
        yield trace["commit"]
        yield f"{_rows(trace['rows'])} from {trace['source']}"
    if trace["raw_commit"]:
        yield f"kept of {_rows(trace['raw_rows'])} that came in as {trace['raw_commit']}"


def _rows(count: int | None) -> str:
    return "an unknown number of rows" if count is None else f"{count:,} rows"


def _record_lines(record: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{record['kind']}, {record['role']}, try {record['attempt']} · {day_and_time(record['time'])} · "
        f"status {record['status']} · {record['latency_ms']:.1f} ms"
    )
    rows = [_row(record["input_names"], row) for row in record["inputs"] or []]
    answers = [_row(record["output_names"], row) for row in record["outputs"] or []]
    truth = "" if record["truth"] is None else json.dumps(record["truth"])
    reward = "" if record["reward"] is None else str(record["reward"])
    yield from fields(
        [("asked", "\n".join(rows)), ("answered", "\n".join(answers)), ("truth", truth), ("reward", reward)]
    )


def _row(names: list[str] | None, values: list[Any]) -> str:
    cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(f"{name} {cell}" for name, cell in zip(names, cells, strict=False)) if names else ", ".join(cells)


# --- verify ----------------------------------------------------------------------------------


def verification_of(where: Where, name: str) -> Answer:
    """Every fault of the store and the log, and what no check can prove."""
    environment = where.environment(name)
    anchors = dict(_anchors(where, environment))
    report = verify(environment.log(), anchors)
    document = {**to_json(report), "store": where.store, "anchors": anchors}
    return Answer(document, _verification_page(report), 0 if report.verified else _exits.NO)


def _anchors(where: Where, environment: Environment) -> Iterator[tuple[str, int]]:
    """What outside the store remembers an entry, as far as it answers."""
    services = set(environment.log().state().services)
    with suppress(MlopsError):
        services.update(environment.services())
    places: dict[str, Callable[[str], int | None]] = {
        "the gateway": lambda service: environment.target.observe(service).fence,
        "the registry": lambda service: _shown_in_registry(environment, service),
        "the page in Prefect": lambda service: _shown_in_prefect(where, service),
    }
    for service, (place, ask) in product(sorted(services), places.items()):
        with suppress(Exception):  # an anchor that cannot be reached proves nothing, and breaks nothing
            if (number := ask(service)) is not None:
                yield f"{place} of {service}", number


def _shown_in_registry(environment: Environment, service: str) -> int | None:
    """The entry that the champion's version is tagged with."""
    registry = environment.registry_block
    file = registry.tracking_uri.removeprefix("sqlite:///")
    if file != registry.tracking_uri and not Path(file).exists():
        return None  # asking would create it
    return int(registry.client().get_model_version_by_alias(service, "champion").tags["entry"])


def _shown_in_prefect(where: Where, service: str) -> int | None:
    """The newest entry on the page that the last run left behind."""
    page = newest_page(where, f"release-{service}") or ""
    return max((int(number) for number in _ENTRY_ROW.findall(page)), default=None)


def _verification_page(report: Verification) -> str:
    verdict = "verified" if report.verified else f"{len(report.faults)} FAULTS"
    lines = [
        f"{report.environment}: {verdict} · {report.entries} entries, {report.objects} objects, read to the last byte"
    ]
    lines += [f"  {fault.key}\n    {fault.what}" for fault in report.faults]
    lines += ["what this cannot prove:", *(f"  {sentence}" for sentence in report.unproven)]
    return "\n".join(lines)
