"""A program that moves traffic for real: one line of JSON in, one line of JSON out; for tests with real processes.

Its target is one file that all processes share under a lock, with the fence and the routes of each service.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect_mlops.blocks.entry import Actor, Released, Run
from prefect_mlops.blocks.errors import FenceTooLow, MlopsError
from prefect_mlops.blocks.log import Draft, ReleaseLog
from prefect_mlops.blocks.split import Observed, Split
from prefect_mlops.blocks.store import Store
from prefect_mlops.tasks._moving import Plan, move
from tests.tasks.moving.doubles import Gateway, MemoryTarget, memory_place


class FileTarget(MemoryTarget):
    """A target that other processes see; `stalls` stops this process, as a debugger would, before it applies."""

    def __init__(self, path: Path, *, stalls: bool = False) -> None:
        super().__init__(Gateway())
        self.path, self.stalls = path, stalls

    def apply(self, service: str, split: Split, *, fence: int, store: Store) -> None:
        if self.stalls:
            os.kill(os.getpid(), signal.SIGSTOP)
        with self.held() as services:
            highest = services.get(service, {}).get("fence", -1)
            if fence < highest:
                raise FenceTooLow(service, fence, highest)
            services[service] = {"fence": fence, "split": split.model_dump(mode="json")}

    def observe(self, service: str) -> Observed:
        with self.held() as services:
            found = services.get(service, {"fence": None, "split": {"arms": []}})
        split = Split.model_validate(found["split"])
        return Observed(routes=split, ready=dict.fromkeys(split.releases, 1), fence=found["fence"])

    @contextmanager
    def held(self) -> Generator[dict[str, Any]]:
        with self.path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            services = json.loads(file.read() or "{}")
            yield services
            file.truncate(0)
            file.write(json.dumps(services))


def open_log(store: Store, name: str) -> ReleaseLog:
    run = Run(id=name, name=name, flow="release-model")
    return ReleaseLog(store, "local", run=run, actor=Actor(name="tester", assurance="claimed"))


def do(store: Store, gateway: Path, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Number a release, or put it live where nothing was; say how that ended."""
    log, service, release = open_log(store, name), wanted["service"], wanted["release"]
    try:
        if wanted["do"] == "number":
            entry = log.append(
                lambda state: Draft(
                    Released(release=release, number=len(state.service(service).numbers) + 1), (service,), begins=True
                )
            )
        else:
            place = memory_place(store, FileTarget(gateway, stalls=wanted["do"] == "stall"))
            entry = move(place, log, service, Plan(after=Split.of(release), before=Split()))
    except MlopsError as error:
        return {"error": type(error).__name__, "says": str(error)}
    assert entry is not None
    return {"entry": entry.seq}


def main() -> None:
    name = sys.argv[1]
    print(json.dumps({"ready": name}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        store = Store(url=wanted["url"], endpoint=wanted["endpoint"])
        print(json.dumps(do(store, Path(wanted["gateway"]), name, wanted)), flush=True)


if __name__ == "__main__":
    main()
