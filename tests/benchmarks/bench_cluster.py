"""How soon a release is up on Kubernetes, and how soon requests follow, beside the same with Seldon's default probes.

Runs beside a node: `python -m tests.cluster python -m tests.benchmarks cluster`, or `make bench-cluster`.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from prefect_mlops.blocks import SeldonServing, Split, Store
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import snapshot_data, train_model
from tests.benchmarks import Benchmark, Unmeasured

ROUNDS = 5
SELDONS = {"initialDelaySeconds": 20, "periodSeconds": 5}
"""What Seldon gives a container that names no probes."""


def run() -> Iterator[Benchmark]:
    """Seconds, the middle of five rounds; one of the peer, whose probes alone wait for twenty."""
    if not os.environ.get("CLUSTER_NODE"):
        raise Unmeasured("it runs beside a node: `make bench-cluster`")
    from tests.blocks.store.servers import ACCESS, BUCKET, SECRET, s3_server
    from tests.cluster.api import Cluster
    from tests.cluster.ingress import running
    from tests.cluster.node import Node
    from tests.cluster.ours import loaded
    from tests.cluster.pods import a_namespace, named
    from tests.cluster.settings import NODE_IP

    node = Node(Path(os.environ["CLUSTER_NODE"]))
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        endpoint = stack.enter_context(s3_server(folder, host=NODE_IP))
        ingress = stack.enter_context(running(node.kubeconfig, folder))
        cluster: Cluster = node.cluster()
        namespace = stack.enter_context(a_namespace(cluster))
        keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        cluster.create(named("Secret", "keys", namespace, stringData=keys))
        serving = SeldonServing(
            namespace=namespace, gateway=ingress.url, image=loaded("serving"), secret="keys", cpu="100m",
            memory="512Mi", drain_seconds=1,
        )  # fmt: skip
        yield from _measured(serving, Store(url=f"s3://{BUCKET}/bench", endpoint=endpoint), folder)


def _measured(serving: SeldonServing, store: Store, folder: Path) -> Iterator[Benchmark]:
    a, *candidates = (_release(store, folder, seed) for seed in range(ROUNDS + 2))
    timed = _Timed(serving, store)
    timed.serve(Split.of(a))
    slow = serving.model_copy(update={"container": {"readinessProbe": SELDONS}})
    seconds: dict[str, list[float]] = {"candidate": [], "weights": [], "rollback": []}
    for b in candidates[:ROUNDS]:  # one that was removed just now would wait for its own pods to go
        seconds["candidate"].append(timed.serve(Split.of(a, warm=[b]), partial(timed.answers, b)))
        seconds["weights"].append(timed.serve(_shares(a, 90, b, 10)))
        timed.serve(Split.of(b, warm=[a]))
        seconds["rollback"].append(timed.serve(Split.of(a, warm=[b]), lambda: timed.is_live(a)))
        timed.serve(Split.of(a))
    peer, b = _Timed(slow, store, timed.fence), candidates[ROUNDS]
    theirs = {"candidate": peer.serve(Split.of(a, warm=[b]), lambda: peer.answers(b))}
    theirs["weights"] = peer.serve(_shares(a, 90, b, 10))
    theirs["rollback"] = peer.serve(Split.of(a, warm=[b]), lambda: peer.is_live(a))
    goals = {"candidate": ("cluster_candidate_answers", 5.0), "weights": ("cluster_weight_change", 1.0)}
    goals["rollback"] = ("cluster_rollback_to_warm", 1.0)
    for what, (name, bound) in goals.items():
        ours = statistics.median(seconds[what])
        print(f"{name}: {json.dumps([round(one, 2) for one in seconds[what]])} s, at most {bound} s wanted")
        goal = bound / theirs[what] if what == "candidate" else max(1.0, bound / theirs[what])
        yield Benchmark(name, ours, theirs[what], "default probes", "s", goal=round(goal, 3), at_most=True)


class _Timed:
    """Serves splits and says how long it took until a client could tell."""

    def __init__(self, serving: SeldonServing, store: Store, fence: int = 0) -> None:
        self._serving, self._store, self.fence = serving, store, fence

    def serve(self, split: Split, seen: Callable[[], bool] = lambda: True) -> float:
        self.fence += 1
        began = time.perf_counter()
        self._serving.apply(RECIPE.name, split, fence=self.fence, store=self._store)
        while not seen():
            time.sleep(0.01)
        return time.perf_counter() - began

    def answers(self, release: str) -> bool:
        """Whether a release answers where it alone is reached."""
        return self._ask(self._serving.address(RECIPE.name, release).url) == release

    def is_live(self, release: str) -> bool:
        """Whether a release answers clients."""
        return self._ask(self._serving.address(RECIPE.name).url) == release

    def _ask(self, url: str) -> str | None:
        return httpx.post(f"{url}/api/v1.0/predictions", json=_QUESTION, trust_env=False).headers.get("x-release")


def _shares(one: str, percent: int, other: str, rest: int) -> Split:
    arms = [
        {"release": release, "role": "live", "percent": share} for release, share in ((one, percent), (other, rest))
    ]
    return Split.model_validate({"arms": arms})


def _release(store: Store, folder: Path, seed: int) -> str:
    path = folder / f"{seed}.csv"
    census(1_000, seed=seed).to_csv(path, index=False)
    candidate = train_model.fn(store, RECIPE, snapshot_data.fn(store, path, RECIPE.name).snapshot)
    return store.put_release(candidate.release())


def _question() -> dict[str, Any]:
    rows = census(1, seed=99).drop(columns=[RECIPE.target])
    return {"data": {"names": list(rows.columns), "ndarray": json.loads(rows.to_json(orient="values"))}}


_QUESTION = _question()
