"""Tensors of the Open Inference Protocol: columns of a request, and of an answer.

Data may be flat or one array per row. `null` stands for a missing value where a field may be null;
the protocol knows none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import orjson

from prefect_mlops.deployments.server._body import an_array, counted, short_json, some
from prefect_mlops.deployments.server._errors import bad_data, shown
from prefect_mlops.deployments.server._signature import Field

DATATYPES = {"integer": "INT64", "number": "FP64", "string": "BYTES", "boolean": "BOOL"}
"""What the metadata says of a field of each type."""

_SIGNED = {f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1)) for bits in (8, 16, 32, 64)}
_INTEGERS = _SIGNED | {f"UINT{bits}": (0, 2**bits) for bits in (8, 16, 32, 64)}
_NUMBERS = (*_INTEGERS, "FP16", "FP32", "FP64", "BF16")
_TAKEN = {"integer": _NUMBERS, "number": _NUMBERS, "string": ("BYTES",), "boolean": ("BOOL",)}
_KNOWN = (*_NUMBERS, "BYTES", "BOOL")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a request: its values, row by row."""

    name: str
    datatype: str
    rows: int
    columns: int
    values: list[Any]

    def column(self, index: int, field: Field) -> list[Any]:
        """The values of one column, which are for `field`.

        Raises:
            RequestRefused: If they are not of the tensor's datatype, or the field does not take it.
        """
        if self.datatype not in accepted(field.type):
            takes = "a datatype of numbers" if field.type in ("integer", "number") else DATATYPES[field.type]
            raise bad_data(f"{field.name} takes {takes}, got {self.datatype}")
        column = self.values[index :: self.columns]
        if self.datatype in _INTEGERS:
            _check_integers(column, field.name, self.datatype)
        return column


def accepted(kind: str) -> tuple[str, ...]:
    """The datatypes that a field of the type `kind` takes."""
    return _TAKEN[kind]


def tensor(item: dict[str, Any]) -> Tensor:
    """Read one of `inputs`, whose members and name were checked.

    Raises:
        RequestRefused: If datatype, shape and data do not go together.
    """
    name, datatype, shape = some([item["name"]]), item.get("datatype"), item.get("shape")
    if type(datatype) is not str or datatype not in _KNOWN:
        raise bad_data(f"datatype of {name} must be one of {', '.join(_KNOWN)}, got {shown(datatype)}")
    sizes = cast("list[Any]", shape) if type(shape) is list else []
    if len(sizes) not in (1, 2) or any(type(size) is not int or size < 0 for size in sizes):
        raise bad_data(f"shape of {name} must be one or two whole numbers, rows and columns, got {short_json(shape)}")
    rows, columns = sizes[0], columns_of(item)
    values = _flat(an_array(item.get("data"), f"data of {name}"), name, columns)
    if rows * columns != len(values):
        size = shown(rows * columns)
        raise bad_data(f"{name}, a tensor of shape {short_json(shape)}, must have {size} values, got {len(values)}")
    return Tensor(name, datatype, rows, columns, counted(values, rows))


def columns_of(item: dict[str, Any]) -> Any:
    """How many columns an input says that it has, before anything of it was checked."""
    shape = item.get("shape")
    return cast("list[Any]", shape)[1] if type(shape) is list and len(cast("list[Any]", shape)) == 2 else 1


def output(name: str, column: list[Any]) -> dict[str, Any]:
    """One of `outputs`."""
    datatype = datatype_of(column)
    if datatype == "BYTES":
        column = [value if type(value) is str else orjson.dumps(value).decode() for value in column]
    return {"name": name, "shape": [len(column), 1], "datatype": datatype, "data": column}


def datatype_of(column: list[Any]) -> str:
    """Of which datatype all values of a column are; only text can hold numbers beside others."""
    kinds = set(map(type, column))
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "FP64" if kinds <= {int, float} else "BYTES"


def _check_integers(column: list[Any], name: str, datatype: str) -> None:
    low, high = _INTEGERS[datatype]
    for row, value in enumerate(column):
        if type(value) is float or (type(value) is int and not low <= value < high):
            raise bad_data(f"{name} must be {datatype}, as its datatype says, got {shown(value)} in row {row}")


def _flat(data: list[Any], name: str, columns: int) -> list[Any]:
    if not data or type(data[0]) is not list:
        return data
    for number, row in enumerate(data):
        if type(row) is not list or len(cast("list[Any]", row)) != columns:
            rule = f"data of {name} must be flat, or one array of {shown(columns)} values per row"
            raise bad_data(f"{rule}, got {short_json(row)} in row {number}")
    return [value for row in data for value in row]
