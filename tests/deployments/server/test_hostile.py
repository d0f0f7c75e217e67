"""Bar 8: malformed, hostile and oversized requests give no 500, no traceback and no growth."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.deployments.server.hostile import PREDICT, Attack, attacks, request
from tests.deployments.server.models import census_rows
from tests.deployments.server.processes import Running, until

MAX_BODY = 100_000
ASK = {"data": {"ndarray": census_rows(1)}}
GROWTH = 96 * 1024 * 1024
"""Once, whatever comes after: 60,000 requests end 69 MiB above the first, where 10,000 may be as well."""


def test_fifteen_hundred_hostile_requests(server: Running) -> None:
    _survives(server, 1_500, seed=8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_hostile_requests(server: Running, seed: int) -> None:
    _survives(server, 10_000, seed)


def _survives(server: Running, count: int, seed: int) -> None:
    before = server.post(ASK).json()["data"]
    asyncio.run(_throw(server.port, attacks(300, seed + 1_000, MAX_BODY)))
    start = _memory(server)
    statuses, unanswered = asyncio.run(_throw(server.port, attacks(count, seed, MAX_BODY)))
    assert server.process.poll() is None
    assert server.post(ASK).json()["data"] == before
    assert not {status for _, status in statuses if status >= 500}, statuses
    assert {status for _, status in statuses} >= {200, 400, 404, 405, 413, 415, 431}, statuses
    assert not unanswered
    grown = _memory(server) - start
    print(f"{count} requests from {start >> 20} MiB: {grown / 2**20:+.1f} MiB, {sorted(statuses.items())}")
    assert grown < GROWTH
    assert "Traceback" not in server.log.read_text()
    until(lambda: _open_files(server) < 60, 10)


async def _throw(port: int, many: Iterable[Attack]) -> tuple[Counter[tuple[str, int]], Counter[str]]:
    """Send every attack on its own connection, sixteen at a time; returns what came back for which kind."""
    statuses: Counter[tuple[str, int]] = Counter()
    unanswered: Counter[str] = Counter()
    waiting = iter(many)

    async def thrower() -> None:
        for attack in waiting:
            answer = await _send(port, attack)
            found = [int(code) for code in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)]
            statuses.update((attack.kind, code) for code in found)
            if attack.whole and not found:
                unanswered[attack.kind] += 1

    await asyncio.gather(*(thrower() for _ in range(16)))
    return statuses, unanswered


async def _send(port: int, attack: Attack) -> bytes:
    """Send, and read until the server closes; from what is not whole nothing may ever come, so do not wait long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(20 if attack.whole else 0.25):
            writer.write(attack.data)
            await writer.drain()
            while part := await reader.read(65_536):
                parts.append(part)
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return b"".join(parts)


def _open_files(server: Running) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def _memory(server: Running) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# --- one by one ----------------------------------------------------------------------------


def _connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def _read_all(connection: socket.socket) -> bytes:
    parts: list[bytes] = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_whoever_sends_a_request_too_slowly_is_told_and_let_go(server: Running) -> None:
    started = [b"", b"POST", request(b"{}")[:-1], b"POST " + PREDICT + b" HTTP/1.1\r\nhost: a\r\nx: "]
    connections = [_connect(server) for _ in started for _ in range(20)]
    for connection, data in zip(connections, started * 20, strict=True):
        connection.sendall(data)
    assert server.post(ASK).status_code == 200
    begin = time.monotonic()
    answers = [_read_all(connection) for connection in connections]
    assert time.monotonic() - begin < 8
    assert all(not answer or answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    assert sum(map(bool, answers)) >= 40
    for connection in connections:
        connection.close()


def test_whoever_does_not_read_is_let_go(server: Running) -> None:
    with _connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(0.5)
        page = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
        with pytest.raises(OSError, match=r"timed out|reset|[Bb]roken"):
            connection.sendall(page * 200_000)
        until(lambda: _is_cut(connection), 15)
    until(lambda: _open_files(server) < 60, 10)


def _is_cut(connection: socket.socket) -> bool:
    try:
        connection.send(b" ")
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def test_an_endless_body_is_answered_early_and_cut_off(server: Running) -> None:
    with _connect(server) as connection:
        connection.sendall(request(b"").replace(b"content-length: 0", b"transfer-encoding: chunked"))
        chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            connection.sendall(chunk * (100 * MAX_BODY // len(chunk)))


def test_an_announced_body_that_is_too_long_is_refused_before_it_comes(server: Running) -> None:
    with _connect(server) as connection:
        connection.sendall(request(b"").replace(b"content-length: 0", b"content-length: 99999999"))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    one = b"GET /nothing/%d HTTP/1.1\r\nhost: a\r\n\r\n"
    with _connect(server) as connection:
        connection.sendall(b"".join(one % n for n in range(200)) + request(b"", b"/ready", b"GET"))
        answer = _read_all(connection)
    assert [int(n) for n in re.findall(rb"/nothing/(\d+)", answer)] == list(range(200))
    assert answer.count(b"HTTP/1.1 200 ") == 1
