"""Seldon's REST protocol: what a request says, what an answer looks like.

Source: the SeldonMessage, DefaultData, Tensor, Meta, Status and Feedback messages of
`prediction.proto` in Seldon Core, in their JSON form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

import orjson

from prefect_mlops.deployments.server._errors import RequestRefused, bad_data, shown
from prefect_mlops.deployments.server._signature import Row, Signature

MAX_ROWS = 10_000
MAX_ID_CHARACTERS = 200
_MESSAGE = frozenset({"data", "jsonData", "meta"})
_OTHER_PAYLOADS = frozenset({"strData", "binData", "customData"})
_FEEDBACK = frozenset({"request", "response", "reward", "truth"})

Form = Literal["ndarray", "tensor"]


@dataclass(frozen=True, slots=True)
class Question:
    """A request for predictions: rows in the signature's order, ready for the model."""

    rows: list[Row]
    form: Form
    puid: str | None
    tags: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody says about an earlier prediction."""

    request_id: str
    reward: float | None
    truth: Any


def question(body: bytes, signature: Signature) -> Question:
    """Read a request for predictions.

    Raises:
        RequestRefused: If it breaks the protocol or the signature, with a sentence that says where.
    """
    message = _object(parsed(body), "the body")
    _only(message, _MESSAGE, "the body")
    if ("data" in message) == ("jsonData" in message):
        raise bad_data("the body must hold either data or jsonData")
    puid, tags = _meta(message.get("meta"))
    if "data" in message:
        rows, form = _data(message["data"], signature)
    else:
        rows, form = _json_rows(message["jsonData"], signature), "tensor"
    return Question([signature.coerced(row, number) for number, row in enumerate(rows)], form, puid, tags)


def feedback(body: bytes) -> Feedback:
    """Read feedback; `response.meta.puid`, else `request.meta.puid`, names the prediction that it is about.

    The header `x-request-id` does not: a gateway gives the feedback itself an id there.

    Raises:
        RequestRefused: If it breaks the protocol, says nothing, or does not say about which prediction.
    """
    message = _object(parsed(body), "the body")
    _only(message, _FEEDBACK, "the body")
    puid = _puid_of(message, "response") or _puid_of(message, "request")
    if puid is None:
        raise bad_data("feedback must name its prediction: put meta.puid of the answer into response.meta.puid")
    reward, truth = message.get("reward"), message.get("truth")
    if reward is None and truth is None:
        raise bad_data("feedback must hold a reward or a truth, got neither")
    if reward is not None and (type(reward) not in (int, float)):
        raise bad_data(f"reward must be a number, got {shown(reward)}")
    if truth is not None:
        _shallow(_object(truth, "truth"), "truth")
    return Feedback(puid, None if reward is None else float(reward), truth)


def answer(rows: list[Row], names: list[str], form: Form, puid: str, tags: dict[str, Any]) -> bytes:
    """An answer in the form of its request, as Seldon's wrapper gives it; only numbers go into a tensor."""
    data: dict[str, Any] = {"names": names}
    if form == "tensor" and type(rows[0][0]) in (int, float):
        data["tensor"] = {"shape": [len(rows), len(names)], "values": [value for row in rows for value in row]}
    else:
        data["ndarray"] = rows
    return orjson.dumps({"data": data, "meta": {"puid": puid, "tags": tags}})


def failure(status: int, reason: str, info: str) -> bytes:
    """An answer that says why there is no prediction."""
    return orjson.dumps({"status": {"status": "FAILURE", "code": status, "info": info, "reason": reason}})


def parsed(body: bytes) -> Any:
    """The JSON document in `body`.

    Raises:
        RequestRefused: If it is not one, is not UTF-8, or says a key of an object twice.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_data(f"the body is not JSON: {error}") from error
    if body.count(b":") != _members(document):
        _refuse_duplicates(body)
    return document


def valid_id(text: str) -> bool:
    """Whether `text` can be an id: 1 to 200 visible ASCII characters."""
    return 0 < len(text) <= MAX_ID_CHARACTERS and text.isascii() and text.isprintable() and " " not in text


def _members(document: Any) -> int:
    """How many members the objects of a document have; colons beyond them are in strings or in duplicates.

    May count too few, where objects stand behind plain values in an array, and never too many.
    """
    count, todo = 0, [document]
    while todo:
        node = todo.pop()
        if type(node) is dict:
            count += len(node)
            todo.extend(node.values())
        elif type(node) is list and node and type(node[0]) in (dict, list):
            todo.extend(node)
    return count


def _refuse_duplicates(body: bytes) -> None:
    try:
        json.loads(body, object_pairs_hook=_unique, parse_int=float)
    except RecursionError as error:
        raise bad_data("the body is not JSON that can be read: it is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise bad_data(f"each key of an object must be there once, got {shown(key)} twice")
        seen.add(key)


def _data(data: Any, signature: Signature) -> tuple[list[list[Any]], Form]:
    data = _object(data, "data")
    _only(data, frozenset({"names", "ndarray", "tensor"}), "data")
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
                f"each row must have {width} values ({_some(signature.names)}), got {len(row)} in row {number}"
            )
    names = data.get("names")
    if names is None or names in ([], signature.names):
        return rows, form
    order = _order(names, signature)
    return [[row[at] for at in order] for row in rows], form


def _ndarray(value: Any) -> list[list[Any]]:
    if type(value) is not list:
        raise bad_data(f"ndarray must be an array of rows, got {shown(value)}")
    return _counted(cast("list[Any]", value), len(cast("list[Any]", value)))


def _tensor(value: Any) -> list[list[Any]]:
    tensor = _object(value, "tensor")
    _only(tensor, frozenset({"shape", "values"}), "tensor")
    shape, values = tensor.get("shape"), tensor.get("values")
    if type(shape) is not list or len(shape) != 2 or any(type(n) is not int or n < 0 for n in shape):
        raise bad_data(f"shape must be two whole numbers, rows and columns, got {_short_json(shape)}")
    if type(values) is not list:
        raise bad_data(f"values of tensor must be an array, got {shown(values)}")
    rows, columns = cast("list[int]", shape)
    flat = cast("list[Any]", values)
    if rows * columns != len(flat):
        raise bad_data(
            f"a tensor of shape {_short_json(shape)} must have {shown(rows * columns)} values, got {len(flat)}"
        )
    _counted(flat, rows)
    return [flat[row * columns : (row + 1) * columns] for row in range(rows)]


def _json_rows(value: Any, signature: Signature) -> list[list[Any]]:
    items = cast("list[Any]", value if type(value) is list else [value])
    _counted(items, len(items))
    return [_json_row(item, number, signature) for number, item in enumerate(items)]


def _json_row(item: Any, number: int, signature: Signature) -> list[Any]:
    names = signature.names
    if type(item) is not dict:
        raise bad_data(f"jsonData must be an object of fields, or an array of them, got {shown(item)} in row {number}")
    row = cast("dict[str, Any]", item)
    if len(row) == len(names):
        try:
            return [row[name] for name in names]
        except KeyError:
            pass
    _check_names(list(row), signature, f" in row {number}")
    raise AssertionError("unreachable: names are of equal number and unique")


def _order(names: Any, signature: Signature) -> list[int]:
    if type(names) is not list or not all(type(name) is str for name in cast("list[Any]", names)):
        raise bad_data(f"names must be an array of strings, got {_short_json(names)}")
    names = cast("list[str]", names)
    if len(names) != len(signature.names) or set(names) != set(signature.names):
        _check_names(names, signature, "")
    return [names.index(name) for name in signature.names]


def _check_names(names: list[str], signature: Signature, where: str) -> NoReturn:
    unknown = [name for name in dict.fromkeys(names) if name not in signature.names]
    if unknown:
        raise bad_data(f"unknown field {_some(unknown)}{where}; the model takes {_some(signature.names)}")
    missing = [name for name in signature.names if name not in names]
    if missing:
        raise bad_data(f"missing field {_some(missing)}{where}")
    twice = [name for name in signature.names if names.count(name) > 1]
    raise bad_data(f"each field must be named once, got {_some(twice)} more than once{where}")


def _counted(items: list[Any], rows: int) -> list[Any]:
    if rows == 0:
        raise bad_data("there must be at least one row, got none")
    if rows > MAX_ROWS:
        raise RequestRefused(
            413, "TOO_MANY_ROWS", f"a request may have at most {MAX_ROWS} rows, got {rows}; send several"
        )
    return items


def _meta(value: Any) -> tuple[str | None, dict[str, Any]]:
    if value is None:
        return None, {}
    meta = _object(value, "meta")
    puid, tags = meta.get("puid"), meta.get("tags")
    if puid is not None and (type(puid) is not str or not valid_id(puid)):
        raise bad_data(f"meta.puid must be 1 to {MAX_ID_CHARACTERS} visible ASCII characters, got {shown(puid)}")
    return puid, {} if tags is None else _shallow(_object(tags, "meta.tags"), "meta.tags")


def _puid_of(message: dict[str, Any], part: str) -> str | None:
    value = message.get(part)
    return None if value is None else _meta(_object(value, part).get("meta"))[0]


def _object(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise bad_data(f"{what} must be an object, got {shown(value)}")
    return cast("dict[str, Any]", value)


def _shallow(value: dict[str, Any], what: str) -> dict[str, Any]:
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise bad_data(f"{what} is nested too deeply") from error
    return value


def _only(value: dict[str, Any], known: frozenset[str], what: str) -> None:
    unknown = [key for key in value if key not in known]
    if not unknown:
        return
    if unknown[0] in _OTHER_PAYLOADS:
        raise bad_data(f"{unknown[0]} cannot be used with this model, send data or jsonData")
    raise bad_data(f"unknown field {_some(unknown)} in {what}; known are {', '.join(sorted(known))}")


def _some(names: list[str], most: int = 20) -> str:
    text = ", ".join(shown(name)[1:-1] for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def _short_json(value: Any) -> str:
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return shown(value)
    return text if len(text) <= 60 else text[:60] + "…"
