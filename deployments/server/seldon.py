"""The same model behind Seldon's own Python wrapper, for where it must be the server.

Started as

    seldon-core-microservice prefect_mlops.deployments.server.seldon.ReleasedModel
        --parameters '[{"name": "config", "value": "CONFIG.json", "type": "STRING"}]'

or, where Seldon's operator starts it, with the parameter `config` in its graph. The wrapper is the
extra `seldon`; this module imports nothing of it. What the wrapper does itself stays as it is: it
listens on all addresses, limits neither bodies nor connections, and records no predictions.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from uuid import uuid4

from flask import Blueprint, Response
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from werkzeug.exceptions import HTTPException

from prefect_mlops.deployments.server._batch import outcomes
from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._errors import (
    ModelFailed,
    RequestRefused,
    StartRefused,
    StoreUnavailable,
    bad_data,
    model_failed,
)
from prefect_mlops.deployments.server._files import read
from prefect_mlops.deployments.server._model import load
from prefect_mlops.deployments.server._say import say
from prefect_mlops.deployments.server._seldon_protocol import SeldonProtocol, failure
from prefect_mlops.deployments.server._store import connect


class ReleasedModel:
    """A released model, as `seldon-core-microservice` loads and asks it.

    Its files are checked here, before the wrapper starts its processes; on failure the program ends
    with exit code 78 and one sentence, as our own server does. Each process unpickles them in `load`.

    Args:
        config: The configuration that our own server takes; where to listen and to record is ignored.
    """

    def __init__(self, config: str) -> None:
        try:
            asked = Config.read(config)
            self._config, self._files = read(asked, connect(asked))
        except StartRefused as error:
            say(str(error))
            sys.exit(os.EX_CONFIG)
        except StoreUnavailable as error:
            say(str(error))
            sys.exit(os.EX_TEMPFAIL)
        self._protocol = SeldonProtocol(self._config, self._files.signature)
        self.model_error_handler = _error_handler()

    def load(self) -> None:
        """Unpickle the bytes that were checked, and try the model.

        Raises:
            StartRefused: If it cannot be loaded or cannot answer; the wrapper then ends.
        """
        self._model = load(self._files)

    def init_metadata(self) -> dict[str, Any]:
        """What the wrapper answers at `/metadata`."""
        return self._protocol.metadata()

    def predict_raw(self, msg: Any) -> Any:
        """Answer a request: a document of JSON, or a SeldonMessage, which gets one back.

        Raises:
            RequestRefused: If it breaks the protocol or the signature, or the model fails.
        """
        if isinstance(msg, Message):
            return ParseDict(self.predict_raw(MessageToDict(msg)), type(msg)())
        question = self._protocol.question(json.dumps(msg).encode())  # NaN is refused, as it is in a body
        (outcome,) = outcomes(self._model.predict, [question.rows])
        if isinstance(outcome, ModelFailed):
            raise model_failed(self._config.release, outcome)
        return question.answer(outcome, question.client_id or uuid4().hex)


def _error_handler() -> Blueprint:
    """Statuses and sentences as our own server has them; the wrapper alone answers 500 to all of this."""
    handler = Blueprint("refusals", __name__)
    handler.app_errorhandler(RequestRefused)(_refused)
    handler.app_errorhandler(HTTPException)(_not_served)
    handler.app_errorhandler(RecursionError)(_too_deep)
    return handler


def _refused(error: RequestRefused) -> Response:
    body = failure(error.status, error.reason, error.info)
    return Response(body, error.status, content_type="application/json")


def _not_served(error: HTTPException) -> Response:
    name = error.name.upper().replace(" ", "_")
    return _refused(RequestRefused(error.code or 500, name, error.description or error.name))


def _too_deep(error: RecursionError) -> Response:
    return _refused(bad_data(f"the body is not JSON that can be read: {error}"))
