"""A whole release, beside the same work done by a bare Prefect flow that keeps no promises.

Both validate the data, train, test the model beside the last one, register it in MLflow, start two model servers and
have each golden probe answered. The peer has no store, no log, no gateway, no fence, and looks at nothing twice.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import prefect
from prefect import flow

from prefect_mlops.blocks import Environment
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import release_model
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import _learning
from tests.benchmarks import Benchmark, bare

ROUNDS = 5
ROWS = 12_000


@flow(persist_result=False)
def bare_release(path: Path, folder: Path, champion: Any, servers: ExitStack) -> Any:
    """Everything that a release does, and nothing that makes it one; the model servers run on in `servers`."""
    bare.snapshot(path, folder)
    bare.validation(path)
    trained = bare.training(path, folder)
    bare.testing(trained, champion)
    bare.registration(f"sqlite:///{folder.parent}/bare.db", str(folder.parent / "artifacts"), trained)
    clients = servers.enter_context(bare.serving(trained.folder, 2))
    request = json.loads(_learning.probes_document(trained.learned))["request"]
    for client in clients:
        client.post("/api/v1.0/predictions", json=request).raise_for_status()
    return trained.learned.model


def run() -> Iterator[Benchmark]:
    """Release five models our way and five the bare way, in turn, on one Prefect server."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        place = Place(Path(scratch) / "home")
        try:
            place.up()
            with place.settings():
                ours, peer = _measured(place, Path(scratch))
        finally:
            place.down()
    yield Benchmark(
        "whole_release",
        ours=statistics.median(ours),
        peer=statistics.median(peer),
        peer_name=f"the same work in a bare flow, prefect {prefect.__version__}",
        unit="s",
        goal=1.3,
        at_most=True,
    )


def _measured(place: Place, scratch: Path) -> tuple[list[float], list[float]]:
    Environment(name="bench", receipts=place.receipts, watch_seconds=0).save("bench", overwrite=True)
    ours: list[float] = []
    peer: list[float] = []
    champion = None
    for number in range(ROUNDS + 1):
        path, folder = scratch / f"data-{number}.csv", scratch / f"bare-{number}"
        folder.mkdir()
        census(ROWS, seed=number).to_csv(path, index=False)
        began = time.monotonic()
        release_model(RECIPE, data=path, environment="bench")
        ours.append(time.monotonic() - began)
        with ExitStack() as servers:
            began = time.monotonic()
            champion = bare_release(path, folder, champion, servers)
            peer.append(time.monotonic() - began)
    return ours[1:], peer[1:]
