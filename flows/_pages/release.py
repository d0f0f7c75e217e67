"""The page of a release: what is served, what it is made of, who answered when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby, takewhile
from typing import NamedTuple

from prefect_mlops.blocks import Actor, Entry, Environment, Release, Split
from prefect_mlops.blocks._canonical import short
from prefect_mlops.blocks.entry import Approval, Asked, Judged, Settled, Taken, Takeover, Waiver
from prefect_mlops.blocks.errors import NothingBefore
from prefect_mlops.blocks.state import Service, State
from prefect_mlops.flows._pages.markdown import plain, section, table
from prefect_mlops.tasks._undoing import destination

PARTS = ("data", "code", "runtime", "model", "tests", "probes")
SHOWN_CHANGES = 8
"""How many changes of traffic a page shows; the log has all of them."""
CELL = 72
"""Characters of a finding; one of the two user interfaces breaks no lines in a table, and cuts off what is too wide."""
BAR_WIDTH = 5
"""Characters that a bar for all requests is wide; one more, and it breaks the line beside two others."""
SHOWN_RELEASES = 3
"""How many releases stand side by side; more would not fit beside the run's facts."""


def in_words(known: Service, split: Split) -> str:
    """A split with its releases as people call them, such as `credit-v2 live 100 %, credit-v1 warm`."""
    arms = (f"{known.named(arm.release)} {arm.role}" + f" {arm.percent} %" * (arm.role != "warm") for arm in split.arms)
    return ", ".join(arms) or "nothing"


def served(known: Service) -> str:
    """What the newest change of a service led to, and how long that took."""
    change = known.changes[-1]
    seconds = (datetime.fromisoformat(change.closed.time) - datetime.fromisoformat(change.asked.time)).total_seconds()
    return f"{known.name} now serves {in_words(known, change.split)} (log entry {change.closed.seq}, {seconds:.2f} s)"


def release_page(
    environment: Environment,
    state: State,
    service: str,
    release: str,
    entries: Iterable[Entry],
    title: str = "",
    *,
    brief: bool = False,
) -> str:
    """The page of a release: is it live, how good is it, what was decided, what is it made of, who answered when.

    Args:
        environment: Where it is.
        state: What the log says.
        service: What it is a release of.
        release: Its digest.
        entries: What was written down of the rollout that the page is about.
        title: Headline; says by itself whether the release is live if empty.
        brief: Whether to leave out what nobody needs who has to decide about it.
    """
    known, told = state.service(service), list(entries)
    before = replaced(told, known, release)
    parts = [
        f"# {title or headline(known, release, environment.name)}",
        "\n\n".join(filter(None, (now(known), who_and_why(told), way_back(environment, known, release)))),
        *section("Figures on the hold-out", figures(environment, known, release, before)),
        *section("Gates", gates(told)),
        *section("What it is made of", made_of(environment, known, release, before)),
    ]
    if not brief:
        parts += [
            in_full(environment, release),
            *section("Who answered when", history(known)),
            *section("What was written down", written(known, told)),
        ]
    return "\n\n".join(parts)


def replaced(entries: Iterable[Entry], known: Service, release: str) -> str | None:
    """The one release that answered before the rollout of `entries`, or answers now if that moved nothing."""
    split = next((entry.body.before for entry in entries if isinstance(entry.body, Asked)), known.split)
    others = [arm.release for arm in split.live if arm.release != release]
    return others[0] if len(others) == 1 else None


def headline(known: Service, release: str, environment: str) -> str:
    """Whether a release is live, in a few words."""
    arm = known.split.arm(release)
    role = {"live": "is live", "warm": "stands by", "shadow": "shadows"}[arm.role] if arm else "is not served"
    return f"{known.named(release)} {role} in {environment}"


def now(known: Service) -> str:
    """What is served now, in a sentence."""
    live = " and ".join(f"**{known.named(arm.release)}** answers {arm.percent} %" for arm in known.split.live)
    rest = [f"{known.named(arm.release)} is kept {arm.role}" for arm in known.split.arms if arm.role != "live"]
    since = f" since {_time(list(_spans(known))[-1].since)}" if live else ""
    asked = known.changes[-1].asked.body if known.changes else None
    until = f" until {_time(asked.warm_until)}" if rest and isinstance(asked, Asked) and asked.warm_until else ""
    return "; ".join([(live or "Nothing answers") + since, *rest]) + until + "."


def who_and_why(entries: Iterable[Entry]) -> str:
    """Who made the rollout of `entries`, in which run, and why."""
    first = next(iter(entries), None)
    if first is None:
        return ""
    run = f" in run `{first.run.name}`" if first.run else ", without Prefect"
    return f"By {by(first.actor)}{run}" + (f": *{plain(first.reason)}*" if first.reason else ", no reason given.")


_VOUCHED = {
    "os-user": "user of the machine",
    "claimed": "as typed in",
    "cloud": "vouched for by Prefect Cloud",
    "signed": "signed",
}


def by(actor: Actor) -> str:
    """Somebody's name, and who vouches for it."""
    return f"{plain(actor.name)} ({_VOUCHED[actor.assurance]})"


def command(environment: Environment, words: str) -> str:
    """A command about an environment; of any but the local one it says where its log is."""
    where = f" --store {environment.store_block.url} --environment {environment.name}"
    return f"prefect-mlops{'' if environment.name == 'local' else where} {words}"


def way_back(environment: Environment, known: Service, release: str) -> str:
    """How to have answer again what answered before a live release, or else what is kept warm beside it."""
    if all(arm.release != release for arm in known.split.live):
        return ""
    to = ""
    try:
        releases = destination(known, "previous").releases
    except NothingBefore:
        releases = [arm.release for arm in known.split.arms if arm.role == "warm"][:1]
        to = "".join(f" --to {known.named(one)}" for one in releases)
    if not releases:
        return ""
    names = ", ".join(map(known.named, releases))
    by_hand = command(environment, f"rollback {known.name}{to}")
    return f"To put {names} back: `{by_hand}`, or run the deployment *rollback-release*."


def figures(environment: Environment, known: Service, release: str, before: str | None) -> str:
    """The figures of a release beside those of the one that it replaces."""
    mine, theirs = _metrics(environment, release), _metrics(environment, before) if before else {}
    if not before:
        return table(("figure", known.named(release)), [(name, f"{value:.4f}") for name, value in mine.items()])
    rows = [(name, f"{value:.4f}", *_beside(value, theirs.get(name))) for name, value in mine.items()]
    return table(("figure", known.named(release), known.named(before), "difference"), rows)


def _beside(mine: float, theirs: float | None) -> tuple[str, str]:
    return ("", "") if theirs is None else (f"{theirs:.4f}", f"{mine - theirs:+.4f}")


def _metrics(environment: Environment, release: str) -> dict[str, float]:
    store = environment.store_block
    return json.loads(store.get(store.release(release).tests))["metrics"]


def gates(entries: Iterable[Entry]) -> str:
    """What each gate and each person said."""
    rows: list[tuple[str, str, str]] = []
    for entry in entries:
        match entry.body:
            case Judged() as body:
                rows.append((body.gate, body.outcome, plain(body.detail, CELL)))
            case Approval() as body:
                rows.append(("approval", body.decision, f"by {plain(entry.actor.name)}" + _because(entry)))
            case Waiver() as body:
                rows.append((body.gate, "waived", f"by {plain(entry.actor.name)}" + _because(entry)))
            case _:
                pass
    return table(("gate", "outcome", "detail"), rows) if rows else ""


def _because(entry: Entry) -> str:
    return f": {plain(entry.reason)}" if entry.reason else ""


def history(known: Service) -> str:
    """Who answered how much of the requests and why, newest first, as bars."""
    newest = list(_spans(known))[: -SHOWN_CHANGES - 1 : -1]
    shown = sorted(_side_by_side(newest), key=lambda release: known.numbers.get(release, 0))
    whole = takewhile(lambda span: all(arm.release in shown for arm in span.split.live), newest)
    rows = [
        (_time(span.since), *(_bar(span.split, release) for release in shown), plain(span.reason)) for span in whole
    ]
    return table(("since", *map(known.named, shown), "why"), rows) if rows else ""


class Span(NamedTuple):
    """A time in which the same releases answered the same shares."""

    since: str
    split: Split
    reason: str


def _spans(known: Service) -> Iterator[Span]:
    for live, changes in groupby(known.changes, key=lambda change: change.split.live):
        same = list(changes)
        if live:
            yield Span(same[0].closed.time, same[-1].split, same[0].asked.reason)


def _side_by_side(newest: list[Span]) -> list[str]:
    """The releases that have a column, those that answered last: a row that lacks who answered would mislead."""
    served = [arm.release for span in newest[:1] for arm in span.split.arms if arm.role != "warm"]
    live = [arm.release for span in newest for arm in span.split.live]
    others = [arm.release for span in newest for arm in span.split.arms]
    return list(dict.fromkeys([*served, *live, *others]))[:SHOWN_RELEASES]


def _bar(split: Split, release: str) -> str:
    arm = split.arm(release)
    if arm is None or arm.role == "warm":
        return arm.role if arm else ""
    eighths = max(1, round(arm.percent * BAR_WIDTH * 8 / 100))
    bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return f"{bar} {arm.percent}\N{NO-BREAK SPACE}%" + (" copied" if arm.role == "shadow" else "")


def made_of(environment: Environment, known: Service, release: str, before: str | None) -> str:
    """The digests of a release, and which of them are those of the one that it replaces."""
    store = environment.store_block
    document = store.release(release)
    other = store.release(before) if before else None
    header = ["part", "digest", *([f"beside {known.named(before)}"] if before else [])]
    rows = [
        (part, f"`{_brief(getattr(document, part))}`", *([_same(part, document, other)] if other else []))
        for part in PARTS
    ]
    return table(header, rows)


def in_full(environment: Environment, release: str) -> str:
    """The digests of a release to the last digit, to be copied."""
    document = environment.store_block.release(release)
    lines = [f"{'release':8} {release}", *(f"{part:8} {getattr(document, part)}" for part in PARTS)]
    return "\n".join(["```text", *lines, "```"])


def _same(part: str, document: Release, other: Release) -> str:
    return "same" if getattr(document, part) == getattr(other, part) else "**different**"


def _brief(digest: str) -> str:
    return f"sha256:{digest.removeprefix('sha256:')[:12]}…"


def _time(time: str) -> str:
    return f"{time[:10]} {time[11:19]}Z"


def written(known: Service, entries: Iterable[Entry]) -> str:
    """What the log says, entry by entry."""
    rows = (
        (entry.seq, entry.time[:19] + "Z", plain(sentence(known, entry), CELL), plain(entry.actor.name))
        for entry in entries
    )
    return table(("entry", "time", "what", "by"), rows)


def sentence(known: Service, entry: Entry) -> str:
    """An entry about a service in words."""
    body = entry.body
    match body.kind:
        case "genesis":
            return "the log begins"
        case "taken" | "settled" | "takeover":
            return _in_hands(body)
        case "released":
            return f"release {short(body.release)} is number {body.number} of {entry.service}"
        case "asked":
            return f"asked ({body.move}) for {in_words(known, body.after)}"
        case "observed":
            split = "something unknown" if body.split is None else in_words(known, body.split)
            return f"{body.verdict}: {split} is served" + (f" ({body.detail})" if body.detail else "")
        case "verdict":
            return f"{body.gate}: {body.outcome}; {body.detail}"
        case "approval":
            return f"{body.decision} by {entry.actor.name}"
        case "waiver":
            return f"gate {body.gate!r} waived by {entry.actor.name}"
        case "sweep" | "erased":
            return f"{len(body.removed)} objects removed"


def _in_hands(body: Taken | Settled | Takeover) -> str:
    match body.kind:
        case "taken":
            return f"took move {body.move} of branch {body.branch} to train on it"
        case "settled":
            return f"training: {body.outcome}; {body.detail}"
        case "takeover":
            return f"took over what entry {body.of} asked for"
