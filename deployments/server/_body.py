"""What every protocol of this server shares: a body of JSON, and the sentences for what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import orjson

from prefect_mlops.deployments.server._errors import RequestRefused, bad_data, shown
from prefect_mlops.deployments.server._signature import Row, Signature

MAX_ROWS = 10_000
MAX_ID_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Question:
    """A request for predictions, in whatever protocol it came.

    Attributes:
        rows: In the signature's order, ready for the model.
        client_id: The caller's own id of the request, where the body has one.
        answer: Makes the document that goes back, of the model's rows and the request's id.
    """

    rows: list[Row]
    client_id: str | None
    answer: Callable[[list[Row], str], dict[str, Any]]


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


def an_id(value: Any, what: str) -> str | None:
    """`value` if it is an id or null; `what` names it in the refusal, as in all that follow."""
    if value is not None and (type(value) is not str or not valid_id(value)):
        raise bad_data(f"{what} must be 1 to {MAX_ID_CHARACTERS} visible ASCII characters, got {shown(value)}")
    return value


def an_object(value: Any, what: str) -> dict[str, Any]:
    """`value` if it is an object."""
    if type(value) is not dict:
        raise bad_data(f"{what} must be an object, got {shown(value)}")
    return cast("dict[str, Any]", value)


def an_array(value: Any, what: str) -> list[Any]:
    """`value` if it is an array."""
    if type(value) is not list:
        raise bad_data(f"{what} must be an array, got {shown(value)}")
    return cast("list[Any]", value)


def shallow(value: dict[str, Any], what: str) -> dict[str, Any]:
    """`value` if it can be written as JSON again."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise bad_data(f"{what} is nested too deeply") from error
    return value


def only(value: dict[str, Any], known: frozenset[str], what: str) -> None:
    """Refuse members that are not `known`."""
    unknown = [key for key in value if key not in known]
    if unknown:
        raise bad_data(f"unknown field {some(unknown)} in {what}; known are {', '.join(sorted(known))}")


def counted(items: list[Any], rows: int) -> list[Any]:
    """`items` if there are neither too few `rows` nor too many."""
    if rows == 0:
        raise bad_data("there must be at least one row, got none")
    if rows > MAX_ROWS:
        raise RequestRefused(
            413, "TOO_MANY_ROWS", f"a request may have at most {MAX_ROWS} rows, got {rows}; send several"
        )
    return items


def ordered(names: list[str], signature: Signature, where: str = "") -> list[int]:
    """Where in `names` each field of the signature stands; `where` ends the refusal if they are not its fields."""
    if len(names) != len(signature.names) or set(names) != set(signature.names):
        refuse_names(names, signature, where)
    return [names.index(name) for name in signature.names]


def refuse_names(names: list[str], signature: Signature, where: str) -> NoReturn:
    """Say how `names` are not the signature's fields."""
    unknown = [name for name in dict.fromkeys(names) if name not in signature.names]
    if unknown:
        raise bad_data(f"unknown field {some(unknown)}{where}; the model takes {some(signature.names)}")
    missing = [name for name in signature.names if name not in names]
    if missing:
        raise bad_data(f"missing field {some(missing)}{where}")
    twice = [name for name in signature.names if names.count(name) > 1]
    raise bad_data(f"each field must be named once, got {some(twice)} more than once{where}")


def some(names: list[str], most: int = 20) -> str:
    """`names` as a sentence shows them, and never too many."""
    text = ", ".join(shown(name)[1:-1] for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def short_json(value: Any) -> str:
    """`value` as a sentence shows it: JSON, and never long."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return shown(value)
    return text if len(text) <= 60 else text[:60] + "…"


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
