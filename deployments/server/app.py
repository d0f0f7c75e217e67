"""The ASGI application: paths, limits, and the order of things: check, predict, record, answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import orjson

from prefect_mlops.deployments.server import _open_inference, _openapi, _seldon_protocol
from prefect_mlops.deployments.server._batch import Batcher, Job, Outcome
from prefect_mlops.deployments.server._body import MAX_ID_CHARACTERS, Question, valid_id
from prefect_mlops.deployments.server._config import Config
from prefect_mlops.deployments.server._errors import ModelFailed, RequestRefused, bad_data, model_failed
from prefect_mlops.deployments.server._model import Model
from prefect_mlops.deployments.server._open_inference import OpenInference
from prefect_mlops.deployments.server._records import Spool, SpoolFull
from prefect_mlops.deployments.server._say import say
from prefect_mlops.deployments.server._seldon_protocol import SeldonProtocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = dict[bytes, bytes]

ROLES = frozenset({"live", "warm", "shadow"})
MAX_WAITING_BODIES = 4
MAX_ATTEMPT = 1_000_000
COUNTERS = "/counters"
_JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked, when, and in which role this server was asked."""

    request_id: str
    client_request_id: str | None
    attempt: int
    role: str
    time: datetime
    clock: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a status, a body of JSON, and more headers than every answer has."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request that waits for its prediction."""

    asked: Asked
    question: Question
    done: asyncio.Future[Outcome]


class App:
    """One model behind Seldon's REST protocol and the Open Inference Protocol.

    Args:
        config: What is served.
        model: The model, loaded and tried.
        spool: Where every prediction is recorded before its answer leaves.
    """

    def __init__(self, config: Config, model: Model, spool: Spool) -> None:
        self.config, self.model, self.spool = config, model, spool
        self.batcher: Batcher[_Asking] = Batcher(model.predict, self._deliver)
        self._bytes_waiting = 0
        self._input_names = orjson.dumps(model.signature.names).decode()
        self._output_names = orjson.dumps(model.signature.outputs_list).decode()
        self._headers = ((b"x-release", config.release.encode()), (b"x-model-digest", config.model.encode()))
        seldon = SeldonProtocol(config, model.signature)
        self._open_inference = OpenInference(config, model.signature, model.example)
        self._posts = {
            _seldon_protocol.PREDICTIONS: partial(self._predict, seldon.question),
            _open_inference.infer(config.service): partial(self._predict, self._open_inference.question),
            _seldon_protocol.FEEDBACK: self._feedback,
        }
        self._predictions = self._posts.keys() - {_seldon_protocol.FEEDBACK}
        self._start, self._requests, self._errors = uuid4().hex, 0, 0
        self._pages = _pages(config, model, {**self._open_inference.pages(), "/metadata": seldon.metadata()})

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        clock, headers = time.perf_counter(), dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if valid_id(given) else uuid4().hex
        try:
            _check_id("x-request-id", given)
            answer = await self._answered(scope, headers, request_id, receive, clock)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever it is, the caller gets a sentence
            refused = _refusal(error, request_id)
            answer = Answer(refused.status, _failure(scope["path"], refused), refused.headers)
        if scope["path"] in self._predictions:
            self._requests += 1
            self._errors += answer.status >= 500
        await self._send(send, answer, request_id)

    def close(self) -> None:
        """Seal the records, then wait for the model."""
        self.spool.close()
        self.batcher.close()

    async def _answered(
        self, scope: Message, headers: Headers, request_id: str, receive: Receive, clock: float
    ) -> Answer:
        method, path = scope["method"], scope["path"]
        handler = self._posts.get(path)
        if handler is None:
            return self._page(method, path)
        if method != "POST":
            raise _method_refused(method, path, "POST")
        _check_content(headers)
        body = await self._body(headers, receive)
        try:
            return await handler(body, _asked(headers, request_id, clock, self.config.role or "live"))
        finally:
            self._bytes_waiting -= len(body)

    def _page(self, method: str, path: str) -> Answer:
        page = self._counters() if path == COUNTERS else self._pages.get(path)
        if page is None:
            self._open_inference.refuse_other(path)
            raise RequestRefused(404, "NOT_FOUND", f"there is nothing at {path[:200]!r}, see /openapi.json")
        if method not in ("GET", "HEAD"):
            raise _method_refused(method, path, "GET, HEAD")
        return Answer(200, page)

    def _counters(self) -> bytes:
        counted = {"release": self.config.release, "requests": self._requests, "errors": self._errors}
        return orjson.dumps({"start": self._start, **counted})

    async def _predict(self, read: Callable[[bytes], Question], body: bytes, asked: Asked) -> Answer:
        question = read(body)
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.batcher.put(Job(question.rows, _Asking(asked, question, done)))
        outcome = await done
        if isinstance(outcome, ModelFailed):
            raise model_failed(self.config.release, outcome)
        return Answer(200, orjson.dumps(question.answer(outcome, asked.request_id)))

    async def _feedback(self, body: bytes, asked: Asked) -> Answer:
        told = _seldon_protocol.feedback(body)
        self.spool.append([_feedback_record(told, asked)])
        status = {"status": "SUCCESS", "code": 200, "info": "recorded"}
        return Answer(200, orjson.dumps({"meta": {"puid": told.request_id}, "status": status}))

    def _deliver(self, jobs: list[Job[_Asking]], outcomes: list[Outcome]) -> None:
        """Record a call of the model in one write; only then do its answers leave."""
        now = time.perf_counter()
        full: SpoolFull | None = None
        try:
            self.spool.append([self._record(job, outcome, now) for job, outcome in zip(jobs, outcomes, strict=True)])
        except SpoolFull as error:
            full = error
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, ModelFailed):
                say(f"request {job.about.asked.request_id}: {model_failed(self.config.release, outcome)}")
            if job.about.done.cancelled():
                continue
            if full is None:
                job.about.done.set_result(outcome)
            else:
                job.about.done.set_exception(SpoolFull(str(full)))

    def _record(self, job: Job[_Asking], outcome: Outcome, now: float) -> dict[str, Any]:
        asked, question = job.about.asked, job.about.question
        failed = isinstance(outcome, ModelFailed)
        return {
            "kind": "prediction",
            "request_id": asked.request_id,
            "client_request_id": asked.client_request_id or question.client_id,
            "attempt": asked.attempt,
            "time": asked.time,
            "role": asked.role,
            "rows": len(job.rows),
            "input_names": self._input_names,
            "inputs": orjson.dumps(job.rows).decode(),
            "output_names": self._output_names,
            "outputs": None if failed else orjson.dumps(outcome).decode(),
            "latency_ms": round((now - asked.clock) * 1000, 3),
            "status": 500 if failed else 200,
            "error": str(outcome) if failed else None,
        }

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        limit = self.config.max_body_bytes
        announced = headers.get(b"content-length", b"0")
        if int(announced) > limit:
            raise _too_long(limit, f"{announced.decode()[:30]} were announced")
        parts: list[bytes] = []
        length, more = 0, True
        try:
            while more:
                message = await receive()
                part = _part(message)
                parts.append(part)
                length += len(part)
                self._bytes_waiting += len(part)
                self._check_length(length, limit)
                more = message.get("more_body", False)
        except BaseException:
            self._bytes_waiting -= length
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_length(self, length: int, limit: int) -> None:
        if length > limit:
            raise _too_long(limit, "more came")
        if self._bytes_waiting > MAX_WAITING_BODIES * limit:
            raise RequestRefused(503, "BUSY", "too many long requests at the same time; try again")

    async def _send(self, send: Send, answer: Answer, request_id: str) -> None:
        headers = [
            (b"content-type", _JSON),
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", request_id.encode()),
            *self._headers,
            *answer.headers,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def _pages(config: Config, model: Model, more: dict[str, Any]) -> dict[str, bytes]:
    openapi = orjson.dumps(_openapi.document(config, model.signature), option=orjson.OPT_INDENT_2)
    healthy = orjson.dumps({"status": {"status": "SUCCESS", "code": 200, "info": "ready"}})
    ready = {"pid": os.getpid(), "release": config.release, "model": config.model, "instance": config.instance}
    return {
        "/ready": orjson.dumps(ready),
        "/live": healthy,
        "/health/ping": b'"pong"',
        "/health/status": healthy,
        "/openapi.json": openapi,
        "/seldon.json": openapi,
        **{path: orjson.dumps(page) for path, page in more.items()},
    }


def _refusal(error: BaseException, request_id: str) -> RequestRefused:
    """What is said where an answer could not be made."""
    if isinstance(error, RequestRefused):
        return error
    if isinstance(error, SpoolFull):
        return RequestRefused(503, "NOT_RECORDED", f"there is no answer, since {error}; try again")
    if isinstance(error, asyncio.CancelledError):
        return RequestRefused(503, "STOPPING", "the server stops before the model has answered; try again")
    say(f"request {request_id}: {type(error).__name__}: {error}")
    return RequestRefused(500, "SERVER_FAILED", "the server failed, its log says how")


def _failure(path: str, refused: RequestRefused) -> bytes:
    protocol = _open_inference if path == _open_inference.ROOT or path.startswith("/v2/") else _seldon_protocol
    return protocol.failure(refused.status, refused.reason, refused.info)


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise bad_data("the connection was closed before the whole body had come")
    return message.get("body", b"")


def _check_id(header: str, value: str) -> None:
    if value and not valid_id(value):
        raise _bad_header(header, f"1 to {MAX_ID_CHARACTERS} visible ASCII characters")


def _asked(headers: Headers, request_id: str, clock: float, role: str) -> Asked:
    client_id = headers.get(b"x-client-request-id", b"").decode("latin-1")
    _check_id("x-client-request-id", client_id)
    role = headers.get(b"x-mlops-role", role.encode()).decode("latin-1")
    if role not in ROLES:
        raise _bad_header("x-mlops-role", "live, warm or shadow")
    attempt = headers.get(b"x-envoy-attempt-count", b"1")
    if not (attempt.isdigit() and len(attempt) < 7 and int(attempt) > 0):
        raise _bad_header("x-envoy-attempt-count", "a whole number from 1 to 999999")
    return Asked(request_id, client_id or None, int(attempt), role, datetime.now(UTC), clock)


def _check_content(headers: Headers) -> None:
    kind, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    if kind.strip() != _JSON or (parameters.strip() and charset not in (b"utf-8", b"utf8")):
        raise RequestRefused(
            415, "UNSUPPORTED_MEDIA_TYPE", "the body must be JSON: send content-type: application/json"
        )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestRefused(
            415, "UNSUPPORTED_MEDIA_TYPE", "the body must not be compressed: leave content-encoding out"
        )


def _feedback_record(told: _seldon_protocol.Feedback, asked: Asked) -> dict[str, Any]:
    return {
        "kind": "feedback",
        "request_id": told.request_id,
        "client_request_id": asked.client_request_id,
        "attempt": asked.attempt,
        "time": asked.time,
        "role": asked.role,
        "rows": 0,
        "latency_ms": round((time.perf_counter() - asked.clock) * 1000, 3),
        "status": 200,
        "feedback_id": asked.request_id,
        "reward": told.reward,
        "truth": None if told.truth is None else orjson.dumps(told.truth).decode(),
    }


def _method_refused(method: str, path: str, allow: str) -> RequestRefused:
    info = f"{path} answers {allow}, got {method}"
    return RequestRefused(405, "METHOD_NOT_ALLOWED", info, ((b"allow", allow.encode()),))


def _bad_header(name: str, rule: str) -> RequestRefused:
    return RequestRefused(400, "BAD_HEADER", f"the header {name} must be {rule}")


def _too_long(limit: int, got: str) -> RequestRefused:
    return RequestRefused(
        413, "BODY_TOO_LONG", f"a body may have at most {limit} bytes, {got}; send fewer rows at a time"
    )
