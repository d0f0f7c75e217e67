"""Requests that nobody sends by mistake, and those that many do: the same ones for the same seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.deployments.server.models import NUMBERS, census, census_rows

PREDICT = b"/api/v1.0/predictions"
INFER = b"/v2/models/credit/infer"
NAMES = list(census(1).columns)
ROWS = census_rows(50)
NASTY: list[Any] = [
    None, True, False, 0, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 0.1, -0.0, 1e308, "", " ", "abc", "39",
    "\0", "\u2028", "😀" * 50, "x" * 5_000, [], {}, [[]], [[1]], {"a": 1}, [None] * 50,
]  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """Bytes for one connection, and whether they are a whole request, after which the server closes."""

    kind: str
    data: bytes
    whole: bool


def attacks(count: int, seed: int, max_body: int) -> Iterator[Attack]:
    """`count` attacks on a server that takes bodies of `max_body` bytes."""
    chance = random.Random(seed)
    makers: list[Callable[[random.Random, int], Attack]] = [
        _values, _values, _bytes, _bytes, _shape, _json_text, _head, _head, _chunks, _lengths, _oversized, _flood,
        _pipeline, _garbage, _cut, _paths, _feedback,
    ]  # fmt: skip
    for _ in range(count):
        yield chance.choice(makers)(chance, max_body)


def request(body: bytes, path: bytes = PREDICT, method: bytes = b"POST", headers: bytes = b"") -> bytes:
    """A request as it should be, after which the server closes."""
    head = method + b" " + path + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n" + headers
    if b"content-type" not in headers:
        head += b"content-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def _valid(chance: random.Random) -> dict[str, Any]:
    rows = chance.sample(ROWS, chance.randint(1, 3))
    kind = chance.randrange(4)
    if kind == 3:
        return {"id": "a", "inputs": [_column(name, [row[at] for row in rows]) for at, name in enumerate(NAMES)]}
    if kind == 0:
        return {"data": {"names": NAMES, "ndarray": rows}}
    if kind == 1:
        return {"jsonData": [dict(zip(NAMES, row, strict=True)) for row in rows]}
    return {"data": {"tensor": {"shape": [len(rows), 14], "values": [value for row in rows for value in row]}}}


def _column(name: str, values: list[Any]) -> dict[str, Any]:
    datatype = "INT64" if name in NUMBERS else "BYTES"
    return {"name": name, "shape": [len(values), 1], "datatype": datatype, "data": values}


def _path(document: dict[str, Any]) -> bytes:
    return INFER if "inputs" in document else PREDICT


def _values(chance: random.Random, _: int) -> Attack:
    """A nasty value somewhere in a good document."""
    document = json.loads(json.dumps(_valid(chance)))
    path = _path(document)
    for _ in range(chance.randint(1, 3)):
        place: Any = chance.choice(_containers(document))
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if keys:
            place[chance.choice(keys)] = copy.deepcopy(chance.choice(NASTY))
        if isinstance(place, dict) and chance.random() < 0.3:
            place[chance.choice(["", "meta", "age", "names", "data", "parameters", "outputs", "x" * 300, "\0"])] = (
                copy.deepcopy(chance.choice(NASTY))
            )
    return Attack("values", request(json.dumps(document).encode(), path), whole=True)


def _containers(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [node, *(found for child in node.values() for found in _containers(child))]
    return [node, *(found for child in node for found in _containers(child))] if isinstance(node, list) else []


def _bytes(chance: random.Random, _: int) -> Attack:
    """A good document with some of its bytes changed."""
    document = _valid(chance)
    body = bytearray(json.dumps(document).encode())
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(body))
        change = chance.randrange(4)
        if change == 0:
            body[at] = chance.randrange(256)
        elif change == 1:
            del body[at : at + chance.randint(1, 20)]
        elif change == 2:
            body[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
        else:
            body[at:at] = body[: chance.randint(1, 200)]
        body = body or bytearray(b" ")
    return Attack("bytes", request(bytes(body), _path(document)), whole=True)


def _shape(chance: random.Random, _: int) -> Attack:
    """Tensors and arrays that do not add up."""
    shape = [chance.choice([0, 1, 2, 14, -1, 2**40, 2**64 - 1, 1.5, None]) for _ in range(chance.randint(0, 4))]
    values = [1] * chance.choice([0, 1, 14, 28, 1_000])
    documents: list[Any] = [
        {"data": {"tensor": {"shape": shape, "values": values}}},
        {"data": {"ndarray": [[1] * chance.randint(0, 20) for _ in range(chance.randint(0, 30))]}},
        {"data": {"ndarray": [[]] * chance.choice([0, 1, 9_999, 10_001])}},
        {"data": {"names": NAMES * 20, "ndarray": [ROWS[0]]}},
        {"jsonData": [{}] * chance.choice([1, 10_001])},
        {"inputs": [{**_column(name, values), "shape": shape} for name in NAMES]},
        {"inputs": [{"name": "all", "shape": shape, "datatype": "FP64", "data": [values, values]}]},
        {"inputs": [_column("age", values)] * chance.choice([0, 1, 14, 300])},
    ]
    document = chance.choice(documents)
    return Attack("shape", request(json.dumps(document).encode(), _path(document)), whole=True)


def _json_text(chance: random.Random, _: int) -> Attack:
    """Text that is nearly JSON, or JSON that is nearly endless."""
    depth = chance.choice([10, 300, 900, 1_023, 1_030, 30_000])
    texts = [
        b"[" * depth,
        b"[" * depth + b"]" * depth,
        b'{"data":' * depth + b"1" + b"}" * depth,
        b'{"jsonData":' + b'{"a":' * min(depth, 900) + b"1" + b"}" * min(depth, 900) + b"}",
        b'{"data": {"ndarray": [[' + b"9" * depth + b"]]}}",
        b'{"data": {"ndarray": [[1e%d]]}}' % depth,
        b'{"meta": {"tags": ' + b'{"a":' * min(depth, 900) + b"1" + b"}" * min(depth, 900) + b'}, "jsonData": {}}',
        b'{"data": {"ndarray": [[NaN, Infinity, -Infinity]]}}',
        b'{"jsonData": {"age": 1, "age": 2, "age": 3}}',
        b'{"jsonData": {"\\ud800": 1}}',
        b'{"jsonData": {"a": "\xed\xa0\x80"}}',
        b"\xef\xbb\xbf{}",
        '{"jsonData": {}}'.encode("utf-16"),
        b"'{}'",
        b"{}{}",
        b"\0" * depth,
        b'{"id": ' + b"[" * min(depth, 900) + b"]" * min(depth, 900) + b', "inputs": []}',
        b'{"inputs": [{"name": "age", "parameters": {"a": ' + b"[" * depth + b"]" * depth + b"}}]}",
        b'{"inputs": [{"name": "age", "shape": [1], "datatype": "INT64", "data": [' + b"9" * depth + b"]}]}",
    ]
    return Attack("json", request(chance.choice(texts), chance.choice([PREDICT, INFER])), whole=True)


def _head(chance: random.Random, _: int) -> Attack:
    """Headers that break a rule, in a request that is whole otherwise."""
    body = json.dumps(_valid(chance)).encode()
    headers = [
        b"content-type: text/plain\r\n",
        b"content-type: \r\n",
        b"content-type: application/json; charset=utf-16\r\n",
        b"content-encoding: br\r\ncontent-type: application/json\r\n",
        b"x-request-id: " + bytes(chance.randrange(0x80, 0x100) for _ in range(5)) + b"\r\n",
        b"x-request-id: " + b"a" * 500 + b"\r\n",
        b"x-request-id: a\tb\r\n",
        b"x-client-request-id: \xff\r\n",
        b"x-mlops-role: admin\r\n",
        b"x-envoy-attempt-count: 1e9\r\n",
        b"x-envoy-attempt-count: \xb2\r\n",
        b"expect: 100-continue\r\n",
        b"upgrade: websocket\r\nconnection: upgrade\r\n",
        b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAA\r\n",
        b"x-" + b"a" * chance.choice([10, 40_000]) + b": 1\r\n",
        b"x: " + b"a" * chance.choice([10, 40_000]) + b"\r\n",
        b"a: b\r\n" * chance.choice([50, 101, 5_000]),
        b"no colon\r\n",
        b" folded\r\n",
        b"x: a\r\n\tb\r\n",
        b"x\0: 1\r\n",
        b"x: \0\r\n",
        b"x: 1\nhost: b\n",
        b"host: b\r\n",
    ]
    return Attack("head", request(body, headers=chance.choice(headers)), whole=False)


def _chunks(chance: random.Random, max_body: int) -> Attack:
    """Chunked bodies, good and bad."""
    body = json.dumps(_valid(chance)).encode()
    good = b"%x\r\n%b\r\n" % (len(body), body)
    many = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    forms = [
        good + b"0\r\n\r\n",
        many + b"0\r\n\r\n",
        b"zz\r\n" + body,
        b"-1\r\n" + body + b"\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n" + body,
        b"%x;%b\r\n%b\r\n0\r\n\r\n" % (len(body), b"e" * chance.choice([10, 50_000]), body),
        b"%x\r\n%bXX0\r\n\r\n" % (len(body), body),
        good + b"0\r\n" + b"trailer: " + b"t" * chance.choice([10, 100_000]) + b"\r\n\r\n",
        good + b"0\r\n" + b"t: t\r\n" * chance.choice([3, 5_000]) + b"\r\n",
        b"%x\r\n%b\r\n" % (max_body + 1, b" " * (max_body + 1)) + b"0\r\n\r\n",
        b"400\r\n%b\r\n" % (b" " * 0x400) * (max_body // 0x400 + 5) + b"0\r\n\r\n",
    ]
    head = b"POST " + PREDICT + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n"
    return Attack("chunks", head + b"transfer-encoding: chunked\r\n\r\n" + chance.choice(forms), whole=False)


def _lengths(chance: random.Random, _: int) -> Attack:
    """Lengths that are not true, not numbers, or two."""
    body = json.dumps(_valid(chance)).encode()
    length = str(len(body)).encode()
    lines = [
        b"content-length: -5", b"content-length: abc", b"content-length: +" + length, b"content-length: 0x10",
        b"content-length: " + b"9" * 30, b"content-length: 18446744073709551616", b"content-length: 1000000000",
        b"content-length: " + length + b"\r\ncontent-length: 5", b"content-length: " + length + b", 5",
        b"content-length: " + length + b"\r\ntransfer-encoding: chunked", b"content-length: 3",
        b"transfer-encoding: gzip", b"transfer-encoding: chunked, chunked", b"x: y", b"content-length: ",
    ]  # fmt: skip
    head = b"POST " + PREDICT + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n"
    return Attack("lengths", head + chance.choice(lines) + b"\r\n\r\n" + body, whole=False)


def _oversized(chance: random.Random, max_body: int) -> Attack:
    """Bodies around and far above the limit."""
    length = chance.choice([max_body - 1, max_body, max_body + 1, 3 * max_body])
    fill = chance.choice([b" ", b"[", b"1", b"\xff"])
    return Attack("oversized", request(fill * length), whole=False)


def _flood(chance: random.Random, _: int) -> Attack:
    """A head that does not end."""
    line = chance.choice([b"a: b\r\n", b"a" * 1_000, b"\r\n", b"x: " + b"y" * 5_000 + b"\r\n"])
    return Attack("flood", b"POST " + PREDICT + b" HTTP/1.1\r\n" + line * (300_000 // len(line)), whole=False)


def _pipeline(chance: random.Random, _: int) -> Attack:
    """Many requests at once, one of them wrong."""
    good = request(json.dumps(_valid(chance)).encode()).replace(b"connection: close\r\n", b"")
    wrong = chance.choice([request(b"{"), b"GET /\r\n\r\n", b"\xff" * 50, b"GET /ready HTTP/1.1\r\n\r\n"])
    return Attack("pipeline", good * chance.choice([2, 20, 200]) + wrong, whole=False)


def _garbage(chance: random.Random, _: int) -> Attack:
    """Other protocols, and none."""
    lines = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n",
        b"SSH-2.0-x\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n\r\n", b"\r\n" * 1_000,
        b"GET http://a HTTP/1.1\r\n\r\n", b"get /ready http/1.1\r\n\r\n", b"GET  /ready  HTTP/1.1\r\n\r\n",
        b"GET /ready HTTP/9.9\r\n\r\n",
        b"GET /ready HTTP/1.0\r\n\r\n", b"TRACE /ready HTTP/1.1\r\nhost: a\r\n\r\n",
        bytes(chance.randrange(256) for _ in range(300)),
    ]  # fmt: skip
    return Attack("garbage", chance.choice(lines), whole=False)


def _cut(chance: random.Random, _: int) -> Attack:
    """A good request that breaks off."""
    whole = request(json.dumps(_valid(chance)).encode())
    return Attack("cut", whole[: chance.randrange(1, len(whole))], whole=False)


def _paths(chance: random.Random, _: int) -> Attack:
    """Paths and methods that are not there."""
    paths = [
        b"/", b"/../../etc/passwd", b"/%00", b"/%ff%fe", b"/\xff", b"//", b"/api/v1.0/predictions/",
        b"/" + b"a" * chance.choice([10, 40_000]), b"/ready?" + b"a=b&" * 100, b"/%2e%2e/", b"/ready#x", b"*", b"?",
        INFER, b"/v2/models", b"/v2/models/" + b"x" * 5_000, b"/v2/models/%00/infer",
        b"/v2/models/credit/versions/1/infer",
    ]  # fmt: skip
    methods = [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"TRACE", b"PROPFIND", b"NOPE"]
    return Attack("paths", request(b"", chance.choice(paths), chance.choice(methods)), whole=False)


def _feedback(chance: random.Random, _: int) -> Attack:
    """Feedback with nasty parts."""
    document = {
        name: copy.deepcopy(chance.choice(NASTY))
        for name in ("request", "response", "reward", "truth")
        if chance.random() < 0.7
    }
    if chance.random() < 0.5:
        document["response"] = {"meta": {"puid": copy.deepcopy(chance.choice(NASTY))}}
    return Attack("feedback", request(json.dumps(document).encode(), b"/api/v1.0/feedback"), whole=True)
