"""Releases with inference graphs on a real API server: judged, kept as rendered, and no harm where they cannot run.

Seldon's executor is not here to run them, and the stand-in operator says so.
"""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from prefect_mlops.blocks import Split, Store
from prefect_mlops.blocks._seldon_manifest import predictor_name, read_text
from prefect_mlops.blocks.errors import ArmNotReady, TargetRefused
from prefect_mlops.blocks.graph import MODEL, Graph
from tests.cluster.api import Manifest, wait_for
from tests.cluster.pods import IMAGE
from tests.cluster.serving import Place

LEAF = {"name": MODEL}
OTHER = {"name": "other", "type": "MODEL"}
CONTAINER = {"name": "scale", "image": IMAGE}
SPLITTER = {"implementation": "RANDOM_ABTEST", "parameters": [{"name": "ratioA", "value": "0.5", "type": "FLOAT"}]}
EXPLAINER = {
    "type": "AnchorTabular",
    "modelUri": "s3://models/explainer",
    "containerSpec": {"name": "explainer", "image": IMAGE},
}


def graph(name: str = MODEL, kind: str = "MODEL", *children: dict[str, Any], **more: Any) -> Graph:
    """A graph whose containers are all of the image that the cluster has."""
    root = {"name": name, "type": kind, "children": list(children)} if children else LEAF
    own = [one for one in ([root] if children else []) + list(children) if one["name"] != MODEL]
    containers = [{"name": one["name"], "image": IMAGE} for one in own if "implementation" not in one]
    return Graph(nodes=root, containers=more.pop("containers", containers), **more)


GRAPHS = {
    "transformer": graph("scale", "TRANSFORMER", LEAF),
    "output transformer": graph("round", "OUTPUT_TRANSFORMER", LEAF),
    "router": graph("pick", "ROUTER", LEAF, OTHER),
    "Seldon's router": Graph(
        nodes={"name": "pick", **SPLITTER, "children": [LEAF, OTHER]}, containers=[{"name": "other", "image": IMAGE}]
    ),
    "combiner": graph("mean", "COMBINER", LEAF, OTHER),
    "explainer": graph(explainer=EXPLAINER),
}


@pytest.fixture
def strict() -> None:
    if "SELDON_CRD" not in os.environ:
        pytest.skip("only Seldon's own definition, which SELDON_CRD names, says every field of a graph")


def kept(place: Place, release: str) -> Manifest | None:
    """The predictor of a release that the API server keeps."""
    name = predictor_name(release, shadow=False)
    return next((one for one in place.deployment()["spec"]["predictors"] if one["name"] == name), None)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_rendered_is_taken_and_kept_as_it_is(place: Place, name: str) -> None:
    release = place.release(name, graph=GRAPHS[name])
    split = Split.of(release)
    assert place.serving().refusals("credit", split, place.store) == []
    manifest = read_text(place.serving().render("credit", split, fence=1, store=place.store))
    made = place.cluster.create(manifest)
    assert made["spec"] == manifest["spec"]


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (graph("scale", "TRANSFORMER", {**LEAF, "lable": "a"}), "children.0..lable: field not declared"),
        (graph("scale", "TRANSFORMER", LEAF, containers=[CONTAINER | {"prots": []}]), "prots: field not declared"),
        (graph("scale", "TRANSFORMER", LEAF, containers=[CONTAINER | {"args": "a"}]), "args: expected list"),
        (graph(explainer=EXPLAINER | {"kind": "AnchorTabular"}), "explainer.kind: field not declared"),
    ],
    ids=["a node", "a container", "a value", "an explainer"],
)
def test_a_wrong_one_is_refused_before_anything_changes(place: Place, wrong: Graph, words: str) -> None:
    a, b = place.release("a"), place.release("b", graph=wrong)
    place.apply(Split.of(a))
    before = place.deployment()
    [reason] = place.serving().refusals("credit", Split.of(b, warm=[a]), place.store)
    assert re.search(words, reason)
    with pytest.raises(TargetRefused, match=words):
        place.apply(Split.of(a, warm=[b]))
    after = place.deployment()
    assert (after["metadata"]["generation"], after["spec"]) == (before["metadata"]["generation"], before["spec"])
    assert place.shows(Split.of(a))


@pytest.mark.skipif("SELDON_OPERATOR" in os.environ, reason="the last words are those of the stand-in")
@pytest.mark.parametrize(("name", "words"), [("transformer", "no-engine"), ("explainer", "has an explainer")])
def test_one_that_does_not_come_up_leaves_what_is_live_alone_and_is_rendered_the_same_again(
    place: Place, name: str, words: str
) -> None:
    a, b = place.release("a"), place.release("b", graph=GRAPHS[name])
    both = Split.of(a, warm=[b])
    place.apply(Split.of(a))
    pods = place.pods()

    def rendered() -> str:
        return place.serving(start_seconds=2).render("credit", both, fence=9, store=place.store)

    first = rendered()
    with place.clients(count=1) as clients:
        seen: list[Manifest | None] = []
        for _ in range(2):
            with pytest.raises(ArmNotReady, match=words):
                place.apply(both, start_seconds=2)
            assert place.pods() == pods
            seen.append(kept(place, b))
            place.apply(Split.of(a))
            wait_for(lambda: place.shows(Split.of(a)), "what was live")
    assert clients.failed == []
    assert set(clients.answered) == {a}
    assert place.pods() == pods
    assert seen[0] == seen[1]
    assert rendered() == first
    assert seen[0] in read_text(first)["spec"]["predictors"]


def test_a_graph_comes_back_with_its_release_byte_for_byte(place: Place) -> None:
    """Whatever the recipe says by now: it is a component of the release."""
    releases = [place.release(name, graph=one) for name, one in GRAPHS.items()]
    serving = place.serving()

    def rendered(release: str) -> str:
        return serving.render("credit", Split.of(release), fence=1, store=place.store)

    before = {release: rendered(release) for release in releases}
    anew = Store(url=place.store.url)
    for release in reversed(releases):
        assert serving.render("credit", Split.of(release), fence=1, store=anew) == before[release]
    assert len(set(before.values())) == len(GRAPHS)
