"""Inference graphs: what stands around a model in Seldon Core, in Seldon's own words."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from prefect_mlops.blocks._canonical import Value, canonical
from prefect_mlops.blocks.errors import StoreError

if TYPE_CHECKING:
    from prefect_mlops.blocks.store import Store

MODEL = "model"
FILE = "seldon-graph.json"
"""The file of a release's component that holds its graph."""
NodeType = Literal["MODEL", "TRANSFORMER", "OUTPUT_TRANSFORMER", "ROUTER", "COMBINER"]
_MAX_NAME = 15

Json = dict[str, Any]


def _pure(value: Any) -> Any:
    """Refuse what the digest of a release could not name, such as floats; Seldon writes numbers as text there."""
    try:
        canonical(value)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return value


Pure = Annotated[dict[str, Any], AfterValidator(_pure)]


class Graph(Value):
    """What Seldon Core runs around a model: transformers, routers, combiners, an explainer.

    Written as in a SeldonDeployment: `nodes` is the predictor's `graph`, in which the node called `model` stands for
    the release's model and is filled in; `containers` has a container for each other node, of the same name, unless
    the node names an `implementation` of Seldon's. Other targets than Seldon Core refuse a release with a graph.

    Source: https://docs.seldon.io/projects/seldon-core/en/v1.17.1/graph/inference-graph.html
    """

    nodes: Pure = Field(
        default={"name": MODEL}, title="Nodes", description="Seldon's graph; the node called model is the model."
    )
    containers: list[Pure] = Field(
        default=[], title="Containers", description="Containers of the other nodes, as Kubernetes writes them."
    )
    explainer: Pure = Field(default={}, title="Explainer", description="Seldon's explainer; none if left empty.")

    @model_validator(mode="after")
    def _whole(self) -> Graph:
        nodes = list(_walk(self.nodes))
        names = [str(node.get("name")) for node in nodes]
        if names.count(MODEL) != 1 or len(set(names)) < len(names):
            raise ValueError(f"a graph has one node called {MODEL!r} and each name once, got {names}")
        for node in nodes:
            _check_node(node)
        given = [str(container.get("name")) for container in self.containers]
        needed = [str(one["name"]) for one in nodes if one["name"] != MODEL and not one.get("implementation")]
        if sorted(given) != sorted(needed):
            raise ValueError(f"each node but {MODEL!r} has one container of its name, got {given} for {needed}")
        without = [name for name, one in zip(given, self.containers, strict=True) if not one.get("image")]
        if without:
            raise ValueError(f"each container names its image, got none for {without}")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether it is the model alone, which any target serves."""
        return not self.has_nodes and not self.explainer

    @property
    def has_nodes(self) -> bool:
        """Whether it is more than the model alone, so that Seldon's executor has to call its nodes."""
        return len(list(_walk(self.nodes))) > 1

    def tree(self, model: Json) -> Json:
        """The nodes, the one called `model` filled in with `model`."""
        return _filled(self.nodes, model)

    def component_specs(self) -> tuple[Json, ...]:
        """What Seldon runs for the nodes beside the model, each in pods of its own."""
        return tuple({"spec": {"containers": [copy.deepcopy(container)]}} for container in self.containers)


def keep_graph(store: Store, graph: Graph, folder: Path) -> str:
    """Keep a graph as a component of a release, by way of a `folder` that is not there yet; returns its snapshot."""
    folder.mkdir()
    (folder / FILE).write_bytes(graph.canonical())
    return store.add(folder).id


def graph_of(store: Store, release: str) -> Graph | None:
    """The inference graph that a release brings; None where it is the model alone, or the store does not say."""
    try:
        files = [file for one in store.release(release).components for file in store.snapshot(one).files]
        found = next((file for file in files if file.path == FILE), None)
        return Graph.model_validate_json(store.get(found.digest)) if found else None
    except StoreError:
        return None


def _walk(node: Json) -> Iterator[Json]:
    yield node
    for child in node.get("children") or ():
        yield from _walk(child)


def _filled(node: Json, model: Json) -> Json:
    own = {**node, **model} if node["name"] == MODEL else dict(node)
    if node.get("children"):
        own["children"] = [_filled(child, model) for child in node["children"]]
    return own


def _check_node(node: Json) -> None:
    name, kind = node.get("name"), node.get("type", "MODEL")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise ValueError(f"a node's name has 1 to {_MAX_NAME} characters, or Seldon hashes names, got {name!r}")
    if kind not in get_args(NodeType):
        raise ValueError(f"node {name!r} is of type {', '.join(get_args(NodeType))}, got {kind!r}")
