"""A whole release, beside the same work done by a bare Prefect flow that keeps no promises.

The peer copies the data, trains, measures, logs and registers in MLflow, starts two model servers,
waits until they answer and sends each golden probe: no store, no log, no gateway, no fence, no checks.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import prefect
from prefect import flow, task

from prefect_mlops.blocks import Environment, Floor, ModelRegistry, Store
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import release_model
from prefect_mlops.flows.creditco import RECIPE, census, train
from prefect_mlops.tasks import _learning
from prefect_mlops.tasks._runtime import requirements
from tests.benchmarks import Benchmark

PLAIN = RECIPE.model_copy(update={"expectations": "", "tests": [Floor("accuracy", 0.5)]})
"""What both sides do, and no more: the peer neither validates data nor tests models."""

ROUNDS = 5
ROWS = 12_000


@task(persist_result=False)
def bare_training(path: Path, folder: Path) -> tuple[_learning.Learned, Path]:
    shutil.copy(path, folder / "data.csv")
    learned = _learning.learn(train, RECIPE, _learning.parsed(folder / "data.csv", RECIPE))
    _learning.write_model(learned, RECIPE, folder / "model")
    return learned, folder / "model"


@task(persist_result=False)
def bare_registration(registry: ModelRegistry, learned: _learning.Learned, model: Path, name: str) -> None:
    registry.record(
        "bare",
        model / "model.pkl",
        release=f"sha256:{name}",
        params={"seed": "0"},
        metrics=learned.metrics,
        tags={},
        requirements=requirements(RECIPE),
        files=model,
    )


@task(persist_result=False)
def bare_serving(store: Store, learned: _learning.Learned, model: Path) -> list[subprocess.Popen[bytes]]:
    snapshot = store.add(model)
    running: list[subprocess.Popen[bytes]] = []
    for number in range(2):
        folder = model.parent / f"server-{number}"
        folder.mkdir()
        config: dict[str, Any] = {
            "service": "bare",
            "namespace": "default",
            "release": snapshot.id,
            "model": snapshot.id,
            "folder": str(model),
            "files": [file.model_dump() for file in snapshot.files],
            "socket": str(folder / "s"),
            "host": "127.0.0.1",
            "port": 0,
            "spool": str(folder),
            "max_body_bytes": 2**24,
            "instance": str(number),
        }
        (folder / "config.json").write_text(json.dumps(config))
        command = [sys.executable, "-m", "prefect_mlops.deployments.server", str(folder / "config.json")]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    request = json.loads(_learning.probes_document(learned))["request"]
    for number in range(2):
        _await_answer(model.parent / f"server-{number}" / "s", request)
    return running


def _await_answer(socket: Path, request: dict[str, Any]) -> None:
    end = time.monotonic() + 60
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://bare") as client:
        while True:
            try:
                client.post("/api/v1.0/predictions", json=request).raise_for_status()
                return
            except httpx.TransportError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)


@flow(persist_result=False)
def bare_release(store: Store, registry: ModelRegistry, path: Path, folder: Path) -> list[subprocess.Popen[bytes]]:
    learned, model = bare_training(path, folder)
    bare_registration(registry, learned, model, folder.name)
    return bare_serving(store, learned, model)


def run() -> Iterator[Benchmark]:
    """Release five models our way and five the bare way, in turn, on one Prefect server."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        place = Place(Path(scratch) / "home")
        try:
            place.up()
            with place.settings():
                ours, bare = _measured(place, Path(scratch))
        finally:
            place.down()
    yield Benchmark(
        "whole_release",
        ours=statistics.median(ours),
        peer=statistics.median(bare),
        peer_name=f"the same work in a bare flow, prefect {prefect.__version__}",
        unit="s",
        goal=1.3,
        at_most=True,
    )


def _measured(place: Place, scratch: Path) -> tuple[list[float], list[float]]:
    store = Store(url=str(scratch / "bare-store"))
    registry = ModelRegistry(tracking_uri=f"sqlite:///{scratch}/bare.db", artifacts=str(scratch / "bare"))
    environment = Environment(name="bench", receipts=place.receipts, watch_seconds=0)
    environment.save("bench", overwrite=True)
    ours: list[float] = []
    bare: list[float] = []
    for number in range(ROUNDS + 1):
        path = scratch / f"data-{number}.csv"
        census(ROWS, seed=number).to_csv(path, index=False)
        began = time.monotonic()
        release_model(PLAIN, data=path, environment="bench")
        ours.append(time.monotonic() - began)
        folder = scratch / f"bare-{number}"
        folder.mkdir()
        began = time.monotonic()
        running = bare_release(store, registry, path, folder)
        bare.append(time.monotonic() - began)
        for process in running:
            process.terminate()
            process.wait()
    return ours[1:], bare[1:]
