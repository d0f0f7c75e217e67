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
from tests.cluster.serving import Place
from tests.places import Said, run


@pytest.fixture
def place(
    cluster: Cluster, namespace: str, ingress: Ingress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A namespace with its store in a bucket, to which AWS's own variables lead."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with s3_server(tmp_path) as s3:
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


def command(place: Place, *words: str, **told: str) -> Said:
    """Give it to a process that knows nothing but the cluster and the bucket."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with tempfile.TemporaryDirectory() as nothing:
        where = {"KUBECONFIG": str(place.cluster.kubeconfig), "PREFECT_HOME": nothing, **told}
        return run(place.store.url, "--environment", "production", *words, "--json", env=ours | where)


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


def test_what_was_changed_by_hand_is_told_and_not_overwritten(place: Place, releases: list[str]) -> None:
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
    assert releases


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
