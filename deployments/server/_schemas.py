"""The schemas of the OpenAPI document of one model, made from its own signature."""

from __future__ import annotations

from typing import Any

from prefect_mlops.deployments.server._signature import EXACT_FLOAT, INT64, Field, Signature
from prefect_mlops.deployments.server._tensors import DATATYPES, accepted


def schemas(signature: Signature) -> dict[str, Any]:
    """Every schema that the paths refer to, by name."""
    width = len(signature.inputs)
    fields = {field.name: _field(field) for field in signature.inputs}
    row = {"type": "array", "prefixItems": list(fields.values()), "minItems": width, "maxItems": width}
    named = {"type": "object", "properties": fields, "required": signature.names, "additionalProperties": False}
    return {
        "Row": {**row, "description": "One value per field, in the order of `names`; shown in the signature's order."},
        "Fields": named,
        "Question": _question(signature),
        "Answer": _answer(signature),
        "Failure": _closed({"status": _closed({"status": TEXT, "code": _WHOLE, "info": TEXT, "reason": TEXT})}),
        "Feedback": _feedback(),
        "Meta": _META,
        "InferenceRequest": _inference_request(signature),
        "InferenceAnswer": _inference_answer(signature),
        "InferenceFailure": _closed({"error": TEXT}),
        "Parameters": _PARAMETERS,
    }


def _question(signature: Signature) -> dict[str, Any]:
    rows = {"type": "array", "items": ref("Row"), "minItems": 1}
    names = {"type": "array", "const": signature.names, "description": "May be left out."}
    ndarray = _closed({"names": names, "ndarray": rows}, required=["ndarray"])
    tensor = _closed({"names": names, "tensor": _tensor(len(signature.inputs))}, required=["tensor"])
    fields = {"oneOf": [ref("Fields"), {"type": "array", "items": ref("Fields"), "minItems": 1}]}
    meta = ref("Meta")
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
    return _closed({"data": data, "meta": ref("Meta")})


def _feedback() -> dict[str, Any]:
    about = {
        "type": "object",
        "required": ["meta"],
        "properties": {"meta": {"type": "object", "required": ["puid"], "properties": {"puid": TEXT}}},
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


def _inference_request(signature: Signature) -> dict[str, Any]:
    fields, width = signature.inputs, len(signature.inputs)
    each = [_input({"const": field.name}, [field.type], _field(field), 1) for field in fields]
    inputs: list[dict[str, Any]] = [{"type": "array", "items": {"oneOf": each}, "minItems": width, "maxItems": width}]
    types = list(dict.fromkeys(field.type for field in fields))
    if width > 1 and len({accepted(kind) for kind in types}) == 1:
        whole = _input(TEXT, types, {"anyOf": [_field(field) for field in fields]}, width)
        inputs.append({"type": "array", "items": whole, "minItems": 1, "maxItems": 1})
    output = _closed({"name": {"enum": signature.outputs_list}, "parameters": ref("Parameters")}, ["name"])
    members = {
        "id": {**TEXT, "description": "Your own id of the request."},
        "parameters": ref("Parameters"),
        "inputs": {"oneOf": inputs},
        "outputs": {"type": "array", "items": output, "description": "All where it is left out."},
    }
    return _closed(members, ["inputs"])


def _input(name: dict[str, Any], types: list[str], value: dict[str, Any], width: int) -> dict[str, Any]:
    rows = {"type": "array", "items": value}
    members = {
        "name": name,
        "shape": _shape(width),
        "datatype": {"enum": list(accepted(types[0])), "examples": [DATATYPES[types[0]]]},
        "parameters": ref("Parameters"),
        "data": {"oneOf": [rows, {"type": "array", "items": rows}]},
    }
    return _closed(members, ["name", "shape", "datatype", "data"])


def _inference_answer(signature: Signature) -> dict[str, Any]:
    output = {
        "name": {"enum": signature.outputs_list},
        "shape": _shape(1),
        "datatype": {"enum": list(DATATYPES.values())},
        "data": {"type": "array", "items": {"type": ["number", "string", "boolean"]}},
    }
    outputs = {"type": "array", "items": _closed(output), "minItems": 1, "maxItems": len(signature.outputs)}
    return _closed({"model_name": TEXT, "id": TEXT, "parameters": ref("Parameters"), "outputs": outputs})


def _shape(width: int) -> dict[str, Any]:
    return {
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": 1}, {"const": width}],
        "minItems": 1 if width == 1 else 2,
        "maxItems": 2,
    }


def _tensor(width: int) -> dict[str, Any]:
    shape = {**_shape(width), "minItems": 2}
    return _closed({"shape": shape, "values": {"type": "array", "items": {"type": ["number", "null"]}}})


def _closed(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def ref(name: str) -> dict[str, str]:
    """A reference to the schema `name`."""
    return {"$ref": f"#/components/schemas/{name}"}


TEXT = {"type": "string"}
_WHOLE = {"type": "integer"}
_META = {
    "type": "object",
    "properties": {"puid": {**TEXT, "description": "In answers the request's id."}, "tags": {"type": "object"}},
}
_PARAMETERS = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    "properties": {"content_type": {"enum": ["np", "pd", "str", None]}},
    "description": "In answers `request_id`, `release` and `model`.",
}
