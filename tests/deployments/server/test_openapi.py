"""The OpenAPI document: made from the signature, and true of what the server does."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.deployments.server.models import census_signature
from tests.deployments.server.processes import Running


@pytest.fixture(scope="module")
def document(server: Running) -> dict[str, Any]:
    """What the server says of itself."""
    return server.client.get("/openapi.json").json()


def _check(document: dict[str, Any], schema: str, instance: Any) -> None:
    registry: Registry[Any] = Registry().with_resource("urn:api", Resource(document, DRAFT202012))
    reference = {"$ref": f"urn:api#/components/schemas/{schema}"}
    jsonschema.Draft202012Validator(reference, registry=registry).validate(instance)


PREDICTIONS, INFER = "/api/v1.0/predictions", "/v2/models/credit/infer"


@pytest.mark.parametrize(
    ("path", "names", "question", "answer"),
    [
        (PREDICTIONS, {"ndarray", "jsonData"}, "Question", "Answer"),
        (INFER, {"columns"}, "InferenceRequest", "InferenceAnswer"),
    ],
)
def test_its_examples_fit_its_schema_and_are_answered(
    server: Running, document: dict[str, Any], path: str, names: set[str], question: str, answer: str
) -> None:
    examples = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert set(examples) == names
    for example in examples.values():
        _check(document, question, example["value"])
        answered = server.post(example["value"], path)
        assert answered.status_code == 200
        _check(document, answer, answered.json())


def test_it_names_each_field_with_its_type(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["Fields"]["properties"]
    assert {name: field["type"] for name, field in fields.items()} == {
        field["name"]: field["type"] for field in census_signature()["inputs"]
    }
    assert fields["age"]["examples"] == [census_signature()["inputs"][0]["example"]]


@pytest.mark.parametrize(
    ("path", "question", "failure", "body"),
    [
        *((PREDICTIONS, "Question", "Failure", body) for body in ({"jsonData": {"age": 1}}, {"more": 1}, {})),
        (PREDICTIONS, "Question", "Failure", {"data": {"ndarray": [[1]]}}),
        *((INFER, "InferenceRequest", "InferenceFailure", body) for body in ({"inputs": []}, {"more": 1}, {})),
        (INFER, "InferenceRequest", "InferenceFailure", {"inputs": [{"name": "age", "data": [1]}]}),
    ],
)
def test_what_the_server_refuses_does_not_fit_it(
    server: Running, document: dict[str, Any], path: str, question: str, failure: str, body: Any
) -> None:
    answer = server.post(body, path)
    assert answer.status_code == 400
    _check(document, failure, answer.json())
    with pytest.raises(jsonschema.ValidationError):
        _check(document, question, body)


def test_its_paths_are_there_and_its_references_lead_somewhere(server: Running, document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for path, item in document["paths"].items():
        assert server.client.request(next(iter(item)).upper(), path).status_code in (200, 415)
    for reference in _references(document):
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    assert server.client.get("/seldon.json").json() == document


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for child in node.values() for found in _references(child)]
    return [found for child in node for found in _references(child)] if isinstance(node, list) else []
