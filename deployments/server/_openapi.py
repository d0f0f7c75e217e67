"""The OpenAPI document of one model, made from its own signature."""

from __future__ import annotations

from typing import Any

from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._schemas import TEXT, ref, schemas
from prefect_mlops.deployments.server._signature import Signature
from prefect_mlops.deployments.server._tensors import DATATYPES

JSON = "application/json"


def document(config: Config, signature: Signature) -> dict[str, Any]:
    """An OpenAPI 3.1 document whose examples are answered when they are sent as they stand.

    Its server address is relative, so it is right behind a gateway too.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": config.service,
            "version": config.release,
            "description": f"Model `{config.model}` of release `{config.release}`, "
            "in Seldon's REST protocol and in the Open Inference Protocol.",
        },
        "servers": [{"url": "."}],
        "paths": {
            "/api/v1.0/predictions": {"post": _predictions(signature)},
            "/api/v1.0/feedback": {"post": _feedback()},
            "/ready": {"get": _page("ready", "Which process serves which release.")},
            "/counters": {"get": _page("counters", "Predictions since this process started.")},
            "/health/ping": {"get": _page("ping", "Whether the process answers.")},
            "/health/status": {"get": _page("status", "Whether the model answers.")},
            "/metadata": {"get": _page("metadata", "The model's name, versions, inputs and outputs.")},
            **_inference_paths(config.service, signature),
        },
        "components": {"schemas": schemas(signature), "headers": _headers()},
    }


def _predictions(signature: Signature) -> dict[str, Any]:
    names, row = signature.names, signature.example
    examples = {
        "ndarray": {"summary": "Rows", "value": {"data": {"names": names, "ndarray": [row]}}},
        "jsonData": {"summary": "Named fields", "value": {"jsonData": dict(zip(names, row, strict=True))}},
    }
    return {
        "operationId": "predict",
        "summary": f"Predict {', '.join(signature.outputs)}",
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("Question"), "examples": examples}}},
        "responses": {
            "200": _response("One row of values per row of the request.", "Answer"),
            **_failures("Failure", *_FAILURES),
        },
    }


_FAILURES = {
    "400": "The body or a header is wrong; `info` says how.",
    "413": "The body is too long, or has too many rows.",
    "415": "The body is not JSON.",
    "500": "The model failed.",
    "503": "The prediction could not be recorded, so it is not given; try again.",
}


def _feedback() -> dict[str, Any]:
    return {
        "operationId": "feedback",
        "summary": "Say what the right answer was, or how good an answer was",
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("Feedback")}}},
        "responses": {
            "200": {
                "description": "Recorded.",
                "headers": _header_refs(),
                "content": {JSON: {"schema": {"type": "object"}}},
            },
            **_failures("Failure", "400", "413", "415", "503"),
        },
    }


def _inference_paths(service: str, signature: Signature) -> dict[str, Any]:
    model = f"/v2/models/{service}"
    return {
        f"{model}/infer": {"post": _inference(signature)},
        model: {"get": _page("model", "The model's inputs and outputs, as tensors.")},
        f"{model}/ready": {"get": _page("modelReady", "Whether the model answers.")},
        "/v2": {"get": _page("server", "The server's name and version.")},
        "/v2/health/live": {"get": _page("live", "Whether the process answers.")},
        "/v2/health/ready": {"get": _page("serverReady", "Whether the model answers.")},
    }


def _inference(signature: Signature) -> dict[str, Any]:
    inputs = [
        {"name": field.name, "shape": [1, 1], "datatype": DATATYPES[field.type], "data": [field.example]}
        for field in signature.inputs
    ]
    examples = {"columns": {"summary": "One tensor per field", "value": {"inputs": inputs}}}
    content = {JSON: {"schema": ref("InferenceRequest"), "examples": examples}}
    return {
        "operationId": "infer",
        "summary": f"Predict {', '.join(signature.outputs)}, one tensor each",
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": _response("One tensor per output, one value per row of the request.", "InferenceAnswer"),
            **_failures("InferenceFailure", *_FAILURES),
        },
    }


def _page(name: str, summary: str) -> dict[str, Any]:
    content = {JSON: {"schema": {}}}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "Yes.", "headers": _header_refs(), "content": content}},
    }


def _response(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "headers": _header_refs(), "content": {JSON: {"schema": ref(schema)}}}


def _failures(schema: str, *statuses: str) -> dict[str, Any]:
    return {status: _response(_FAILURES[status], schema) for status in statuses}


def _headers() -> dict[str, Any]:
    return {
        "x-request-id": {"description": "Id of this request, under which it is recorded.", "schema": TEXT},
        "x-release": {"description": "Digest of the release that answered.", "schema": TEXT},
        "x-model-digest": {"description": "Digest of the model that answered.", "schema": TEXT},
    }


def _header_refs() -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in _headers()}
