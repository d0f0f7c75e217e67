"""SeldonServing on a real API server, with real pods: splits come about without a gap, and what cannot is said."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from prefect_mlops.blocks import Split
from prefect_mlops.blocks.errors import ArmNotReady, FenceTooLow, TargetConflict, TargetRefused, TargetUnreachable
from tests.cluster import acts
from tests.cluster.api import Cluster, wait_for
from tests.cluster.node import Node
from tests.cluster.pods import named
from tests.cluster.serving import Place
from tests.forks import ROOT


def test_a_canary_is_weighed_and_promoted_without_a_restart_or_a_gap(place: Place) -> None:
    a, b = place.release("a"), place.release("b")
    place.apply(Split.of(a))
    with place.clients() as clients:
        place.apply(Split.of(a, warm=[b]))
        before = place.pods()
        place.apply(shares(a, 90, b, 10))
        assert place.shows(shares(a, 90, b, 10))
        place.apply(shares(a, 50, b, 50))
        assert place.pods() == before
        place.apply(Split.of(b))
        assert place.shows(Split.of(b))
        assert {uid: name for uid, name in before.items() if b[7:17] in name} == place.pods()
    assert clients.failed == []
    assert clients.answered[a] > 0
    assert clients.answered[b] > 0


def shares(one: str, percent: int, other: str, rest: int) -> Split:
    arms = [
        {"release": release, "role": "live", "percent": share} for release, share in ((one, percent), (other, rest))
    ]
    return Split.model_validate({"arms": arms})


def test_a_shadow_is_promoted_without_a_moment_in_which_nobody_is_ready(place: Place) -> None:
    a, b = place.release("a"), place.release("b")
    place.apply(Split.of(a))
    with place.clients(count=1) as clients:
        place.apply(Split.of(a, shadow=b, percent=50))
        assert place.shows(Split.of(a, shadow=b, percent=50))
        assert wait_for(lambda: place.serving().counters("credit").requests[b], "copies for the shadow")
        place.apply(Split.of(b, warm=[a]))
        assert place.shows(Split.of(b, warm=[a]))
    assert clients.failed == []
    counted = place.serving().counters("credit")
    assert counted.requests[b] <= clients.answered[b] + 1
    assert clients.answered[a] > 0


@pytest.mark.parametrize(
    ("behaviour", "fields", "words"),
    [
        ({"crash": "no such model", "code": 78}, {}, "no such model"),
        ({"crash": "boom"}, {}, "boom"),
        ({"ready": 503}, {"start_seconds": 8}, "statuscode: 503"),
        ({}, {"image": "localhost/nobody:1", "pull_policy": "Never"}, "ErrImageNeverPull"),
        ({}, {"cpu": "1000", "start_seconds": 2}, "Insufficient cpu"),
        ({"bytes": 10**9}, {}, "killed for want of memory"),
    ],
    ids=["refuses", "crashes", "unready", "no image", "no room", "no memory"],
)
def test_a_candidate_that_does_not_come_up_leaves_what_is_live_alone(
    place: Place, behaviour: dict[str, object], fields: dict[str, object], words: str
) -> None:
    a, b = place.release("a"), place.release("b")
    place.apply(Split.of(a))
    before = place.pods()
    with place.clients(count=1) as clients:
        with pytest.raises(ArmNotReady, match=words):
            place.apply(Split.of(a, warm=[b]), behaviour, **fields)
        place.apply(Split.of(a))
        assert place.shows(Split.of(a))
        wait_for(lambda: place.pods() == before, "the candidate's end")
    assert clients.failed == []
    assert set(clients.answered) == {a}


def test_a_shadow_that_crashes_holds_nothing_up(place: Place) -> None:
    a, b, c = place.release("a"), place.release("b"), place.release("c")
    place.apply(Split.of(a))
    with pytest.raises(ArmNotReady, match="boom"):
        place.apply(Split.of(a, shadow=b), {"crash": "boom"})
    place.apply(Split.of(c, warm=[a]))
    assert place.shows(Split.of(c, warm=[a]))


def test_a_warm_arm_that_died_is_dropped_since_it_would_hold_up_every_weight(place: Place) -> None:
    a, b, c = place.release("a"), place.release("b"), place.release("c")
    place.apply(Split.of(a))
    with pytest.raises(ArmNotReady):
        place.apply(Split.of(a, warm=[b]), {"crash": "boom"})
    wanted = Split.of(c, warm=[a, b])
    assert place.serving().tenable("credit", wanted) == Split.of(c, warm=[a])
    place.apply(wanted)
    assert place.shows(Split.of(c, warm=[a]))


def test_a_quota_is_said_as_the_cluster_says_it(place: Place) -> None:
    a, b = place.release("a"), place.release("b")
    place.apply(Split.of(a))
    quota = named("ResourceQuota", "little", place.namespace, spec={"hard": {"limits.memory": "100Mi"}})
    place.cluster.create(quota)
    wait_for(lambda: place.cluster.read(quota).get("status", {}).get("used"), "the quota to hold")
    with pytest.raises(ArmNotReady, match="exceeded quota: little"):
        place.apply(Split.of(a, warm=[b]))
    place.apply(Split.of(a))
    assert place.shows(Split.of(a))


def test_whoever_stalled_changes_nothing_any_more(place: Place) -> None:
    a, b = place.release("a"), place.release("b")
    place.apply(Split.of(a))
    stalled, place.fence = place.fence, place.fence + 7
    place.apply(Split.of(b))
    before = place.deployment()["spec"]
    for split in (Split.of(a), Split()):
        with pytest.raises(FenceTooLow):
            place.serving().apply("credit", split, fence=stalled, store=place.store)
    assert place.deployment()["spec"] == before
    place.apply(Split())
    assert place.serving().observe("credit").routes == Split()
    with pytest.raises(FenceTooLow):
        place.serving().apply("credit", Split.of(a), fence=stalled, store=place.store)
    assert place.serving().services() == ()


def test_a_change_by_other_means_is_shown_and_kept(place: Place) -> None:
    a, b = place.release("a"), place.release("b")
    place.apply(Split.of(a))
    place.apply(Split.of(a, warm=[b]))
    theirs = place.deployment()
    theirs["spec"]["predictors"][0]["traffic"], theirs["spec"]["predictors"][1]["traffic"] = 60, 40
    path = place.cluster.path(theirs)
    place.cluster.client.put(path, json=theirs, params={"fieldManager": "kubectl-edit"}).raise_for_status()
    wanted = Split.of(b, warm=[a])
    [reason] = place.serving().refusals("credit", wanted, place.store)
    assert "kubectl-edit" in reason
    with pytest.raises(TargetConflict, match="kubectl-edit"):
        place.apply(wanted)
    assert [one["traffic"] for one in place.deployment()["spec"]["predictors"]] == [60, 40]
    wait_for(lambda: place.shows(shares(a, 60, b, 40)), "what they asked for")


def test_what_kubernetes_would_not_take_is_refused_before_anything_changes(place: Place) -> None:
    a = place.release("a")
    assert place.serving().refusals("credit", Split.of(a), place.store) == []
    if "SELDON_CRD" not in os.environ:
        pytest.skip("only Seldon's own definition, which SELDON_CRD names, says every field of a pod")
    [reason] = place.serving(pod={"wieght": 1}).refusals("credit", Split.of(a), place.store)
    assert "wieght" in reason
    with pytest.raises(TargetRefused, match="wieght"):
        place.apply(Split.of(a), pod={"wieght": 1})
    assert place.serving().services() == ()


def test_a_name_that_seldon_would_hash_is_refused(place: Place) -> None:
    split = Split.of(place.release("a"))
    [reason] = place.serving().refusals("c" * 31, split, place.store)
    assert "at most 30 characters" in reason


def test_the_webhook_has_its_say(place: Place) -> None:
    """A list that Seldon's webhook refuses gets here only by a mistake of ours; then it is said in its words."""
    a = place.release("a")
    broken = place.serving(container={"command": ["true"], "name": "other"})
    [reason] = broken.refusals("credit", Split.of(a), place.store)
    assert "model" in reason


def test_an_operator_that_is_down_is_named(place: Place, node: Node) -> None:
    a, b = place.release("a"), place.release("b")
    place.apply(Split.of(a))
    place.apply(Split.of(a, warm=[b]))
    node.stop("operator")
    try:
        with place.clients(count=1) as clients, pytest.raises(TargetUnreachable, match="webhook of an operator"):
            place.apply(Split.of(b, warm=[a]), move_seconds=3)
        assert clients.failed == []
        assert set(clients.answered) == {a}
    finally:
        node.start("operator")
    wait_for(lambda: is_taken(place, Split.of(a)), "the operator's webhook")
    place.apply(Split.of(a, warm=[b]))
    assert place.shows(Split.of(a, warm=[b]))


def is_taken(place: Place, split: Split) -> bool:
    with contextlib.suppress(TargetUnreachable):
        return not place.serving(move_seconds=1).refusals("credit", split, place.store)
    return False


def test_an_api_server_that_is_restarted_meanwhile_is_waited_for(place: Place, node: Node) -> None:
    a, b = place.release("a"), place.release("b")
    place.apply(Split.of(a))
    with place.clients(count=1) as clients, ThreadPoolExecutor() as aside:
        moving = aside.submit(place.apply, Split.of(b, warm=[a]), move_seconds=30, start_seconds=60)
        wait_for(lambda: b[7:17] in json.dumps(place.deployment()["spec"]), "the candidate")
        node.restart("apiserver")
        moving.result()
        assert place.shows(Split.of(b, warm=[a]))
    assert clients.failed == []


def test_manifests_are_the_same_each_time_and_others_may_apply_them(place: Place, tmp_path: Path) -> None:
    a, b = place.release("a"), place.release("b")
    folder = tmp_path / "manifests"
    over = threading.Event()

    def sync() -> None:
        while not over.wait(0.2):
            for path in folder.glob("*.yaml"):
                place.cluster.apply(yaml.safe_load(path.read_text()))

    thread = threading.Thread(target=sync)
    thread.start()
    try:
        place.apply(Split.of(a), manifests=folder)
        place.apply(Split.of(b, warm=[a]), manifests=folder)
        assert place.shows(Split.of(b, warm=[a]))
        written = (folder / "credit.yaml").read_text()
        assert place.serving().render("credit", Split.of(b, warm=[a]), fence=place.fence, store=place.store) == written
        with pytest.raises(FenceTooLow):
            place.serving(manifests=folder).apply("credit", Split.of(a), fence=1, store=place.store)
        place.apply(Split.of(a, warm=[b]), manifests=folder)  # the way back is asked for in the same place
        assert place.shows(Split.of(a, warm=[b]))
        before = place.deployment()["metadata"]["generation"]
        over.wait(1)
        assert place.deployment()["metadata"]["generation"] == before
    finally:
        over.set()
        thread.join()


ACT = "import json, sys; from tests.cluster import acts; acts.release(**json.loads(sys.argv[1]))"


def test_an_account_without_rights_is_told_which_it_lacks(place: Place, cluster: Cluster, tmp_path: Path) -> None:
    a, b = place.release("a"), place.release("b")
    for release in (a, b):
        acts.known(place, release)
    acts.release(a, **place.where)
    account = named("ServiceAccount", "nobody", place.namespace)
    cluster.create(account)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    told = yaml.safe_load(cluster.kubeconfig.read_text())
    answer = cluster.client.post(f"{cluster.path(account)}/token", json=asked).json()
    told["users"][0]["user"] = {"token": answer["status"]["token"]}
    (tmp_path / "nobody").write_text(yaml.safe_dump(told))
    before = acts.environment(place).log().state().head
    done = subprocess.run(
        [sys.executable, "-c", ACT, json.dumps({"to": b, **place.where})], check=False, capture_output=True, text=True,
        env={**os.environ, "KUBECONFIG": str(tmp_path / "nobody")}, cwd=ROOT,
    )  # fmt: skip
    assert "cannot get resource" in done.stderr.splitlines()[-1]
    assert acts.environment(place).log().state().head == before
    assert place.shows(Split.of(a))
