"""The Open Inference Protocol, version 2: one tensor per field in, one tensor per output back.

Source: `inference_rest.md` of https://github.com/kserve/open-inference-protocol, and the pandas codec
of Seldon's MLServer, whose clients send a data frame as one tensor of shape `[rows, 1]` per column.
"""

from __future__ import annotations

import importlib.metadata
from functools import partial
from typing import Any

import orjson

from prefect_mlops.deployments.server._body import Question, an_array, an_id, an_object, only, ordered, parsed, some
from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._errors import RequestRefused, bad_data, shown
from prefect_mlops.deployments.server._signature import Row, Signature
from prefect_mlops.deployments.server._tensors import DATATYPES, columns_of, datatype_of, output, tensor

ROOT = "/v2"
_MODELS = f"{ROOT}/models/"
_MESSAGE = frozenset({"id", "parameters", "inputs", "outputs"})
_INPUT = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT = frozenset({"name", "parameters"})
_CONTENT_TYPES = ("np", "pd", "str")  # of MLServer's, those that leave data as it stands; base64 would not


class OpenInference:
    """Requests for one model in the Open Inference Protocol, and their answers.

    Args:
        config: What is served; the service's name is the model's.
        signature: What the model takes.
        example: What it answers to its signature's example: the type of each output.
    """

    def __init__(self, config: Config, signature: Signature, example: Row) -> None:
        self._signature, self._example = signature, example
        self._name = config.service
        self._parameters = {"release": config.release, "model": config.model}

    def question(self, body: bytes) -> Question:
        """Read a request for predictions.

        Raises:
            RequestRefused: If it breaks the protocol or the signature, with a sentence that says where.
        """
        message = an_object(parsed(body), "the body")
        only(message, _MESSAGE, "the body")
        client_id = an_id(message.get("id"), "id")
        _check_parameters(message.get("parameters"), "the request")
        wanted = self._wanted(message.get("outputs"))
        columns = self._columns(_named(message.get("inputs"), _INPUT, "inputs"))
        rows = [self._signature.coerced(row, number) for number, row in enumerate(zip(*columns, strict=True))]
        return Question(rows, client_id, partial(self._answer, wanted, client_id))

    def pages(self) -> dict[str, dict[str, Any]]:
        """What is answered to GET, by path."""
        version = importlib.metadata.version("prefect-mlops")
        return {
            ROOT: {"name": "prefect-mlops", "version": version, "extensions": []},
            f"{ROOT}/health/live": {"live": True},
            f"{ROOT}/health/ready": {"live": True, "ready": True},  # the specification says `live`, KServe `ready`
            _MODELS + self._name: self._metadata(),
            f"{_MODELS}{self._name}/ready": {"name": self._name, "ready": True},
        }

    def refuse_other(self, path: str) -> None:
        """Refuse the path of another model.

        Raises:
            RequestRefused: If `path` is one; it names the model that there is.
        """
        name = path.removeprefix(_MODELS).partition("/")[0]
        if path.startswith(_MODELS) and name != self._name:
            raise RequestRefused(404, "NOT_FOUND", f"there is no model {shown(name)} here, there is {self._name}")

    def _metadata(self) -> dict[str, Any]:
        inputs = {field.name: DATATYPES[field.type] for field in self._signature.inputs}
        outputs = zip(self._signature.outputs, self._example, strict=True)
        return {
            "name": self._name,
            "platform": "prefect-mlops",
            "inputs": [{"name": name, "datatype": kind, "shape": [-1, 1]} for name, kind in inputs.items()],
            "outputs": [{"name": name, "datatype": datatype_of([one]), "shape": [-1, 1]} for name, one in outputs],
            "parameters": self._parameters,
        }

    def _wanted(self, outputs: Any) -> list[int]:
        """Places of the outputs that are asked for; all where none is."""
        names = self._signature.outputs_list
        wanted = [] if outputs is None else [item["name"] for item in _named(outputs, _OUTPUT, "outputs")]
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise bad_data(f"unknown output {some(unknown)}; the model answers {some(names)}")
        return [at for at, name in enumerate(names) if not wanted or name in wanted]

    def _columns(self, inputs: list[dict[str, Any]]) -> list[list[Any]]:
        """The values of each field, from a tensor of its name or from one that holds all in the signature's order."""
        fields = self._signature.inputs
        if len(inputs) == 1 < len(fields) == columns_of(inputs[0]):
            whole = tensor(inputs[0])
            return [whole.column(at, field) for at, field in enumerate(fields)]
        order = ordered([item["name"] for item in inputs], self._signature)
        tensors = [tensor(inputs[at]) for at in order]
        for one in tensors:
            if one.columns != 1:
                raise bad_data(f"shape of {one.name} must be [rows] or [rows, 1], got {shown(one.columns)} columns")
            if one.rows != tensors[0].rows:
                rows = f"{tensors[0].rows} of {tensors[0].name} and {one.rows} of {one.name}"
                raise bad_data(f"all inputs must have equally many rows, got {rows}")
        return [one.column(0, field) for one, field in zip(tensors, fields, strict=True)]

    def _answer(self, wanted: list[int], client_id: str | None, rows: list[Row], request_id: str) -> dict[str, Any]:
        names = self._signature.outputs
        return {
            "model_name": self._name,
            "id": client_id or request_id,
            "parameters": {"request_id": request_id, **self._parameters},
            "outputs": [output(names[at], [row[at] for row in rows]) for at in wanted],
        }


def infer(service: str) -> str:
    """Path of requests for predictions."""
    return f"{_MODELS}{service}/infer"


def failure(status: int, reason: str, info: str) -> bytes:
    """An answer that says why there is no prediction; the protocol has no place for `status` and `reason`."""
    return orjson.dumps({"error": info})


def _named(value: Any, known: frozenset[str], what: str) -> list[dict[str, Any]]:
    """The objects of the array `value`, each with a name and plain parameters."""
    items = [an_object(item, f"{what}[{at}]") for at, item in enumerate(an_array(value, what))]
    for at, item in enumerate(items):
        only(item, known, f"{what}[{at}]")
        if type(item.get("name")) is not str:
            raise bad_data(f"name of {what}[{at}] must be a string, got {shown(item.get('name'))}")
        _check_parameters(item.get("parameters"), f"{what}[{at}]")
    return items


def _check_parameters(value: Any, what: str) -> None:
    """Parameters are plain values; those that nobody here knows are no matter."""
    parameters = {} if value is None else an_object(value, f"parameters of {what}")
    for key, one in parameters.items():
        if type(one) in (dict, list):
            name = f"parameter {some([key])} of {what}"
            raise bad_data(f"{name} must be a string, a number, or true or false, got {shown(one)}")
    kind = parameters.get("content_type")
    if kind is not None and kind not in _CONTENT_TYPES:
        raise bad_data(f"content_type of {what} must be {', '.join(_CONTENT_TYPES)} or left out, got {shown(kind)}")
