"""What is rendered for Seldon: the same bytes each time, names that are never hashed, and what a team adds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from prefect_mlops.blocks import Arm, Graph, Split
from prefect_mlops.blocks._seldon_manifest import (
    FENCE,
    SPEC,
    PodSettings,
    deployment,
    fence_of,
    predictor,
    predictor_name,
    release_of,
)

RELEASE = "sha256:" + "0123456789abcdef" * 4
OTHER = "sha256:" + "fedcba9876543210" * 4
SETTINGS = PodSettings(
    image="example/model@sha256:1", store={"store": "s3://bucket/p", "endpoint": None, "region": None}
)
LIVE = Arm(release=RELEASE, role="live", percent=100)
SHADOW = Arm(release=RELEASE, role="shadow", percent=10)


def rendered(arm: Arm = LIVE, settings: PodSettings = SETTINGS, graph: Graph | None = None) -> dict[str, Any]:
    return predictor("mlops", "credit", arm, settings, graph, traffic=arm.percent)


def container(one: dict[str, Any]) -> dict[str, Any]:
    return one["componentSpecs"][0]["spec"]["containers"][0]


def test_the_longest_names_stay_below_what_seldon_hashes() -> None:
    service, name = "c" * 30, predictor_name(RELEASE, shadow=False)
    assert len(f"{service}-{name}-0-{container(rendered())['name']}") <= 63
    assert len(name) <= 12


def test_a_live_and_a_shadow_predictor_of_one_release_are_two() -> None:
    names = {rendered(LIVE)["name"], rendered(SHADOW)["name"]}
    assert len(names) == 2
    assert {release_of(rendered(arm)) for arm in (LIVE, SHADOW)} == {RELEASE}


def test_the_weight_is_no_part_of_what_a_pod_is_made_of() -> None:
    other = replace_percent(LIVE, 10)
    assert rendered(LIVE)["annotations"] == rendered(other)["annotations"]
    assert json.dumps(rendered(LIVE)["componentSpecs"]) == json.dumps(rendered(other)["componentSpecs"])


def replace_percent(arm: Arm, percent: int) -> Arm:
    return arm.model_copy(update={"percent": percent})


@pytest.mark.parametrize(
    "change",
    [{"image": "example/model@sha256:2"}, {"memory": "2Gi"}, {"replicas": 2}, {"pod": {"nodeSelector": {"a": "b"}}}],
)
def test_whatever_changes_a_pod_changes_its_digest(change: dict[str, Any]) -> None:
    before, after = rendered(), rendered(settings=replace(SETTINGS, **change))
    assert before["annotations"][SPEC] != after["annotations"][SPEC]


def test_no_key_of_the_store_is_in_a_manifest() -> None:
    made = rendered(settings=replace(SETTINGS, secret="bucket-keys"))
    assert container(made)["envFrom"] == [{"secretRef": {"name": "bucket-keys"}}]
    configuration = json.loads(container(made)["args"][0])
    assert configuration["release"] == RELEASE
    assert not {"model", "folder", "files"} & set(configuration)


def test_what_a_team_adds_stands_beside_what_is_ours() -> None:
    more = {"volumes": [{"name": "data", "emptyDir": {}}], "tolerations": [{"operator": "Exists"}]}
    pod = rendered(settings=replace(SETTINGS, pod=more, container={"env": [{"name": "A", "value": "b"}]}))
    spec = pod["componentSpecs"][0]["spec"]
    assert {volume["name"] for volume in spec["volumes"]} == {"spool", "tmp", "data"}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert container(pod)["env"] == [{"name": "A", "value": "b"}]


def test_the_fence_is_no_annotation_of_a_predictor() -> None:
    made = deployment("mlops", "credit", 7, [rendered()])
    assert fence_of(made) == 7
    assert FENCE not in made["spec"]["predictors"][0]["annotations"]
    assert fence_of(None) is None


GRAPH = Graph(
    nodes={
        "name": "scale",
        "type": "TRANSFORMER",
        "endpoint": {"type": "REST"},
        "children": [
            {"name": "pick", "type": "ROUTER", "children": [{"name": "model"}, {"name": "old", "type": "MODEL"}]}
        ],
    },
    containers=[{"name": name, "image": f"example/{name}@sha256:3"} for name in ("scale", "pick", "old")],
    explainer={"type": "AnchorTabular", "containerSpec": {"name": "explainer", "image": "example/e@sha256:4"}},
)


def test_a_graph_stands_around_the_model() -> None:
    made = rendered(graph=GRAPH)
    [model, old] = made["graph"]["children"][0]["children"]
    assert model == {"name": "model", "type": "MODEL", "endpoint": {"type": "REST", "httpPort": 9000, "grpcPort": 9500}}
    assert old == {"name": "old", "type": "MODEL"}
    assert [one["spec"]["containers"][0]["name"] for one in made["componentSpecs"]] == ["model", "scale", "pick", "old"]
    assert made["explainer"] == GRAPH.explainer
    assert "seldon.io/no-engine" not in made["annotations"]
    assert rendered()["annotations"]["seldon.io/no-engine"] == "true"


@pytest.mark.parametrize(
    ("nodes", "containers", "words"),
    [
        ({"name": "scale", "type": "TRANSFORMER"}, ["scale"], "one node called 'model'"),
        ({"name": "model", "children": [{"name": "model"}]}, [], "one node called 'model'"),
        ({"name": "scale", "type": "TRANSFORMER", "children": [{"name": "model"}]}, [], "one container of its name"),
        ({"name": "model"}, ["scale"], "one container of its name"),
        ({"name": "a-name-too-long-for-it", "children": [{"name": "model"}]}, [], "1 to 15 characters"),
        ({"name": "scale", "type": "FILTER", "children": [{"name": "model"}]}, ["scale"], "got 'FILTER'"),
        ({"name": "model", "weight": 0.5}, [], "no floats"),
    ],
)
def test_a_graph_that_seldon_could_not_run_is_refused(nodes: dict[str, Any], containers: list[str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Graph(nodes=nodes, containers=[{"name": name, "image": "example/x"} for name in containers])


def test_a_graph_goes_through_json() -> None:
    assert Graph.model_validate_json(GRAPH.canonical()) == GRAPH


def test_a_split_is_listed_live_first() -> None:
    split = Split.of(RELEASE, warm=[OTHER])
    assert [arm.role for arm in split.arms] == ["live", "warm"]
