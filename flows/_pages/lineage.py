"""The page of a lineage: from where the data came from to what answers, as a drawing and in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prefect_mlops.blocks import Actor, Entry, Environment, Release, Run, Store
from prefect_mlops.blocks._canonical import short
from prefect_mlops.blocks.commit import Commit
from prefect_mlops.blocks.entry import Waiver
from prefect_mlops.blocks.split import Arm
from prefect_mlops.blocks.state import Change, Service, fold
from prefect_mlops.flows._pages.markdown import plain, table
from prefect_mlops.tasks._runtime import CODE, ORIGIN, PYTHON, facts_of
from prefect_mlops.tasks.lineage import Lineage, lineage_of

CELL = 44
"""Characters of a cell; one of the two user interfaces breaks no lines in a table, and cuts off what is too wide."""

_HARMLESS = " .,-_:%/…"


class Step(NamedTuple):
    """A box of the drawing, and a row of the table.

    Attributes:
        name: What it is on the way from data to answers.
        what: What it is here.
        digest: Digest of its bytes; empty where it has none.
        run: Name of the flow run that made it; empty where there was none.
        after: Names of the steps that it was made of.
    """

    name: str
    what: str
    digest: str = ""
    run: str = ""
    after: tuple[str, ...] = ()


def lineage_page(environment: Environment, service: str, release: str) -> str:
    """All that led to a release, and to its answering: in words, as a table, and drawn where the user interface can.

    Args:
        environment: Whose log and store know it.
        service: What it is a release of.
        release: Its digest.
    """
    store, entries = environment.store_block, list(environment.log().entries())
    known, lineage = fold(entries).service(service), lineage_of(store, entries, release)
    document = store.release(release)
    steps = [
        *_data(document, lineage),
        *_made(store, document, entries, known, lineage),
        *_answers(known, release),
    ]
    rows = ((step.name, plain(step.what, CELL), _code(short(step.digest)), plain(step.run)) for step in steps)
    parts = [
        f"# How {known.named(release)} came to be",
        " ".join(_dates(known, lineage, release)),
        table(("what", "which", "digest", "in run"), rows),
        "\n".join(["```mermaid", *drawing(steps), "```"]),
        "\n".join(["```text", *(f"{step.name:16} {step.digest}" for step in steps if step.digest), "```"]),
    ]
    return "\n\n".join(parts)


def drawing(steps: Iterable[Step]) -> Iterator[str]:
    """The steps as a graph in Mermaid's language, in which no text of somebody else's can mean anything."""
    known: set[str] = set()
    yield "graph TD"
    for step in steps:
        words = "<br>".join(_inert(word) for word in (step.name, step.what, short(step.digest)) if word)
        yield f'  {_box(step.name)}["{words}"]'
        yield from (f"  {_box(one)} --> {_box(step.name)}" for one in step.after if one in known)
        known.add(step.name)


def _box(name: str) -> str:
    return name.replace(" ", "-")


def _inert(text: str) -> str:
    line = text if len(text) <= CELL else text[: CELL - 1] + "…"
    return "".join(letter if letter.isalnum() or letter in _HARMLESS else f"#{ord(letter)};" for letter in line)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _dates(known: Service, lineage: Lineage, release: str) -> Iterator[str]:
    """When, and on whose behalf, the turns of the way were taken."""
    if (came := lineage.raw or lineage.data) is not None:
        yield f"Its data came {_who(came.time, came.actor)}."
    if (entry := lineage.released) is not None:
        yield f"It became {known.named(release)} {_who(entry.time, entry.actor)} (log entry {entry.seq})."
    if (change := began(known, release)) is not None:
        asked = change.asked
        yield f"It was last given requests {_who(asked.time, asked.actor)} (log entry {asked.seq})."


def _who(time: str, actor: Actor) -> str:
    return f"{time[:10]} {time[11:19]}Z by {plain(actor.name)}"


def _in(run: Run | None) -> str:
    return run.name if run else ""


def _data(document: Release, lineage: Lineage) -> Iterator[Step]:
    if lineage.data is None:
        yield Step("data", "files", document.data)
        return
    came, commit = lineage.raw or lineage.data, lineage.raw_commit or lineage.commit or ""
    extractor = came.extractor
    yield Step("source", came.source, (extractor and extractor.code) or "")
    yield Step("data as it came", _rows(came), commit, _in(came.run), ("source",))
    if lineage.raw is not None:
        aside = (lineage.raw.rows or 0) - (lineage.data.rows or 0)
        what = f"{_rows(lineage.data)}, {aside:,} set aside"
        yield Step("data", what, lineage.commit or "", _in(lineage.data.run), ("data as it came",))


def _rows(commit: Commit) -> str:
    return "files" if commit.rows is None else f"{commit.rows:,} rows"


def _made(store: Store, document: Release, entries: list[Entry], known: Service, lineage: Lineage) -> Iterator[Step]:
    """Code, software, model, tests, and the release that names them all."""
    code = facts_of(store, document.code, CODE, ORIGIN)
    runtime = facts_of(store, document.runtime, PYTHON)
    measured = json.loads(store.get(document.tests))
    commit = f" at {code['commit'][:8]}{', changed' * bool(code.get('changed'))}" if code.get("commit") else ""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in measured["metrics"].items())
    run = _in(lineage.released.run) if lineage.released else ""
    trained_on = "data" if lineage.data is None or lineage.raw else "data as it came"
    yield Step("code", f"{str(code.get('train', 'unknown')).rpartition('.')[2]}{commit}", document.code)
    yield Step("runtime", f"Python {runtime.get('python', 'unknown')}", document.runtime)
    yield Step("model", figures, document.model, run, (trained_on, "code", "runtime"))
    waived = [one.body.gate for one in entries if isinstance(one.body, Waiver) and one.body.release == document.id]
    yield Step("tests", _verdicts(measured.get("verdicts", []), waived), document.tests, run, ("model",))
    yield Step("release", known.named(document.id), document.id, run, ("tests",))


def _verdicts(verdicts: list[dict[str, str]], waived: list[str]) -> str:
    passed = sum(one["outcome"] == "passed" for one in verdicts)
    said = f"{passed} of {len(verdicts)} passed" if verdicts else "none"
    return said + (f", waived: {', '.join(waived)}" if waived else "")


def began(known: Service, release: str) -> Change | None:
    """The change with which a release last began to answer, or to answer another share; None if it never did."""
    found, before = None, 0
    for change in known.changes:
        share = _share(change.split.arm(release))
        if share not in {0, before}:
            found = change
        before = share
    return found


def _answers(known: Service, release: str) -> Iterator[Step]:
    change = began(known, release)
    what = f"{_share(change.split.arm(release))} % of the requests" if change else "no requests yet"
    if change and not _share(known.split.arm(release)):
        what = f"none now, {what} before"
    yield Step("answers", what, "", _in(change.asked.run) if change else "", ("release",))


def _share(arm: Arm | None) -> int:
    return arm.percent if arm is not None and arm.role == "live" else 0
