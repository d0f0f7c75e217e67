"""A SeldonServing on the cluster under test, with model servers that do as they are told, and clients that ask them."""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect_mlops.blocks import Release, SeldonServing, Split, Store
from prefect_mlops.blocks.graph import Graph, keep_graph
from tests.cluster.api import Cluster, Manifest
from tests.cluster.pods import IMAGE

STUB = Path(__file__).with_name("stub.py").read_text()
PREDICTIONS = "/api/v1.0/predictions"


@dataclass
class Place:
    """A namespace in which releases are served, and a store that names them."""

    cluster: Cluster
    namespace: str
    gateway: str
    store: Store
    fence: int = 0

    @classmethod
    def at(cls, kubeconfig: str, namespace: str, gateway: str, store: str) -> Place:
        """The same place, in another process."""
        return cls(Cluster.named(Path(kubeconfig)), namespace, gateway, Store(url=store))

    @property
    def where(self) -> dict[str, str]:
        """What `at` takes."""
        words = (str(self.cluster.kubeconfig), self.namespace, self.gateway, self.store.url)
        return dict(zip(("kubeconfig", "namespace", "gateway", "store"), words, strict=True))

    def serving(self, behaviour: dict[str, Any] | None = None, **fields: Any) -> SeldonServing:
        """The block; what it starts behaves as told."""
        container = {
            "command": ["python", "-c", STUB],
            "env": [{"name": "BEHAVIOUR", "value": json.dumps(behaviour or {})}],
        }
        settings = {
            "namespace": self.namespace, "gateway": self.gateway, "image": IMAGE, "cpu": "10m", "memory": "64Mi",
            "container": container, "drain_seconds": 2, "start_seconds": 20, "move_seconds": 10,
        }  # fmt: skip
        return SeldonServing.model_validate(settings | fields)

    def release(self, name: str, service: str = "credit", graph: Graph | None = None) -> str:
        """A release that is whole, and differs from others by its name, and the graph around its model."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "name").write_text(name)
            kept = self.store.add(Path(folder)).id
            components = () if graph is None else (keep_graph(self.store, graph, Path(folder) / "graph"),)
        digests = dict.fromkeys(("data", "code", "runtime", "model"), kept)
        evidence = dict.fromkeys(("tests", "probes"), self.store.put(b"{}"))
        return self.store.put_release(Release(service=service, components=components, **digests, **evidence))

    def apply(self, split: Split, behaviour: dict[str, Any] | None = None, **fields: Any) -> float:
        """Serve a split, and say how many seconds that took."""
        self.fence += 1
        began = time.monotonic()
        self.serving(behaviour, **fields).apply("credit", split, fence=self.fence, store=self.store)
        return time.monotonic() - began

    def shows(self, split: Split) -> bool:
        """Whether just that is served."""
        seen = self.serving().observe("credit")
        if not seen.shows(split):
            print("wanted", split, "seen", seen, seen.ready)
        return seen.shows(split)

    def pods(self) -> dict[str, str]:
        """The pods that are not on their way out: names by uid."""
        found = self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return {
            pod["metadata"]["uid"]: pod["metadata"]["name"]
            for pod in found
            if not pod["metadata"].get("deletionTimestamp")
        }

    def deployment(self) -> Manifest:
        """The SeldonDeployment."""
        path = f"/apis/machinelearning.seldon.io/v1/namespaces/{self.namespace}/seldondeployments/credit"
        return self.cluster.get(path)

    def clients(self, count: int = 2, pause: float = 0.01) -> AbstractContextManager[Clients]:
        """Clients that ask through the gateway until the end of the block."""
        return Clients(f"{self.gateway}/seldon/{self.namespace}/credit", pause).asking(count)


@dataclass
class Clients:
    """Clients that keep their connections and ask again and again."""

    url: str
    pause: float
    body: bytes = b"{}"
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    last: str = ""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    @contextmanager
    def asking(self, count: int) -> Generator[Clients]:
        """So many of them ask until the end of the block."""
        self.start(count)
        try:
            yield self
        finally:
            self.stop()

    def start(self, count: int) -> None:
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        while not self._over.wait(self.pause):
            try:
                connection.request("POST", parts.path + PREDICTIONS, self.body, {"content-type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
                continue
            if answer.status == 200:
                self.answered[str(answer.getheader("x-release"))] += 1
                self.last = str(answer.getheader("x-request-id"))
            else:
                self.failed.append(f"{answer.status} {body[:200]!r}")
        connection.close()
