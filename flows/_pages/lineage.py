"""The page of a lineage: from where the data came from to what answers, as a drawing and in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prefect_mlops.blocks import Entry, Environment, Store
from prefect_mlops.blocks._canonical import short
from prefect_mlops.blocks.commit import Commit
from prefect_mlops.blocks.entry import Waiver
from prefect_mlops.blocks.release import Release
from prefect_mlops.blocks.state import Service, fold
from prefect_mlops.flows._pages.markdown import LONGEST, plain, table
from prefect_mlops.tasks.lineage import Lineage, facts_in, lineage_of


class Step(NamedTuple):
    """A box of the drawing, and a row of the table.

    Attributes:
        name: What it is in the way from data to answers.
        what: What it is here.
        digest: Digest of its bytes; empty where it has none.
        told: When and by whom it was written down.
        after: Names of the steps that it was made of.
    """

    name: str
    what: str
    digest: str
    told: str
    after: tuple[str, ...]


def lineage_page(environment: Environment, service: str, release: str) -> str:
    """All that led to a release, and to its answering: drawn where the user interface can, and as a table.

    Args:
        environment: Whose log and store know it.
        service: What it is a release of.
        release: Its digest.
    """
    entries = list(environment.log().entries())
    known = fold(entries).service(service)
    name, steps = known.named(release), list(_steps(environment.store_block, entries, known, release))
    rows = ((step.name, plain(step.what, LONGEST), _code(short(step.digest)), plain(step.told)) for step in steps)
    parts = [
        f"# How {name} came to be",
        f"Read downwards: each row was made of those above it. `trace` says the same of one answer of {service}.",
        table(("what", "which", "digest", "written down"), rows),
        "\n".join(["```mermaid", *drawing(steps), "```"]),
        "\n".join(["```text", *(f"{step.name:16} {step.digest}" for step in steps if step.digest), "```"]),
    ]
    return "\n\n".join(parts)


def drawing(steps: Iterable[Step]) -> Iterator[str]:
    """The same as a graph in Mermaid's language, in which no text of somebody else's can mean anything."""
    known: set[str] = set()
    yield "graph LR"
    for step in steps:
        words = [step.name, step.what, short(step.digest)]
        yield f'  {_box(step.name)}["{"<br>".join(_inert(word) for word in words if word)}"]'
        yield from (f"  {_box(one)} --> {_box(step.name)}" for one in step.after if one in known)
        known.add(step.name)


def _box(name: str) -> str:
    return name.replace(" ", "-")


def _inert(text: str) -> str:
    line = text if len(text) <= 40 else text[:39] + "…"
    return "".join(letter if letter.isalnum() or letter in " .,-:%/…" else f"#{ord(letter)};" for letter in line)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _steps(store: Store, entries: list[Entry], known: Service, release: str) -> Iterator[Step]:
    document, lineage = store.release(release), lineage_of(store, entries, release)
    yield from _data(document, lineage)
    yield from _software(store, document)
    run = _told(lineage.released)
    trained_on = ("data", "data as it came", "code", "runtime")
    yield Step("model", ", ".join(_figures(store, document)), document.model, run, trained_on)
    yield Step("tests", _verdicts(store, entries, document, release), document.tests, run, ("model",))
    yield Step("release", known.named(release), release, run, ("model", "tests"))
    share, asked = _answers(known, release)
    yield Step("answers", share, "", _told(asked), ("release",))


def _data(document: Release, lineage: Lineage) -> Iterator[Step]:
    if lineage.data is None:
        yield Step("data", "a snapshot", document.data, "", ())
        return
    came, commit = lineage.raw or lineage.data, lineage.raw_commit or lineage.commit or ""
    extractor = f" by {came.extractor.name}" if came.extractor else ""
    yield Step("source", came.source + extractor, (came.extractor and came.extractor.code) or "", "", ())
    yield Step("data as it came", _rows(came), commit, _committed(came), ("source",))
    if lineage.raw is not None:
        aside = (lineage.raw.rows or 0) - (lineage.data.rows or 0)
        what = f"{_rows(lineage.data)}, {aside:,} set aside"
        yield Step("data", what, lineage.commit or "", _committed(lineage.data), ("data as it came",))


def _rows(commit: Commit) -> str:
    return "files" if commit.rows is None else f"{commit.rows:,} rows"


def _committed(commit: Commit) -> str:
    return _who(commit.time, commit.actor.name, commit.run.name if commit.run else "")


def _told(entry: Entry | None) -> str:
    if entry is None:
        return ""
    return _who(entry.time, entry.actor.name, entry.run.name if entry.run else "") + f", log entry {entry.seq}"


def _who(time: str, actor: str, run: str) -> str:
    return f"{time[:10]} {time[11:19]}Z by {actor}" + f" in {run}" * bool(run)


def _software(store: Store, document: Release) -> Iterator[Step]:
    code = facts_in(store, document.code, "code.json")
    runtime = facts_in(store, document.runtime, "python.json")
    commit = f" at {code['commit'][:10]}{', changed since' * bool(code.get('changed'))}" if code.get("commit") else ""
    yield Step("code", f"{code.get('train', 'unknown')}{commit}", document.code, "", ())
    yield Step("runtime", f"Python {runtime.get('python', 'unknown')}", document.runtime, "", ())


def _figures(store: Store, document: Release) -> Iterator[str]:
    for name, value in json.loads(store.get(document.tests))["metrics"].items():
        yield f"{name} {value:.4f}"


def _verdicts(store: Store, entries: list[Entry], document: Release, release: str) -> str:
    verdicts = json.loads(store.get(document.tests)).get("verdicts", [])
    passed = sum(one["outcome"] == "passed" for one in verdicts)
    waived = [one.body.gate for one in entries if isinstance(one.body, Waiver) and one.body.release == release]
    said = f"{passed} of {len(verdicts)} passed" if verdicts else "none"
    return said + (f", waived: {', '.join(waived)}" if waived else "")


def _answers(known: Service, release: str) -> tuple[str, Entry | None]:
    """Its share of the requests as it last answered any, and the entry that asked for that."""
    for change in reversed(known.changes):
        arm = change.split.arm(release)
        if arm is not None and arm.role == "live":
            return f"{arm.percent} % of the requests", change.asked
    return "no requests yet", None
