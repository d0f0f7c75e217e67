"""The home in which the storm rages: two releases that were trained once, and every process of it by name."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from pyarrow import parquet

from prefect_mlops.blocks import Environment, Floor, LocalServing, ModelRegistry, Recipe, Store
from prefect_mlops.blocks._gateways import NAMES
from prefect_mlops.blocks._supervisor import PHOENIX, Supervisor
from prefect_mlops.blocks.log import NoLog
from prefect_mlops.deployments.local import _process as process
from prefect_mlops.flows import creditco
from prefect_mlops.tasks import snapshot_data, train_model
from tests.forks import Proc

SERVICE = creditco.RECIPE.name
ROWS = 1_500
EASY = creditco.RECIPE.model_copy(update={"tests": (Floor("accuracy", 0.5),)})
"""What is live when one of the releases is released is a matter of chance, so a comparison would be one too."""


def environment_of(home: Path, *, warm_minutes: int = 30) -> Environment:
    """The environment of `home`: as its log remembers it, or put together where it has none yet."""
    store = Store(url=str(home / "store"))
    try:
        environment = Environment.remembered(store, "local", home / "receipts")
    except NoLog:
        registry = ModelRegistry(tracking_uri=f"sqlite:///{home}/mlflow.db", artifacts=str(home / "mlartifacts"))
        environment = Environment(name="local", receipts=home / "receipts", watch_seconds=0)
        environment.use(store, LocalServing(home=home), registry)
    environment.warm_minutes = warm_minutes
    return environment


def recipes() -> dict[str, Recipe]:
    """The two releases of the story, by the name of their data file."""
    return {"applications.csv": EASY, "vendor.csv": creditco.VENDOR_RECIPE.model_copy(update={"tests": EASY.tests})}


def write_data(folder: Path) -> None:
    """Make the data that both are trained on."""
    frame = creditco.census(ROWS, seed=1)
    frame.to_csv(folder / "applications.csv", index=False)
    creditco.vendor_batch(frame, seed=2).to_csv(folder / "vendor.csv", index=False)


def questions() -> list[dict[str, Any]]:
    """What the clients ask."""
    rows = creditco.census(200, seed=3).drop(columns=[creditco.TARGET]).replace("?", None)
    return [
        {"data": {"names": list(rows.columns), "ndarray": [row]}} for row in json.loads(rows.to_json(orient="values"))
    ]


def train(store: Store, data: Path, recipe: Recipe) -> str:
    """Train a release and keep it in the store; nobody serves it yet."""
    candidate = train_model.fn(store, recipe, snapshot_data.fn(store, data).snapshot)
    return store.put_release(candidate.release())


def recorded(folder: Path) -> set[tuple[str, str]]:
    """Request and release of every prediction that is recorded below `folder`."""
    found: set[tuple[str, str]] = set()
    for path in folder.rglob("open-*.jsonl"):
        rows = (json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
        found |= {(row["request_id"], row["release"]) for row in rows}
    for path in folder.rglob("segment-*.parquet"):
        columns = parquet.read_table(path, columns=["request_id", "release"]).to_pydict()
        found |= set(zip(columns["request_id"], columns["release"], strict=True))
    return found


class Processes:
    """Finds the processes of a home, by what the supervisor knows and by what the kernel knows."""

    def __init__(self, home: Path) -> None:
        self.home, self.supervisor = home, Supervisor(home)
        self.seen: set[Proc] = set()

    def supervisord(self) -> Proc | None:
        """The supervisor itself."""
        return Proc.of(process.read_record(self.supervisor.root / "lock").get("pid"))

    def program(self, name: str) -> Proc | None:
        """The running process of a program."""
        return Proc.of(self.supervisor.recorded_pid(name))

    def gateways(self) -> list[str]:
        """The programs that are gateways."""
        return list(NAMES)

    def model_servers(self) -> list[str]:
        """The programs that are model servers."""
        return sorted(name for name in self.supervisor.names() if name.startswith(f"{SERVICE}-"))

    def missing(self) -> list[str]:
        """The programs that do not run, and the supervisor where it does not answer."""
        names = {*self.supervisor.names(), PHOENIX}
        gone = sorted(name for name in names if self.program(name) is None)
        return gone if self.supervisor.is_up() else [*gone, "supervisor"]

    def all(self, *, deep: bool = False) -> dict[Proc, str]:
        """Every process that names the home in its arguments, environment or working folder; `deep`: in open files."""
        found = dict(self._scan(deep=deep))
        self.seen |= set(found)
        return found

    def _scan(self, *, deep: bool) -> Iterator[tuple[Proc, str]]:
        needles = [os.fsencode(self.home)]
        with contextlib.suppress(OSError):
            needles.append(os.fsencode(self.supervisor.sockets))
        for one in psutil.process_iter():
            folder = Path(f"/proc/{one.pid}")
            try:
                texts = [(folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()]
                texts.append(os.fsencode(os.readlink(folder / "cwd")))
                if deep:
                    texts += [os.fsencode(os.readlink(fd)) for fd in (folder / "fd").iterdir()]
            except OSError:
                continue
            proc = Proc.of(one.pid)
            if proc and any(needle in text for needle in needles for text in texts):
                yield proc, texts[0].replace(b"\0", b" ").decode(errors="replace")[:200]


def wait_for(condition: Any, seconds: float, pause: float = 0.02) -> float | None:
    """How many seconds it took until `condition()` held; None if longer than `seconds`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(pause)
    return time.monotonic() - began
