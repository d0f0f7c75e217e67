"""`rollback`, `reconcile`, as flows while Prefect answers, else without it; and `registry`, without it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from prefect.exceptions import PrefectException
from prefect.logging.handlers import PrefectConsoleHandler

from prefect_mlops.blocks import Entry, Environment
from prefect_mlops.blocks.entry import Asked, Seen
from prefect_mlops.blocks.errors import Invalid, MlopsError
from prefect_mlops.blocks.writer import process_mark
from prefect_mlops.deployments.cli._output import Answer, fields, say
from prefect_mlops.deployments.cli._where import Here, NoRuns, Where
from prefect_mlops.deployments.local.place import NAME, Place
from prefect_mlops.flows.reconcile import reconcile, reconcile_serving
from prefect_mlops.flows.rollback import roll_back, rollback_release
from prefect_mlops.tasks import shift_traffic
from prefect_mlops.tasks._moving import take_over
from prefect_mlops.tasks._showing import show_all
from prefect_mlops.tasks.traffic import open_log

_T = TypeVar("_T")


class PrefectWentAway(Exception):
    """Prefect stopped answering in the middle of a run."""


@dataclass(frozen=True)
class Rollback:
    """One wish of one person to have an earlier release back."""

    where: Where
    environment: str
    service: str
    to: str
    reason: str
    actor: str

    def carried_out(self) -> Answer:
        """Roll back, and say what answers then; raises what `rollback_release` raises."""
        environment = self.where.environment(self.environment)
        state = environment.log().state()
        if self.service not in state.services:
            known = ", ".join(sorted(state.services)) or "none yet"
            raise Invalid(
                "service", f"is one of {self.environment}: {known}", self.service, "see `prefect-mlops status`"
            )
        begun = state.next

        def run() -> str:
            return rollback_release(self.service, self.to, self.environment, self.reason, self.actor)

        _as_run(self.where, self.environment, run)
        entry = self._mine(environment, begun) or self._finished(environment) or self._direct(environment)
        return self._answer(environment, entry)

    def _direct(self, environment: Environment) -> Entry:
        return roll_back(
            environment, self.service, self.to, reason=self.reason, actor=self.actor, shift=shift_traffic.fn
        )

    def _mine(self, environment: Environment, begun: int) -> Entry | None:
        """The entry that says that this process has rolled back."""
        changes = environment.log().state().service(self.service).changes
        done = [
            one for one in changes if one.asked.seq >= begun and one.verdict == "applied" and _rolls_back(one.asked)
        ]
        return next((one.closed for one in done if _is_ours(one.asked)), None)

    def _finished(self, environment: Environment) -> Entry | None:
        """Finish what this process left open: asking anew for `previous` would go back one further."""
        log = open_log(environment, self.actor)
        asked = log.state().service(self.service).asked
        if asked is None or not _is_ours(asked) or not _rolls_back(asked):
            return None
        entry = take_over(environment, log, self.service, at_once=True, reason="Prefect went away")
        return entry if entry and isinstance(entry.body, Seen) and entry.body.verdict == "applied" else None

    def _answer(self, environment: Environment, entry: Entry) -> Answer:
        known = environment.log().state().service(self.service)
        names = [known.named(arm.release) for arm in known.split.live]
        document: dict[str, Any] = {
            "environment": self.environment,
            "service": self.service,
            "live": [
                {"release": name, "digest": arm.release, "percent": arm.percent}
                for name, arm in zip(names, known.split.live, strict=True)
            ],
            "entry": entry.seq,
            "run": entry.run.model_dump() if entry.run else None,
            "actor": entry.actor.model_dump(),
            "time": entry.time,
        }
        return Answer(document, f"{self.service}: {', '.join(names)} answers (log entry {entry.seq})")


def reconciled(where: Where, name: str, *, at_once: bool) -> Answer:
    """Reconcile, and say what was done for each service; raises what `reconcile_serving` raises."""
    environment = where.environment(name)
    # A dead one is nobody's loss: it runs again in five minutes.
    done = _as_run(where, name, lambda: reconcile_serving(name, at_once), heartbeats=False)
    done = done if done is not None else reconcile(environment, at_once=at_once, shift=shift_traffic.fn)
    page = "\n".join(f"{service}: {what}" for service, what in done.items()) or "there is nothing to reconcile"
    return Answer({"environment": name, "services": done}, page)


def registry_filled(where: Where, name: str) -> Answer:
    """Show what store and log have in the registry, and say under which versions.

    Raises:
        ObjectMissing, ObjectDamaged: If something that a release names is not whole.
    """
    environment = where.environment(name)
    shown = show_all(environment)
    uri = environment.registry_block.tracking_uri
    lines = [f"{service}: {_versions(versions)}" for service, versions in shown.items()]
    page = "\n".join([*(lines or [f"nothing was released to {name} yet"]), *fields([("MLflow", uri)])])
    return Answer({"environment": name, "tracking_uri": uri, "services": shown}, page)


def _versions(shown: dict[str, int]) -> str:
    return ", ".join(f"{release} as version {version}" for release, version in shown.items())


def served_again(place: Place) -> Answer:
    """What `up` says, after serving again what `stop` had ended.

    Raises:
        SplitNotApplied: If something cannot be served.
    """
    environment = place.environment()
    state = environment.log().state()
    done = reconciled(Here(place), NAME, at_once=False).document["services"] if state.services else {}
    document = {
        "home": str(place.home),
        "store": str(place.paths.store),
        "prefect": {"url": place.prefect_url, "up": True},
        "services": done,
    }
    said = [f"  {service}: {what}" for service, what in done.items()]
    return Answer(document, "\n".join([f"{place.home} is up; its Prefect is at {place.prefect_url}", *said]))


def _as_run(where: Where, name: str, run: Callable[[], _T], *, heartbeats: bool = True) -> _T | None:
    """What a flow returns that runs in Prefect; None where it could not, or not to its end, which is said."""
    try:
        with _in_prefect(where, name, heartbeats=heartbeats):
            return run()
    except NoRuns as why:
        say(f"{why}: doing it without a flow run; the log has it all the same")
    except PrefectWentAway:
        say("Prefect went away in the middle; finishing without it")
    return None


@contextmanager
def _in_prefect(where: Where, name: str, *, heartbeats: bool) -> Generator[None]:
    """Run flows in Prefect; what it does to them by going away is `PrefectWentAway`."""
    try:
        with where.runs(name, heartbeats=heartbeats), _no_tracebacks():
            yield
    except MlopsError:
        raise
    except (httpx.HTTPError, PrefectException, ConnectionError) as error:
        raise PrefectWentAway(str(error)) from error
    except RuntimeError as error:
        if "Prefect" not in str(error):  # it wraps a failed connection in one of these
            raise
        raise PrefectWentAway(str(error)) from error


@contextmanager
def _no_tracebacks() -> Generator[None]:
    """Keep Prefect from printing errors here: they reach this terminal once, as one sentence. Its server gets them."""
    named = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    consoles = {one for logger in named for one in logger.handlers if isinstance(one, PrefectConsoleHandler)}
    for console in consoles:
        console.addFilter(_is_no_error)
    try:
        yield
    finally:
        for console in consoles:
            console.removeFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _rolls_back(asked: Entry) -> bool:
    return isinstance(asked.body, Asked) and asked.body.move == "rollback"


def _is_ours(entry: Entry) -> bool:
    return entry.writer.process == process_mark(os.getpid())
