"""What the operator's webhook refuses, in its own words; much that is wrong it lets through."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.cluster.operator import naming
from tests.cluster.operator.defaults import units
from tests.cluster.operator.naming import Json

Fault = tuple[str, str, str]
_KAFKA = {"KAFKA_BROKER", "KAFKA_INPUT_TOPIC", "KAFKA_OUTPUT_TOPIC"}
_KAFKA_SAYS = "For kafka please supply svcOrchSpec envs KAFKA_BROKER, KAFKA_INPUT_TOPIC, KAFKA_OUTPUT_TOPIC"
_NO_METHODS = (
    "Predictive Unit has no implementation methods defined. Change to a known type or add what methods it defines"
)
_CHOICES = {
    "protocol": {"seldon", "tensorflow", "kfserving", "v2"},
    "transport": {"rest", "grpc"},
    "serverType": {"rpc", "kafka"},
}


def refusal(sdep: Json) -> Json | None:
    """The answer that refuses `sdep`, a `Status`, or None where it is let through."""
    spec = sdep.get("spec") or {}
    faults = list(dict.fromkeys(_faults(spec)))
    if not faults:
        return None
    causes = [
        {"reason": "FieldValueInvalid", "field": field, "message": f"Invalid value: {json.dumps(value)}: {said}"}
        for field, value, said in faults
    ]
    each = [f"{one['field']}: {one['message']}" for one in causes]
    listed = each[0] if len(each) == 1 else f"[{', '.join(each)}]"
    name = spec.get("name", "")  # of the spec, where nobody writes it
    group, kind = "machinelearing.seldon.io", "SeldonDeployment"
    return {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": f"{kind}.{group} {json.dumps(name)} is invalid: {listed}",
        "details": {"name": name, "group": group, "kind": kind, "causes": causes},
    }


def _faults(spec: Json) -> Iterator[Fault]:
    predictors = spec.get("predictors") or []
    for key, allowed in _CHOICES.items():
        if spec.get(key) and spec[key] not in allowed:
            yield "spec", spec[key], f"Invalid {key}"
    yield from _kafka(spec, predictors)
    if len(predictors) == 1 and predictors[0].get("shadow"):
        yield _at(0), predictors[0]["name"], "Shadow can not exist as only predictor"
    yield from _service_names(predictors)
    if not predictors:
        yield "spec", spec.get("transport", ""), "Graph contains no predictors"
    yield from _graphs(predictors)
    yield from _transports(spec, predictors)
    yield from _traffic(predictors)


def _at(number: int) -> str:
    return f"spec.predictors[{number}]"


def _kafka(spec: Json, predictors: list[Json]) -> Iterator[Fault]:
    for number, one in enumerate(predictors):
        named = [env["name"] for env in (one.get("svcOrchSpec") or {}).get("env") or []]
        if spec.get("serverType") == "kafka" and sum(name in _KAFKA for name in named) < 3:
            yield _at(number), one["name"], _KAFKA_SAYS


def _service_names(predictors: list[Json]) -> Iterator[Fault]:
    seen: set[str] = set()
    for number, one in enumerate(predictors):
        name = (one.get("annotations") or {}).get(naming.SERVICE_NAME)
        if name in seen:
            said = f"Found duplicate service name in {naming.SERVICE_NAME} with value {name}"
            yield _at(number), one["name"], said
        if name is not None:
            seen.add(name)


def _graphs(predictors: list[Json]) -> Iterator[Fault]:
    seen: set[str] = set()
    for number, one in enumerate(predictors):
        alone = naming.NO_ENGINE in (one.get("annotations") or {})
        if alone and len(list(units(one["graph"]))) > 1:
            yield _at(number), one["name"], "Running without engine only valid for single element graphs"
        if one["name"] in seen:
            yield _at(number), one["name"], "Duplicate predictor name"
        seen.add(one["name"])
        yield from _unit(one, one["graph"], f"{_at(number)}.graph")


def _unit(predictor: Json, unit: Json, where: str) -> Iterator[Fault]:
    components = predictor.get("componentSpecs") or []
    named = {one["name"] for component in components for one in naming.containers(component)}
    if unit.get("implementation") in {None, "UNKNOWN_IMPLEMENTATION"}:
        if unit["name"] not in named:
            yield where, unit["name"], "Can't find container for Predictive Unit"
        if unit.get("type") == "UNKNOWN_TYPE" and not unit.get("methods"):
            yield where, unit["name"], _NO_METHODS
    if unit.get("logger") is not None and not unit["logger"].get("mode"):
        yield where, "", "No logger mode specified"
    for number, child in enumerate(unit.get("children") or []):
        yield from _unit(predictor, child, f"{where}[{number}]")


def _transports(spec: Json, predictors: list[Json]) -> Iterator[Fault]:
    every = [unit for one in predictors for unit in units(one["graph"])]
    found = {(unit.get("endpoint") or {}).get("type") for unit in every} - {None, ""}
    if len(found) > 1:
        said = "Multiple endpoint.types found - can only have 1 type in graph. Please use spec.transport"
        yield "spec", "", said
    elif found and spec.get("transport") and found != {spec["transport"].upper()}:
        said = "Mixed transport types found. Remove graph endpoint.types if transport set at deployment level"
        yield "spec", "", said


def _traffic(predictors: list[Json]) -> Iterator[Fault]:
    shadows = [one for one in predictors if one.get("shadow")]
    for number, one in enumerate(shadows):
        if number:
            yield "spec", one["name"], "Multiple shadows are not allowed"
        if not 0 <= (one.get("traffic") or 0) <= 100:
            said = "shadow traffic is illegal, the traffic number should be between [0, 100]"
            yield "spec", one["name"], said
    total = sum(one.get("traffic") or 0 for one in predictors if not one.get("shadow"))
    if total != 100 and len(predictors) - len(shadows) > 1:
        yield "spec", predictors[0]["name"], "Traffic must sum to 100 for multiple predictors"
    if 0 < total < 100 and len(predictors) == 1:
        yield "spec", predictors[0]["name"], "Traffic must sum be 100 for a single predictor when set"
