"""A model's signature: the fields that it takes and what it answers, as `signature.json` states them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from prefect_mlops.deployments.server._errors import RequestRefused, StartRefused, bad_data, shown

TYPES: dict[str, type] = {"integer": int, "number": float, "string": str, "boolean": bool}
KINDS = ("probabilities", "values")
INT64 = 2**63
EXACT_FLOAT = 2**53
_ARTICLE = {"integer": "an integer", "number": "a number", "string": "a string", "boolean": "true or false"}

Row = list[Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One column of the model's input."""

    name: str
    type: str
    nullable: bool
    example: Any

    @property
    def limit(self) -> int:
        """Integers lie in [-limit, limit). A nullable column is float64, exact only up to 2**53."""
        return EXACT_FLOAT if self.nullable else INT64

    def coerced(self, value: Any, row: int) -> Any:
        """`value` as the model gets it.

        Raises:
            RequestRefused: If it is not of this field's type; the sentence names field, value and row.
        """
        kind = type(value)
        if value is None:
            if self.nullable:
                return None
            raise bad_data(f"{self.name} must be {_ARTICLE[self.type]}, got null in row {row}")
        if self.type == "number" and kind is int:
            return float(value)
        if self.type == "integer" and kind is float and value.is_integer():
            value, kind = int(value), int
        if kind is not TYPES[self.type]:
            raise bad_data(f"{self.name} must be {_ARTICLE[self.type]}, got {shown(value)} in row {row}")
        if kind is int and not -self.limit <= value < self.limit:
            power = self.limit.bit_length() - 1
            raise bad_data(f"{self.name} must be from -2^{power} to below 2^{power}, got {shown(value)} in row {row}")
        return value


@dataclass(frozen=True)
class Signature:
    """The fields in the order in which the model takes them, and the names of what it answers."""

    inputs: tuple[Field, ...]
    kind: str
    outputs: tuple[str, ...]

    @classmethod
    def parse(cls, data: bytes) -> Signature:
        """Read `signature.json`.

        Raises:
            StartRefused: If it is not a signature of format 1.
        """
        try:
            document = orjson.loads(data)
            _expect(document["format"] == 1, f"format must be 1, got {shown(document['format'])}")
            fields = tuple(_field(item) for item in document["inputs"])
            kind, names = document["output"]["kind"], tuple(document["output"]["names"])
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise StartRefused(f"signature.json is not a signature: {type(error).__name__} {error}") from error
        _expect(len(fields) > 0, "inputs must name at least one field, got none")
        _expect(len({field.name for field in fields}) == len(fields), "each field of inputs must have its own name")
        _expect(kind in KINDS, f"output kind must be one of {', '.join(KINDS)}, got {shown(kind)}")
        _expect(len(names) > 0 and all(isinstance(name, str) for name in names), "output names must be strings")
        return cls(fields, kind, names)

    @cached_property
    def names(self) -> list[str]:
        """The names of the input fields, in order."""
        return [field.name for field in self.inputs]

    @cached_property
    def outputs_list(self) -> list[str]:
        """The names of the outputs, as JSON takes them."""
        return list(self.outputs)

    @cached_property
    def example(self) -> Row:
        """One row that the model answers."""
        return [field.example for field in self.inputs]

    @cached_property
    def _exact(self) -> tuple[type, ...]:
        return tuple(TYPES[field.type] for field in self.inputs)

    @cached_property
    def _integers(self) -> tuple[tuple[int, int], ...]:
        return tuple((index, field.limit) for index, field in enumerate(self.inputs) if field.type == "integer")

    def coerced(self, row: Sequence[Any], number: int) -> Row:
        """`row`, in the signature's order and of its length, as the model gets it.

        Raises:
            RequestRefused: If a value is not of its field's type.
        """
        if tuple(map(type, row)) == self._exact and all(-lim <= row[at] < lim for at, lim in self._integers):
            return list(row)
        return [field.coerced(value, number) for field, value in zip(self.inputs, row, strict=True)]


def _field(item: dict[str, Any]) -> Field:
    name, kind, nullable, example = item["name"], item["type"], item.get("nullable", False), item["example"]
    _expect(isinstance(name, str) and name != "", f"a field's name must be a non-empty string, got {shown(name)}")
    _expect(kind in TYPES, f"type of {name} must be one of {', '.join(TYPES)}, got {shown(kind)}")
    _expect(isinstance(nullable, bool), f"nullable of {name} must be true or false, got {shown(nullable)}")
    field = Field(name, kind, nullable, example)
    try:
        field.coerced(example, 0)
    except RequestRefused as error:
        raise StartRefused(f"signature.json: the example of {name} does not fit: {error}") from error
    return field


def _expect(fact: bool, rule: str) -> None:
    if not fact:
        raise StartRefused(f"signature.json: {rule}")
