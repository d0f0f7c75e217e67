"""The ingress does what VirtualServices say: real requests to real pods, which tell what they saw."""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.cluster.api import Cluster, Manifest, wait_for
from tests.cluster.ingress import Ingress
from tests.cluster.pods import named, runs

ECHO = """
import http.server, json, os, sys
seen = []
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", 65536  # one write an answer
    def do_GET(self): self.answer(200, seen)
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        own = {"who": sys.argv[1], "path": self.path, **{key.lower(): value for key, value in self.headers.items()}}
        seen.append(own)
        again = own.get("x-envoy-attempt-count") != "1"
        self.answer(503 if "fails" in own and not again else 200, own)
    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Echo).serve_forever()
"""
ISTIO = "networking.istio.io/v1"


class Service:
    """A service of echoing predictors, and the VirtualService before them."""

    def __init__(self, cluster: Cluster, namespace: str, ingress: Ingress) -> None:
        self._cluster, self._namespace = cluster, namespace
        self.url = f"{ingress.url}/seldon/{namespace}/echo/"
        self.client = httpx.Client(trust_env=False, timeout=10)

    def start(self, *names: str) -> None:
        """Start predictors, and wait until they are ready."""
        for name in names:
            self._predictor(name)
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"

        def ready() -> bool:
            found = self._cluster.get(slices)["items"]
            return sum(e["conditions"]["ready"] for s in found for e in s["endpoints"] or []) >= len(names)

        wait_for(ready, "ready endpoints")

    def _predictor(self, name: str) -> None:
        probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
        pod = named("Pod", f"echo-{name}", self._namespace, spec=runs("-c", ECHO, name, readinessProbe=probe))
        pod["metadata"]["labels"]["version"] = name
        ports = [{"name": "http", "port": 9000}]
        spec = {"selector": {"app": f"echo-{name}"}, "ports": ports}
        host = f"echo-{name}.{self._namespace}.svc.cluster.local"
        rule = {"host": host, "subsets": [{"name": name, "labels": {"version": name}}]}
        self._cluster.create(pod)
        self._cluster.create(named("Service", f"echo-{name}", self._namespace, spec=spec))
        self._cluster.create(named("DestinationRule", f"echo-{name}", self._namespace, ISTIO, spec=rule))

    def stop(self, name: str) -> None:
        """Delete a predictor's pod."""
        self._cluster.delete(named("Pod", f"echo-{name}", self._namespace))

    def route(self, weights: dict[str, int], **more: Any) -> None:
        """Split requests; `more` is what else the route says."""
        every = [{"destination": self.destination(name), "weight": weight} for name, weight in weights.items()]
        match = [{"uri": {"prefix": f"/seldon/{self._namespace}/echo/"}}]
        route: Manifest = {"match": match, "rewrite": {"uri": "/"}, "route": every, **more}
        spec = {"hosts": ["*"], "gateways": ["seldon"], "http": [route]}
        self._cluster.apply(named("VirtualService", "echo", self._namespace, ISTIO, spec=spec))

    def destination(self, name: str) -> Manifest:
        """A predictor, as a VirtualService names it."""
        host = f"echo-{name}.{self._namespace}.svc.cluster.local"
        return {"host": host, "subset": name, "port": {"number": 9000}}

    def ask(self, **headers: str) -> httpx.Response:
        """Ask whoever answers."""
        return self.client.post(f"{self.url}predict", json={}, headers=headers)

    def who(self) -> str:
        """Who answers; "" where nobody does."""
        answer = self.ask()
        return answer.json()["who"] if answer.status_code == 200 else ""

    def seen(self, name: str) -> list[dict[str, str]]:
        """The requests that a predictor saw."""
        pod = self._cluster.read(named("Pod", f"echo-{name}", self._namespace))
        return self.client.get(f"http://{pod['status']['podIP']}:9000/").json()


@pytest.fixture
def service(cluster: Cluster, namespace: str, ingress: Ingress) -> Iterator[Service]:
    """A service without predictors yet."""
    made = Service(cluster, namespace, ingress)
    yield made
    made.client.close()


@contextmanager
def asked_all_the_while(service: Service) -> Generator[Counter[int]]:
    """How many answers of each status a client got that asked every 5 ms."""
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not over.wait(0.005):
                statuses[client.post(f"{service.url}predict", json={}).status_code] += 1

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield statuses
    finally:
        over.set()
        client.join()


def test_requests_are_rewritten_split_and_numbered(service: Service) -> None:
    service.start("a", "b")
    service.route({"a": 75, "b": 25})
    wait_for(service.who, "an answer")
    asked = Counter(service.who() for _ in range(400))
    assert asked["a"] + asked["b"] == 400
    assert 60 <= asked["b"] <= 140  # 100 expected: more than 4 standard deviations
    own = service.ask().json()
    assert own["path"] == "/predict"
    assert own["x-envoy-attempt-count"] == "1"
    assert len(own["x-request-id"]) == 36
    assert service.ask(**{"x-request-id": "mine"}).json()["x-request-id"] == "mine"


def test_a_switch_loses_no_request_and_takes_a_tenth_of_a_second(service: Service) -> None:
    service.start("a", "b")
    service.route({"a": 100})
    wait_for(service.who, "an answer")
    seconds: list[float] = []
    with asked_all_the_while(service) as statuses:
        for name in itertools.islice(itertools.cycle("ba"), 10):
            service.route({name: 100})
            began = time.monotonic()
            wait_until(lambda name=name: service.who() == name)
            seconds.append(time.monotonic() - began)
    assert statuses.keys() == {200}
    assert statistics.median(seconds) < 0.1, seconds


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


def test_a_mirror_sees_its_share_under_the_same_ids(service: Service) -> None:
    service.start("a", "b")
    service.route({"a": 100}, mirror=service.destination("b"), mirrorPercentage={"value": 100})
    wait_for(service.who, "an answer")
    ids = {service.ask().json()["x-request-id"] for _ in range(50)}
    wait_for(lambda: ids <= {one["x-request-id"] for one in service.seen("b")}, "all of them in the mirror")
    service.route({"a": 100}, mirror=service.destination("b"), mirrorPercentage={"value": 20})
    before = len(service.seen("b"))
    wait_until(lambda: _share(service, 40) < 0.7)
    share = _share(service, 400)
    assert 0.1 <= share <= 0.3, (share, before)


def _share(service: Service, requests: int) -> float:
    ids = {service.ask().json()["x-request-id"] for _ in range(requests)}
    return len(ids & {one["x-request-id"] for one in service.seen("b")}) / requests


def test_a_mirror_without_a_percentage_sees_all(service: Service) -> None:
    service.start("a", "b")
    service.route({"a": 100}, mirror=service.destination("b"))
    wait_for(service.who, "an answer")
    ids = {service.ask().json()["x-request-id"] for _ in range(50)}
    wait_for(lambda: ids <= {one["x-request-id"] for one in service.seen("b")}, "all of them in the mirror")


def test_what_fails_is_asked_again_where_the_route_says_so(service: Service) -> None:
    service.start("a")
    service.route({"a": 100})
    wait_for(service.who, "an answer")
    assert service.ask(fails="once").status_code == 503
    retried = {"attempts": 3, "perTryTimeout": "2s", "retryOn": "gateway-error,connect-failure,refused-stream"}
    service.route({"a": 100}, retries=retried)
    wait_for(lambda: service.ask(fails="once").status_code == 200, "another attempt")
    assert service.ask(fails="once").json()["x-envoy-attempt-count"] == "2"


def test_only_pods_that_are_ready_are_asked(service: Service, ingress: Ingress) -> None:
    service.start("a")
    service.route({"a": 100})
    wait_for(service.who, "an answer")
    service.stop("a")
    wait_for(lambda: service.ask().status_code == 503, "nobody to answer")
    flags = [json.loads(line)["flags"] for line in (ingress.folder / "access.log").read_text().splitlines()]
    assert "UF" not in flags[-3:]
    assert service.client.get(f"{ingress.url}/nothing/here").status_code == 404
