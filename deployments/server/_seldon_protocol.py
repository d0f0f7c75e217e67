"""Seldon's REST protocol: what a request says, what an answer looks like.

Source: the SeldonMessage, DefaultData, Tensor, Meta, Status and Feedback messages of
`prediction.proto` in Seldon Core, in their JSON form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import orjson

from prefect_mlops.deployments.server._body import (
    Question,
    an_id,
    an_object,
    counted,
    only,
    ordered,
    parsed,
    refuse_names,
    shallow,
    short_json,
    some,
)
from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._errors import bad_data, shown
from prefect_mlops.deployments.server._signature import Row, Signature

PREDICTIONS, FEEDBACK = "/api/v1.0/predictions", "/api/v1.0/feedback"
_MESSAGE = frozenset({"data", "jsonData", "meta"})
_OTHER_PAYLOADS = ("strData", "binData", "customData")
_FEEDBACK = frozenset({"request", "response", "reward", "truth"})

Form = Literal["ndarray", "tensor"]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody says about an earlier prediction."""

    request_id: str
    reward: float | None
    truth: Any


class SeldonProtocol:
    """Requests for one model in Seldon's protocol, and their answers."""

    def __init__(self, config: Config, signature: Signature) -> None:
        self._config, self._signature = config, signature
        self._tags = {"release": config.release, "model": config.model}

    def question(self, body: bytes) -> Question:
        """Read a request for predictions.

        Raises:
            RequestRefused: If it breaks the protocol or the signature, with a sentence that says where.
        """
        message = an_object(parsed(body), "the body")
        for key in _OTHER_PAYLOADS:
            if key in message:
                raise bad_data(f"{key} cannot be used with this model, send data or jsonData")
        only(message, _MESSAGE, "the body")
        if ("data" in message) == ("jsonData" in message):
            raise bad_data("the body must hold either data or jsonData")
        puid, tags = _meta(message.get("meta"))
        if "data" in message:
            rows, form = _data(message["data"], self._signature)
        else:
            rows, form = _json_rows(message["jsonData"], self._signature), "tensor"
        coerced = [self._signature.coerced(row, number) for number, row in enumerate(rows)]
        return Question(coerced, puid, partial(self._answer, form, tags))

    def metadata(self) -> dict[str, Any]:
        """What Seldon calls a model's metadata."""
        config, signature = self._config, self._signature
        inputs = {"names": signature.names, "shape": [len(signature.names)]}
        outputs = {"names": signature.outputs_list, "shape": [len(signature.outputs)]}
        return {
            "name": config.service,
            "versions": [config.release],
            "platform": "prefect-mlops",
            "inputs": [{"messagetype": "ndarray", "schema": inputs}],
            "outputs": [{"messagetype": "ndarray", "schema": outputs}],
            "custom": {**self._tags, "output": signature.kind},
        }

    def _answer(self, form: Form, tags: dict[str, Any], rows: list[Row], request_id: str) -> dict[str, Any]:
        """An answer in the form of its request, as Seldon's wrapper gives it; only numbers go into a tensor."""
        names = self._signature.outputs_list
        data: dict[str, Any] = {"names": names}
        if form == "tensor" and type(rows[0][0]) in (int, float):
            data["tensor"] = {"shape": [len(rows), len(names)], "values": [value for row in rows for value in row]}
        else:
            data["ndarray"] = rows
        return {"data": data, "meta": {"puid": request_id, "tags": {**tags, **self._tags}}}


def feedback(body: bytes) -> Feedback:
    """Read feedback; `response.meta.puid`, else `request.meta.puid`, names the prediction that it is about.

    The header `x-request-id` does not: a gateway gives the feedback itself an id there.

    Raises:
        RequestRefused: If it breaks the protocol, says nothing, or does not say about which prediction.
    """
    message = an_object(parsed(body), "the body")
    only(message, _FEEDBACK, "the body")
    puid = _puid_of(message, "response") or _puid_of(message, "request")
    if puid is None:
        raise bad_data("feedback must name its prediction: put meta.puid of the answer into response.meta.puid")
    reward, truth = message.get("reward"), message.get("truth")
    if reward is None and truth is None:
        raise bad_data("feedback must hold a reward or a truth, got neither")
    if reward is not None and (type(reward) not in (int, float)):
        raise bad_data(f"reward must be a number, got {shown(reward)}")
    if truth is not None:
        shallow(an_object(truth, "truth"), "truth")
    return Feedback(puid, None if reward is None else float(reward), truth)


def failure(status: int, reason: str, info: str) -> bytes:
    """An answer that says why there is no prediction."""
    return orjson.dumps({"status": {"status": "FAILURE", "code": status, "info": info, "reason": reason}})


def _data(data: Any, signature: Signature) -> tuple[list[list[Any]], Form]:
    data = an_object(data, "data")
    only(data, frozenset({"names", "ndarray", "tensor"}), "data")
    if ("ndarray" in data) == ("tensor" in data):
        raise bad_data("data must hold either ndarray or tensor")
    form: Form = "ndarray" if "ndarray" in data else "tensor"
    rows = _ndarray(data["ndarray"]) if form == "ndarray" else _tensor(data["tensor"])
    width = len(signature.inputs)
    for number, row in enumerate(rows):
        if type(row) is not list:
            raise bad_data(f"{form} must hold one array per row, got {shown(row)} in row {number}")
        if len(row) != width:
            raise bad_data(
                f"each row must have {width} values ({some(signature.names)}), got {len(row)} in row {number}"
            )
    names = data.get("names")
    if names is None or names in ([], signature.names):
        return rows, form
    if type(names) is not list or not all(type(name) is str for name in cast("list[Any]", names)):
        raise bad_data(f"names must be an array of strings, got {short_json(names)}")
    order = ordered(cast("list[str]", names), signature)
    return [[row[at] for at in order] for row in rows], form


def _ndarray(value: Any) -> list[list[Any]]:
    if type(value) is not list:
        raise bad_data(f"ndarray must be an array of rows, got {shown(value)}")
    return counted(cast("list[Any]", value), len(cast("list[Any]", value)))


def _tensor(value: Any) -> list[list[Any]]:
    tensor = an_object(value, "tensor")
    only(tensor, frozenset({"shape", "values"}), "tensor")
    shape, values = tensor.get("shape"), tensor.get("values")
    if type(shape) is not list or len(shape) != 2 or any(type(n) is not int or n < 0 for n in shape):
        raise bad_data(f"shape must be two whole numbers, rows and columns, got {short_json(shape)}")
    if type(values) is not list:
        raise bad_data(f"values of tensor must be an array, got {shown(values)}")
    rows, columns = cast("list[int]", shape)
    flat = cast("list[Any]", values)
    if rows * columns != len(flat):
        raise bad_data(
            f"a tensor of shape {short_json(shape)} must have {shown(rows * columns)} values, got {len(flat)}"
        )
    counted(flat, rows)
    return [flat[row * columns : (row + 1) * columns] for row in range(rows)]


def _json_rows(value: Any, signature: Signature) -> list[list[Any]]:
    items = cast("list[Any]", value if type(value) is list else [value])
    counted(items, len(items))
    return [_json_row(item, number, signature) for number, item in enumerate(items)]


def _json_row(item: Any, number: int, signature: Signature) -> list[Any]:
    names = signature.names
    if type(item) is not dict:
        raise bad_data(f"jsonData must be an object of fields, or an array of them, got {shown(item)} in row {number}")
    row = cast("dict[str, Any]", item)
    if len(row) != len(names) or row.keys() != set(names):
        refuse_names(list(row), signature, f" in row {number}")
    return [row[name] for name in names]


def _meta(value: Any) -> tuple[str | None, dict[str, Any]]:
    if value is None:
        return None, {}
    meta = an_object(value, "meta")
    puid, tags = an_id(meta.get("puid"), "meta.puid"), meta.get("tags")
    return puid, {} if tags is None else shallow(an_object(tags, "meta.tags"), "meta.tags")


def _puid_of(message: dict[str, Any], part: str) -> str | None:
    value = message.get(part)
    return None if value is None else _meta(an_object(value, part).get("meta"))[0]
