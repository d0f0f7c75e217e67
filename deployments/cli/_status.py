"""`status`: what the log asks for, what the target is seen to serve, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from prefect_mlops.blocks import Entry, Environment, LocalServing, Observed, Split
from prefect_mlops.blocks.entry import Asked
from prefect_mlops.blocks.errors import MlopsError, ServingError
from prefect_mlops.blocks.state import Change, Service, State
from prefect_mlops.blocks.writer import is_gone
from prefect_mlops.deployments.cli import _exits
from prefect_mlops.deployments.cli._output import Answer, ago, brief, columns, day_and_time, fields, percent, until
from prefect_mlops.deployments.cli._where import Where


def status_of(where: Where, name: str) -> Answer:
    """What is asked for and served of every service. Asks the log and the target, never Prefect.

    Raises:
        NoLog: If the environment has no log here.
        NotAnEntry, IllegalEntry: If the log is damaged.
    """
    environment = where.environment(name)
    state = environment.log().state()
    services = {one: _service(environment, state, one) for one in sorted({*state.services, *_served(environment)})}
    document = {
        "environment": name,
        "home": str(where.home) if where.home else None,
        "store": where.store,
        "stopped": where.is_stopped and isinstance(environment.target, LocalServing),
        "gateway": _gateway(environment),
        "prefect": {"url": where.prefect_url, "up": where.prefect_is_up()},
        "log": {"entries": state.next, "head": state.head.hash if state.head else None},
        "agrees": all(service["agrees"] for service in services.values()),
        "services": services,
    }
    return Answer(document, _page(document), 0 if document["agrees"] else _exits.NO)


def _served(environment: Environment) -> Iterable[str]:
    try:
        return environment.services()
    except ServingError:
        return ()


def _gateway(environment: Environment) -> str | None:
    try:
        parts = urlsplit(environment.target.address("any").url)
    except ServingError:
        return None
    return f"{parts.scheme}://{parts.netloc}"


def _service(environment: Environment, state: State, name: str) -> dict[str, Any]:
    known = state.service(name)
    asked = _asked(known)
    seen, silence = _seen(environment, name)
    releases = dict.fromkeys([*asked.releases, *(seen.routes.releases if seen else ())])
    return {
        "asked": _arms(known, asked),
        "observed": _arms(known, seen.routes) if seen else None,
        "agrees": seen is not None and seen.shows(asked),
        "silence": silence,
        "open": _open(known),
        "fence": {"log": known.fence, "target": seen.fence if seen else None},
        "url": _url(environment, name),
        "releases": [_release(environment, known, release, asked, seen) for release in releases],
    }


def _asked(known: Service) -> Split:
    """What shall be served: where a change is under way, what it asks for."""
    return known.asked.body.after if known.asked and isinstance(known.asked.body, Asked) else known.split


def _seen(environment: Environment, name: str) -> tuple[Observed | None, str | None]:
    try:
        return environment.target.observe(name), None
    except ServingError as error:
        return None, str(error)


def _url(environment: Environment, name: str) -> str | None:
    try:
        return f"{environment.target.address(name).url}/api/v1.0/predictions"
    except ServingError:
        return None


def _arms(known: Service, split: Split) -> list[dict[str, Any]]:
    return [
        {"release": known.named(arm.release), "digest": arm.release, "role": arm.role, "percent": arm.percent}
        for arm in split.arms
    ]


def _open(known: Service) -> dict[str, Any] | None:
    """The change that is under way, and who has it in hand."""
    asked, driver = known.asked, known.driver
    if asked is None or driver is None or not isinstance(asked.body, Asked):
        return None
    return {
        "entry": asked.seq,
        "driver": driver.seq,
        "move": asked.body.move,
        **_who(driver),
        "since": asked.time,
        "until": getattr(driver.body, "deadline", asked.body.deadline),
        "dead": is_gone(driver.writer),
    }


def _who(entry: Entry) -> dict[str, Any]:
    return {"run": entry.run.model_dump() if entry.run else None, "actor": entry.actor.model_dump()}


def _release(
    environment: Environment, known: Service, release: str, asked: Split, seen: Observed | None
) -> dict[str, Any]:
    arm = asked.arm(release) or (seen.routes.arm(release) if seen else None)
    change = _came(known, release)
    return {
        "name": known.named(release),
        "digest": release,
        **_made_of(environment, release),
        "role": arm.role if arm else None,
        "percent": arm.percent if arm else None,
        "ready": seen.ready.get(release, 0) if seen else None,
        "since": change.closed.time if change else None,
        "warm_until": _warm_until(known) if arm and arm.role == "warm" else None,
        **(_who(change.asked) if change else {"run": None, "actor": None}),
        "reason": change.asked.reason if change else "",
        "entry": change.asked.seq if change else None,
    }


def _made_of(environment: Environment, release: str) -> dict[str, str | None]:
    try:
        document = environment.store_block.release(release)
    except (MlopsError, ValidationError):
        return {"model": None, "data": None}
    return {"model": document.model, "data": document.data}


def _came(known: Service, release: str) -> Change | None:
    """The change that gave `release` the arm that it has now."""
    wanted, found = known.split.arm(release), None
    for change in reversed(known.changes):
        if wanted is None or change.split.arm(release) != wanted:
            break
        found = change
    return found


def _warm_until(known: Service) -> str | None:
    last = known.changes[-1].asked.body if known.changes else None
    return last.warm_until if isinstance(last, Asked) else None


# --- for people ------------------------------------------------------------------------------


def _page(document: dict[str, Any]) -> str:
    lines: list[str] = []
    entries = document["log"]["entries"]
    for name, service in document["services"].items():
        verdict = _verdict(service, stopped=document["stopped"])
        lines += [f"{name} in {document['environment']} · {verdict} · log of {entries} entries, unbroken"]
        lines += [*_table(service), *_whys(service), *_troubles(service, stopped=document["stopped"]), ""]
    if not document["services"]:
        lines += [f"nothing was released to {document['environment']} yet · log of {entries} entries, unbroken", ""]
    prefect = document["prefect"]
    urls = [(f"ask {name}", service["url"] or "") for name, service in document["services"].items()]
    up = f"{prefect['url'] or ''} {'' if prefect['up'] else '(down)'}".strip()
    return "\n".join([*lines, *fields([*urls, ("Prefect", up), ("store", document["store"])])])


def _verdict(service: dict[str, Any], *, stopped: bool) -> str:
    if service["agrees"]:
        return "served as asked"
    if stopped:
        return "STOPPED"
    return "NO ANSWER" if service["observed"] is None else "NOT SERVED AS ASKED"


def _table(service: dict[str, Any]) -> list[str]:
    header = ("role", "release", "model", "data", "asked", "served", "since")
    asked = {arm["digest"]: arm for arm in service["asked"]}
    served = {arm["digest"]: arm for arm in service["observed"] or []}
    rows = [
        (
            release["role"] or "",
            release["name"],
            brief(release["model"]),
            brief(release["data"]),
            percent(asked[release["digest"]]["percent"]) if release["digest"] in asked else "nothing",
            _served_cell(release, served.get(release["digest"]), silent=service["observed"] is None),
            ago(release["since"]) + (f", {until(release['warm_until'])}" if release["warm_until"] else ""),
        )
        for release in service["releases"]
    ]
    return columns(header, rows) if rows else ["  it serves nothing"]


def _served_cell(release: dict[str, Any], arm: dict[str, Any] | None, *, silent: bool) -> str:
    if silent:
        return "no answer"
    if arm is None:
        return "nothing"
    role = "" if arm["role"] == release["role"] else f" {arm['role']}"
    return f"{percent(arm['percent'])}{role} ({release['ready']} up)"


def _whys(service: dict[str, Any]) -> Iterator[str]:
    """Who made what is live so, and why."""
    for release in service["releases"]:
        if release["role"] == "live" and release["actor"]:
            reason = f": {release['reason']}" if release["reason"] else ""
            yield f"  {release['name']} is live by {_by(release)}{reason}"


def _by(about: dict[str, Any]) -> str:
    actor = about["actor"]["name"] if about["actor"] else ""
    return f"{actor} in run {about['run']['name']}" if about["run"] else f"{actor}, without Prefect"


def _troubles(service: dict[str, Any], *, stopped: bool) -> Iterator[str]:
    if service["silence"]:
        yield f"  {service['silence']}"
    if change := service["open"]:
        state = "its process has ended; `prefect-mlops reconcile` finishes it" if change["dead"] else "under way"
        until_ = day_and_time(change["until"])
        yield f"  entry {change['entry']} ({change['move']}) by {_by(change)} is open until {until_}: {state}"
    elif stopped and not service["agrees"]:
        yield "  this place was stopped; `prefect-mlops up` serves it again"
    elif not service["agrees"]:
        yield "  run `prefect-mlops reconcile` to serve what was asked"
