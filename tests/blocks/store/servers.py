"""A real S3-compatible server for tests, and a proxy before it that misbehaves."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

ACCESS, SECRET = "access-for-tests", "secret-for-tests"
BUCKET = "bucket"
_ROOT = Path(__file__).resolve().parents[3]


def versitygw() -> str:
    """The server's program, or a skip that says how to get it."""
    named = os.environ.get("VERSITYGW")
    found = named or shutil.which(str(_ROOT / ".tools" / "bin" / "versitygw")) or shutil.which("versitygw")
    if not found:
        pytest.skip("no versitygw, so nothing is tested on S3; set VERSITYGW or run `make .tools/bin/versitygw`")
    return found


@contextmanager
def s3_server(home: Path, *, metadata: bool = True, host: str = "127.0.0.1") -> Generator[str]:
    """Run a server on a free port of `host`; gives its url. Without metadata it overwrites whatever it is told."""
    data, sidecar = home / "data", home / "sidecar"
    (data / BUCKET).mkdir(parents=True)
    sidecar.mkdir()
    port = free_port(host)
    keeps = ["--sidecar", str(sidecar)] if metadata else ["--nometa"]
    command = [versitygw(), "--quiet", "--port", f"{host}:{port}", "posix", *keeps, str(data)]
    keys = {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **keys}, stdout=log, stderr=log)
    try:
        _wait_until_up(process, f"http://{host}:{port}", home / "log")
        yield f"http://{host}:{port}"
    finally:
        process.terminate()
        process.wait(20)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            httpx.get(url, trust_env=False)
            return
        time.sleep(0.02)
    raise AssertionError(f"versitygw did not come up: {log.read_text()}")


PASS, DROP_ANSWER, DROP_REQUEST, ANSWER_503, LATER = "pass", "drop answer", "drop request", "answer 503", "later"


@dataclass
class Proxy:
    """Forwards each request, or does what `decide(method, path)` says.

    `drop answer` forwards, waits for the answer and closes without passing it on; `answer 503` does the same
    and then claims an error; `drop request` closes at once; `later` closes at once and keeps the request for
    `land`, as a network does that delivers what its sender has given up on.
    """

    upstream: str
    decide: Callable[[str, str], str] = lambda method, path: PASS
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    url: str = ""

    def land(self) -> int:
        """Deliver the oldest request that was kept, and return the status that nobody waits for."""
        request = self.kept.pop(0)
        with socket.create_connection(self._address()) as connection:
            connection.sendall(request)
            return int(connection.makefile("rb").readline().split()[1])

    def _address(self) -> tuple[str, int]:
        url = httpx.URL(self.upstream)
        return url.host, url.port or 80

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with _closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                request = head + await reader.readexactly(_length(head))
                method, path = head.decode().split(" ", 2)[:2]
                action = self.decide(method, path)
                self.seen.append((method, path, action))
                if not await self._act(action, request, method, writer):
                    break

    async def _act(self, action: str, request: bytes, method: str, writer: asyncio.StreamWriter) -> bool:
        if action == LATER:
            self.kept.append(request)
        if action in (LATER, DROP_REQUEST):
            return False
        answer = await self._forward(request, method)
        if action == ANSWER_503:
            answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        if action == DROP_ANSWER:
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def _forward(self, request: bytes, method: str) -> bytes:
        reader, writer = await asyncio.open_connection(*self._address())
        with _closing(writer):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b"transfer-encoding: chunked" in head.lower():
                body = b""
                while not body.endswith(b"0\r\n\r\n"):
                    body += await reader.readuntil(b"\r\n")
            else:
                body = b"" if method == "HEAD" else await reader.readexactly(_length(head))
            return head + body


@contextmanager
def _closing(writer: asyncio.StreamWriter) -> Generator[None]:
    """Hang up in the end, also where the proxy is ended meanwhile."""
    try:
        yield
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        writer.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


@contextmanager
def proxied(upstream: str) -> Generator[Proxy]:
    """Run a proxy in a thread of this process."""
    proxy, ready, stops = Proxy(upstream), threading.Event(), list[Callable[[], object]]()

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy
    finally:
        stops[0]()
        thread.join(10)
