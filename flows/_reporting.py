"""How runs and releases look in the Prefect UI: names, tags, artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.runtime import flow_run

from prefect_mlops.blocks import Entry, Environment
from prefect_mlops.blocks._canonical import short
from prefect_mlops.blocks.state import State

logger = get_logger("prefect_mlops")


def say(message: str) -> None:
    """Tell whoever watches the run, or the terminal where there is no run."""
    try:
        get_run_logger().info(message)
    except MissingContextError:
        logger.info(message)


def run_name(verb: str, parameter: str) -> Callable[[], str]:
    """Names runs like `release-credit-amber-lynx`: what is done, to what, and the two words that Prefect drew.

    Args:
        verb: What the flow does.
        parameter: Name of the flow's parameter that says to what; of a recipe, its name is taken.
    """

    def name() -> str:
        subject = flow_run.parameters.get(parameter)
        prefix = f"{verb}-{getattr(subject, 'name', subject)}-"
        given = str(flow_run.name)
        return given if given.startswith(prefix) else prefix + given

    return name


def tag_run(tags: Iterable[str]) -> None:
    """Give the current run tags, so that it is found by what it did."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    wanted = sorted({*(context.flow_run.tags or ()), *tags})
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=wanted)


def tags(environment: str, service: str, kind: str) -> list[str]:
    """The tags by which runs are found: of one kind, one environment, one service."""
    return [
        "prefect-mlops",
        f"prefect-mlops:{kind}",
        f"environment:{environment}",
        *([f"service:{service}"] * bool(service)),
    ]


def publish(key: str, markdown: str, description: str) -> None:
    """Leave a page in the UI, where there is a run to leave it in."""
    if FlowRunContext.get() is not None:
        create_markdown_artifact(markdown, key=key, description=description)


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in markdown."""
    names = list(header)
    lines = ["| " + " | ".join(names) + " |", "|" + "|".join(" --- " for _ in names) + "|"]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines)


def release_page(environment: Environment, state: State, service: str, release: str, entries: Iterable[Entry]) -> str:
    """The page of a release: what it is made of, what was decided, what is served."""
    known = state.service(service)
    document = environment.store_block.release(release)
    parts = [(part, f"`{getattr(document, part)}`") for part in ("data", "code", "runtime", "model", "tests", "probes")]
    served = [(arm.role, known.named(arm.release), f"{arm.percent} %") for arm in known.split.arms]
    return "\n\n".join(
        [
            f"# {known.named(release)} in {environment.name}",
            table(("role", "release", "share"), served),
            "## What it is made of",
            table(("part", "digest"), [("release", f"`{release}`"), *parts]),
            "## What was written down",
            table(("entry", "time", "what", "by"), [_line(entry) for entry in entries]),
        ]
    )


def _line(entry: Entry) -> tuple[str, str, str, str]:
    return f"{entry.seq}", entry.time[:19] + "Z", sentence(entry), entry.actor.name


def sentence(entry: Entry) -> str:
    """An entry in words."""
    body = entry.body
    match body.kind:
        case "genesis":
            return "the log begins"
        case "released":
            return f"release {short(body.release)} is number {body.number} of {entry.service}"
        case "asked":
            return f"asked ({body.move}) for {body.after}"
        case "observed":
            return f"{body.verdict}: {body.split} is served" + (f" ({body.detail})" if body.detail else "")
        case "verdict":
            return f"{body.gate}: {body.outcome}; {body.detail}"
        case "approval":
            return f"{body.decision} by {entry.actor.name}"
        case "waiver":
            return f"gate {body.gate!r} waived by {entry.actor.name}"
        case "takeover":
            return f"took over what entry {body.of} asked for"
        case "sweep" | "erased":
            return f"{len(body.removed)} objects removed"
