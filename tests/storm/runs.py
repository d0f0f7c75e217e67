"""The runs that are killed: in a process of their own, or under the home's worker."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import psutil

from prefect_mlops.deployments.local.place import Place
from tests.forks import Fork, Forks, Proc
from tests.storm.home import SERVICE, wait_for

FLOWS = {"release": "release-model", "rollback": "rollback-release", "reconcile": "reconcile-serving"}
BEGIN_SECONDS = 60.0


class Act(Protocol):
    """One run of a flow."""

    number: int
    kind: str
    proc: Proc
    began: float

    def report(self) -> dict[str, Any] | None:
        """How it ended; None if it did not, or was killed."""
        ...


def wait(act: Act, seconds: float) -> dict[str, Any] | None:
    """How `act` ended, once its process is gone; None if it was killed, or is still there after `seconds`."""
    wait_for(lambda: not act.proc.alive, seconds)
    return act.report()


@dataclass
class Script(Fork):
    """A run in a process of its own."""

    kind: str = ""


class Scripts(Forks):
    """Starts runs in processes of their own: see `tests.storm.acts`."""

    def __init__(self, home: Path, folder: Path, env: dict[str, str]) -> None:
        super().__init__(folder, "tests.storm.acts", env=env)
        self._places = {"home": str(home), "folder": str(folder)}

    def act(self, kind: str, *, prefect: bool, **more: Any) -> Script:
        """Start a run."""
        begun = self.start("tests.storm.acts:act", kind=kind, prefect=prefect, **self._places, **more)
        return Script(**vars(begun), kind=kind)


@dataclass
class Deployed:
    """A run under the home's worker."""

    number: int
    kind: str
    proc: Proc
    began: float
    place: Place
    run: UUID

    def report(self) -> dict[str, Any] | None:
        """How it ended, going by Prefect's server; None if it says nothing yet."""
        from prefect.client.orchestration import get_client

        with self.place.settings(), get_client(sync_client=True) as client:
            run = client.read_flow_run(self.run)
        if run.state is None or not run.state.is_final():
            return None
        error = None if run.state.is_completed() else run.state.name
        return {"error": error, "said": run.state.message or "", "seconds": time.monotonic() - self.began}


class Worker:
    """Starts runs of deployments, which the home's worker carries out."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._numbers = itertools.count(1_000_000)

    def start(self, kind: str, to: str) -> Deployed | None:
        """Start a run, once its process is there; None if that takes a minute."""
        from prefect.client.orchestration import get_client

        more = {"service": SERVICE, "to": to} if kind == "rollback" else {}
        parameters = {**more, "environment": "local"}
        with self.place.settings(), get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(f"{FLOWS[kind]}/local").id
            run = client.create_flow_run_from_deployment(deployment, parameters=parameters).id
        found: list[Proc] = []

        def there() -> bool:
            found[:] = [proc] if (proc := _process_of(run)) else []
            return bool(found)

        if wait_for(there, BEGIN_SECONDS) is None:
            return None
        return Deployed(next(self._numbers), kind, found[0], time.monotonic(), self.place, run)


def _process_of(run: UUID) -> Proc | None:
    """The process that executes a flow run."""
    for pid in psutil.pids():
        try:
            if str(run).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                return Proc.of(pid)
        except OSError:
            continue
    return None
