"""The command at a laptop with a kubeconfig and the keys of the bucket: nothing else of a team is up."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.blocks import Split, Store
from tests.blocks.store.servers import ACCESS, BUCKET, SECRET, s3_server
from tests.cluster import acts
from tests.cluster.acts import SERVICE
from tests.cluster.api import Cluster, wait_for
from tests.cluster.ingress import Ingress
from tests.cluster.laptop import a_laptop
from tests.cluster.pods import a_namespace, named, runs
from tests.cluster.serving import Clients, Place
from tests.cluster.settings import NODE_IP
from tests.places import Said, run


@pytest.fixture
def place(
    cluster: Cluster, namespace: str, ingress: Ingress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A namespace with its store in a bucket, to which AWS's own variables lead."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with s3_server(tmp_path, host=NODE_IP) as s3:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
        yield Place(cluster, namespace, ingress.url, Store(url=f"s3://{BUCKET}/mlops"))


@pytest.fixture
def releases(place: Place) -> list[str]:
    """Two releases, of which the second answers and the first is warm."""
    made = [place.release(name) for name in "ab"]
    for release in made:
        acts.known(place, release)
    for release in made:
        acts.release(release, **place.where)
    return made


def command(place: Place, *words: str, by: tuple[str, ...] = (), **told: str) -> Said:
    """Give it to a process that knows nothing but the cluster and the bucket."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with tempfile.TemporaryDirectory() as nothing:
        where = {"KUBECONFIG": str(place.cluster.kubeconfig), "PREFECT_HOME": nothing, **told}
        return run(place.store.url, "--environment", "production", *words, "--json", by=by, env=ours | where)


def test_a_service_is_looked_at_rolled_back_and_verified(place: Place, releases: list[str]) -> None:
    a, b = releases
    status = command(place, "status")
    assert status.code == 0, status
    service = status.document["services"][SERVICE]
    assert [(arm["digest"], arm["role"]) for arm in service["observed"]] == [(b, "live"), (a, "warm")]
    assert service["url"].startswith(f"{place.gateway}/seldon/{place.namespace}/{SERVICE}/")
    before = place.pods()
    with place.clients(count=1) as clients:
        said = command(place, "rollback", SERVICE, "--reason", "complaints", "--actor", "eva")
        asked = clients.answered.copy()
        wait_for(lambda: clients.answered[a] > asked[a], "an answer by what was put back")
    assert said.code == 0, said
    assert ([one["digest"] for one in said.document["live"]], said.document["actor"]["name"]) == ([a], "eva")
    assert (clients.failed, clients.answered - asked) == ([], {a: clients.answered[a] - asked[a]})
    assert place.shows(Split.of(a, warm=[b]))
    assert place.pods() == before, "nothing was started again, so it was rendered as those that made it had done"
    verified = command(place, "verify")
    assert (verified.code, verified.document["faults"]) == (0, [])
    assert verified.document["anchors"][f"the gateway of {SERVICE}"] >= said.document["entry"] - 1


def by_hand(place: Place) -> None:
    """Give the warm release some of the requests, as people do with `kubectl edit`."""
    theirs: dict[str, Any] = place.deployment()
    for one, traffic in zip(theirs["spec"]["predictors"], (60, 40), strict=True):
        one["traffic"] = traffic
    path = place.cluster.path(theirs)
    place.cluster.client.put(path, json=theirs, params={"fieldManager": "kubectl-edit"}).raise_for_status()


@pytest.mark.usefixtures("releases")
def test_what_was_changed_by_hand_is_told_and_not_overwritten(place: Place) -> None:
    by_hand(place)
    wait_for(lambda: len(place.serving().observe(SERVICE).routes.live) == 2, "what they asked for")
    status = command(place, "status")
    assert (status.code, status.document["agrees"]) == (1, False)
    observed = status.document["services"][SERVICE]["observed"]
    assert sorted(arm["percent"] for arm in observed) == [40, 60]
    refused = command(place, "rollback", SERVICE)
    assert refused.code == 1
    assert "kubectl-edit" in refused.document["error"]["message"]
    assert [one["traffic"] for one in place.deployment()["spec"]["predictors"]] == [60, 40]


def test_what_somebody_deleted_is_served_again(place: Place, releases: list[str]) -> None:
    a, b = releases
    place.cluster.delete(place.deployment())
    wait_for(lambda: place.serving().observe(SERVICE).routes == Split(), "its end")
    assert command(place, "status").code == 1
    said = command(place, "reconcile")
    assert said.code == 0, said
    assert "now again credit-v2 live 100 %" in said.document["services"][SERVICE]
    assert place.shows(Split.of(b, warm=[a]))
    assert command(place, "status").code == 0


def test_without_a_way_to_the_cluster_the_log_is_read_all_the_same(place: Place, releases: list[str]) -> None:
    status = command(place, "status", KUBECONFIG="/nonexistent")
    assert status.code == 1
    service = status.document["services"][SERVICE]
    assert (service["observed"], [arm["digest"] for arm in service["asked"]]) == (None, releases[::-1])
    assert "set KUBECONFIG" in service["silence"]
    assert command(place, "releases", KUBECONFIG="/nonexistent").code == 0


@pytest.fixture
def entrance(cluster: Cluster) -> Iterator[str]:
    """A namespace such as Istio's, where the gateway is."""
    with a_namespace(cluster) as name:
        yield name


FORWARDS = """
import http.server, sys, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"up" if self.path == "/up" else urllib.request.urlopen(sys.argv[1] + self.path, timeout=5).read()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


def called_inside(cluster: Cluster, name: str, namespace: str, url: str) -> None:
    """Have the gateway be a pod behind a Service, as Istio's is."""
    cluster.create(named("Pod", name, namespace, spec=runs("-c", FORWARDS, url)))
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    service = named("Service", name, namespace, spec=spec)
    cluster.create(service)
    page = f"{cluster.path(service).replace(name, f'http:{name}:80')}/proxy/up"
    wait_for(lambda: cluster.client.get(page).text == "up", "the way through the API server")


def test_through_the_api_server_where_neither_pods_nor_gateway_are_reached(
    place: Place, cluster: Cluster, ingress: Ingress, entrance: str
) -> None:
    """As at a laptop, and the gateway is called as it is called inside."""
    called_inside(cluster, "front", entrance, ingress.url)
    place.gateway = f"http://front.{entrance}"
    a, b = (place.release(name) for name in "ab")
    for release in (a, b):
        acts.known(place, release)
    for release in (a, b):
        acts.release(release, **place.where)
    clients = Clients(f"{ingress.url}/seldon/{place.namespace}/{SERVICE}", pause=0.01)
    with a_laptop() as there:
        status = command(place, "status", by=there)
        assert status.code == 0, status
        assert [one["ready"] for one in status.document["services"][SERVICE]["releases"]] == [1, 1]
        with clients.asking(1):
            said = command(place, "rollback", SERVICE, by=there)
            asked = clients.answered.copy()
            wait_for(lambda: clients.answered[a] > asked[a], "an answer by what was put back")
        assert said.code == 0, said
        assert clients.failed == []
        assert command(place, "verify", by=there).code == 0
