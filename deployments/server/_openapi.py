"""The OpenAPI document of one model, made from its own signature."""

from __future__ import annotations

from typing import Any

from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._signature import EXACT_FLOAT, INT64, Field, Signature

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
            "description": f"Model `{config.model}` of release `{config.release}`, in Seldon's REST protocol.",
        },
        "servers": [{"url": "."}],
        "paths": {
            "/api/v1.0/predictions": {"post": _predictions(signature)},
            "/api/v1.0/feedback": {"post": _feedback()},
            "/ready": {"get": _page("ready", "Which process serves which release.")},
            "/health/ping": {"get": _page("ping", "Whether the process answers.")},
            "/health/status": {"get": _page("status", "Whether the model answers.")},
            "/metadata": {"get": _page("metadata", "The model's name, versions, inputs and outputs.")},
        },
        "components": {"schemas": _schemas(signature), "headers": _headers()},
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
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Question"), "examples": examples}}},
        "responses": {
            "200": _response("One row of values per row of the request.", "Answer"),
            **{status: _response(text, "Failure") for status, text in _FAILURES.items()},
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
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Feedback")}}},
        "responses": {
            "200": {
                "description": "Recorded.",
                "headers": _header_refs(),
                "content": {JSON: {"schema": {"type": "object"}}},
            },
            **{status: _response(_FAILURES[status], "Failure") for status in ("400", "413", "415", "503")},
        },
    }


def _page(name: str, summary: str) -> dict[str, Any]:
    content = {JSON: {"schema": {}}}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "Yes.", "headers": _header_refs(), "content": content}},
    }


def _schemas(signature: Signature) -> dict[str, Any]:
    width = len(signature.inputs)
    fields = {field.name: _field(field) for field in signature.inputs}
    row = {"type": "array", "prefixItems": list(fields.values()), "minItems": width, "maxItems": width}
    named = {"type": "object", "properties": fields, "required": signature.names, "additionalProperties": False}
    return {
        "Row": {**row, "description": "One value per field, in the order of `names`; shown in the signature's order."},
        "Fields": named,
        "Question": _question(signature),
        "Answer": _answer(signature),
        "Failure": _closed({"status": _closed({"status": _TEXT, "code": _WHOLE, "info": _TEXT, "reason": _TEXT})}),
        "Feedback": _feedback_schema(),
        "Meta": _META,
    }


def _question(signature: Signature) -> dict[str, Any]:
    rows = {"type": "array", "items": _ref("Row"), "minItems": 1}
    names = {"type": "array", "const": signature.names, "description": "May be left out."}
    ndarray = _closed({"names": names, "ndarray": rows}, required=["ndarray"])
    tensor = _closed({"names": names, "tensor": _tensor(len(signature.inputs))}, required=["tensor"])
    fields = {"oneOf": [_ref("Fields"), {"type": "array", "items": _ref("Fields"), "minItems": 1}]}
    meta = _ref("Meta")
    forms = [ndarray] if any(field.type in ("string", "boolean") for field in signature.inputs) else [ndarray, tensor]
    data = _closed({"data": {"oneOf": forms}, "meta": meta}, required=["data"])
    return {"oneOf": [data, _closed({"jsonData": fields, "meta": meta}, required=["jsonData"])]}


def _answer(signature: Signature) -> dict[str, Any]:
    value = {"type": "number"} if signature.kind == "probabilities" else {"type": ["number", "string", "boolean"]}
    width = len(signature.outputs)
    row = {"type": "array", "items": value, "minItems": width, "maxItems": width}
    names = {"type": "array", "const": list(signature.outputs)}
    ndarray = _closed({"names": names, "ndarray": {"type": "array", "items": row}})
    data = {"oneOf": [ndarray, _closed({"names": names, "tensor": _tensor(width)})]}
    return _closed({"data": data, "meta": _ref("Meta")})


def _feedback_schema() -> dict[str, Any]:
    about = {
        "type": "object",
        "required": ["meta"],
        "properties": {"meta": {"type": "object", "required": ["puid"], "properties": {"puid": _TEXT}}},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["response"],
        "anyOf": [{"required": ["reward"]}, {"required": ["truth"]}],
        "properties": {
            "request": {"type": "object", "description": "The request of the prediction; not needed."},
            "response": {**about, "description": "The answer of the prediction, or only its `meta.puid`."},
            "reward": {"type": "number"},
            "truth": {"type": "object", "description": "What was right, such as `data.ndarray`."},
        },
    }


def _field(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": [field.type, "null"] if field.nullable else field.type,
        "examples": [field.example],
    }
    if field.type == "integer":
        limit = EXACT_FLOAT if field.nullable else INT64
        schema |= {"minimum": -limit, "maximum": limit - 1}
    return schema


def _tensor(width: int) -> dict[str, Any]:
    shape = {
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": 1}, {"const": width}],
        "minItems": 2,
        "maxItems": 2,
    }
    return _closed({"shape": shape, "values": {"type": "array", "items": {"type": ["number", "null"]}}})


def _response(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "headers": _header_refs(), "content": {JSON: {"schema": _ref(schema)}}}


def _headers() -> dict[str, Any]:
    return {
        "x-request-id": {"description": "Id of this request, under which it is recorded.", "schema": _TEXT},
        "x-release": {"description": "Digest of the release that answered.", "schema": _TEXT},
        "x-model-digest": {"description": "Digest of the model that answered.", "schema": _TEXT},
    }


def _header_refs() -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in _headers()}


def _closed(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT = {"type": "string"}
_WHOLE = {"type": "integer"}
_META = {
    "type": "object",
    "properties": {"puid": {**_TEXT, "description": "In answers the request's id."}, "tags": {"type": "object"}},
}
