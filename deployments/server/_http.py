"""HTTP, by uvicorn and httptools, with the limits that they leave out: size and time of a request."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from prefect_mlops.deployments.server._seldon_protocol import failure

if TYPE_CHECKING:
    from prefect_mlops.deployments.server.app import App

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_CONNECTIONS = 2048
FILES_BESIDE = 64
KEEP_ALIVE_SECONDS = 75
SWEEP_SECONDS = 1.0

_NOT_HTTP = (400, "BAD_HTTP", "this is not a request of HTTP 1.1 that can be read")
_HEAD_TOO_LONG = (431, "HEADERS_TOO_LONG", f"headers may have {MAX_HEAD_BYTES} bytes in {MAX_HEADERS} lines together")
_TOO_SLOW = (408, "TOO_SLOW", "a request did not come whole in time")
_TOO_MANY = (503, "BUSY", "there are too many connections already; try again")


class _HeadTooLong(Exception):
    """The head of a request is longer than it may be."""


class Protocol(HttpToolsProtocol):
    """One connection. What breaks a limit gets one sentence and is closed."""

    most = MAX_CONNECTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline: float | None = None
        self._answering: RequestResponseCycle | None = None
        self._in_head = self._in_message = False
        self._head_bytes = self._head_sum = self._head_lines = self._message_bytes = 0
        self._refusal = _NOT_HTTP
        settings = cast("App", self.config.loaded_app).config
        self._seconds = settings.request_seconds
        self._max_message_bytes = 2 * settings.max_body_bytes + MAX_HEAD_BYTES

    def connection_made(self, transport: Any) -> None:
        """Start the clock, or turn the caller away where there are too many."""
        super().connection_made(transport)
        self.deadline = self.loop.time() + self._seconds
        if len(self.connections) > self.most:
            self._refuse(_TOO_MANY)

    def data_received(self, data: bytes) -> None:
        """Count, then parse."""
        if self.transport.is_closing():
            return
        self._message_bytes += len(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_HEAD_TOO_LONG)
                return
        if self._message_bytes > self._max_message_bytes + len(data):
            self.transport.close()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request starts: it must be whole in time."""
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head_bytes = self._head_sum = self._head_lines = self._message_bytes = 0
        self.deadline = self.loop.time() + self._seconds

    def on_url(self, url: bytes) -> None:
        """Count the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer."""
        self._head_lines += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.deadline = None
        self._in_message = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The caller does not read its answer: that, too, must end in time."""
        super().pause_writing()
        self.deadline = self.loop.time() + self._seconds

    def resume_writing(self) -> None:
        """The caller reads again."""
        super().resume_writing()
        self.deadline = None

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser gives up."""
        self._refuse(self._refusal)

    def sweep(self, now: float) -> None:
        """Close this connection if its time is up."""
        if self.deadline is None or now < self.deadline or self.transport.is_closing():
            return
        if self.flow.write_paused:
            self.transport.abort()
        elif self._in_head or self._asking():
            self._refuse(_TOO_SLOW)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is answered, too: uvicorn tells only the last one that came."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _asking(self) -> bool:
        """Whether the only request under way is one that has not come whole and has no answer yet."""
        cycle = self._answering
        return cycle is not None and cycle is self.cycle and cycle.more_body and not cycle.response_started

    def _may_speak(self) -> bool:
        """Whether a refusal would be read as what it is, and not as the answer to some other request."""
        if self._answering is None or self._answering.response_complete:
            return self._in_head or not self._in_message
        return self._asking()

    def _count(self, length: int) -> None:
        self._head_sum += length
        if self._head_sum > MAX_HEAD_BYTES or self._head_lines > MAX_HEADERS:
            self._refusal = _HEAD_TOO_LONG
            raise _HeadTooLong

    def _refuse(self, refusal: tuple[int, str, str]) -> None:
        """Say why, unless an answer is under way, and close."""
        if self._may_speak():
            body = failure(*refusal)
            head = [
                STATUS_LINE[refusal[0]],
                b"content-type: application/json\r\ncontent-length: ",
                str(len(body)).encode(),
                b"\r\nx-request-id: ",
                uuid4().hex.encode(),
                b"\r\nconnection: close\r\n\r\n",
                body,
            ]
            self.transport.write(b"".join(head))
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn on a socket of ours, with a tick once a second."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, tick: Callable[[], None]) -> None:
        super().__init__(config)
        self._listener, self._tick = listener, tick

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen: every connection gets a `Protocol`."""
        loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        unix = self._listener.family == socket.AF_UNIX
        create = loop.create_unix_server if unix else loop.create_server
        self.servers = [await create(self._protocol, sock=self._listener, backlog=self.config.backlog)]
        self.started = True
        loop.call_later(SWEEP_SECONDS, self._sweep)

    def _protocol(self) -> Protocol:
        return Protocol(config=self.config, server_state=self.server_state, app_state={})

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.sweep(now)
        self._tick()
        loop.call_later(SWEEP_SECONDS, self._sweep)


def listen(path: str | None, host: str, port: int | None) -> socket.socket:
    """A socket that accepts from now on: the unix socket `path`, or `host` and `port` where there is none.

    A unix socket appears under its name only when it listens, and takes the place of one that is left there.

    Raises:
        OSError: If the place is taken or cannot be used.
    """
    if path is None:
        return socket.create_server((host, port or 0), backlog=MAX_CONNECTIONS)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = Path(f"{path}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener.bind(str(temporary))
    temporary.chmod(0o600)
    listener.listen(MAX_CONNECTIONS)
    temporary.rename(path)
    return listener


def allow_files() -> None:
    """Let this process have as many open files as its connections need, or as many as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def max_connections() -> int:
    """How many connections there may be at once: beyond that a caller is told so."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, files - FILES_BESIDE))


def serve(app: Any, listener: socket.socket, tick: Callable[[], None], grace_seconds: int) -> None:
    """Answer until SIGTERM or SIGINT, then finish what is in flight, for at most `grace_seconds`."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
    )
    config.load()
    allow_files()
    Protocol.most = max_connections()
    # uvicorn raises the signal again when it is done; by then it means nothing more.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    server = Server(config, listener, tick)
    server.lifespan = config.lifespan_class(config)
    uvloop.run(server.serve(sockets=[listener]))


def _ignore(number: int, frame: object) -> None:
    """A handler that does nothing; unlike SIG_IGN it is not inherited."""
