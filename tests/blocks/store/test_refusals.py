"""What is not fit, not there or not allowed is said in one sentence, before anything changes."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from prefect_mlops.blocks.errors import StoreError, StoreRefused, StoreUnreachable
from prefect_mlops.blocks.store import Store
from tests.blocks.store.servers import BUCKET, free_port, proxied, s3_server

pytestmark = pytest.mark.usefixtures("keys")

ACTIONS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put(b"a"),
    "append": lambda store: store.journal("log/local").append(0, b"a"),
    "walk": lambda store: list(store.journal("log/local").entries()),
    "list": lambda store: list(store.digests()),
    "has": lambda store: store.has("sha256:" + "0" * 64),
    "get": lambda store: store.get("sha256:" + "0" * 64),
}
every_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())


def sentence(action: Callable[[Store], object], store: Store, kind: type[StoreError]) -> str:
    """The refusal, which names the store and is one line."""
    with pytest.raises(kind) as caught:
        action(store)
    said = str(caught.value)
    assert store.url in said
    assert "\n" not in said
    assert len(said) < 400
    return said


@pytest.fixture(scope="module")
def overwriting(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A server that answers "created" and overwrites."""
    with s3_server(tmp_path_factory.mktemp("nometa"), metadata=False) as url:
        yield url


@pytest.mark.parametrize("action", [ACTIONS["put"], ACTIONS["append"], lambda store: store.id])
def test_a_server_that_overwrites_is_refused(
    overwriting: str, bucket_url: str, action: Callable[[Store], object]
) -> None:
    store = Store(url=bucket_url, endpoint=overwriting)
    assert "it overwrites what is there" in sentence(action, store, StoreRefused)
    assert list(store.strays()) == list(store.digests()) == store.journal("log/local").numbers() == []


@every_action
def test_no_such_bucket(s3: str, action: Callable[[Store], object]) -> None:
    store = Store(url="s3://nosuchbucket/store", endpoint=s3)
    assert "there is no such bucket" in sentence(action, store, StoreRefused)


@every_action
@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_keys(
    s3: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch, wrong: str, action: Callable[[Store], object]
) -> None:
    monkeypatch.setenv(wrong, "wrong-one")
    said = sentence(action, Store(url=bucket_url, endpoint=s3), StoreRefused)
    assert "does not accept the keys" in said
    assert "wrong-one" not in said


def test_no_keys(s3: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "there are no keys" in sentence(ACTIONS["put"], Store(url=bucket_url, endpoint=s3), StoreRefused)


@every_action
def test_nobody_listens(bucket_url: str, action: Callable[[Store], object]) -> None:
    store, begin = Store(url=bucket_url, endpoint=f"http://127.0.0.1:{free_port()}"), time.monotonic()
    assert "connection refused" in sentence(action, store, StoreUnreachable)
    assert time.monotonic() - begin < 20


def test_a_server_that_goes_away(s3: str, bucket_url: str) -> None:
    """It was there for the proof, and then every answer is lost: what happened is unknown, and is said to be."""
    with proxied(s3) as proxy:
        store = Store(url=bucket_url, endpoint=proxy.url)
        assert store.journal("log/local").append(0, b"a")
        proxy.decide = lambda method, path: "drop answer"
        sentence(lambda store: store.journal("log/local").append(1, b"b"), store, StoreUnreachable)
    assert Store(url=bucket_url, endpoint=s3).journal("log/local").append(1, b"b")


class _Answers(BaseHTTPRequestHandler):
    """Answers everything with one status and one body."""

    status, body = 404, b"<html>not found</html>"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.body)

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def answering() -> Generator[Callable[[int, bytes], str]]:
    """Starts a server that always gives one answer."""
    servers: list[HTTPServer] = []

    def start(status: int, body: bytes) -> str:
        handler = type("Handler", (_Answers,), {"status": status, "body": body})
        servers.append(HTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@every_action
def test_an_endpoint_that_is_no_s3_server(
    answering: Callable[[int, bytes], str], bucket_url: str, action: Callable[[Store], object]
) -> None:
    """Its 404 must not pass for an empty store."""
    store = Store(url=bucket_url, endpoint=answering(404, b"<html>not found</html>"))
    assert "check `endpoint`" in sentence(action, store, StoreRefused)


@every_action
def test_access_denied(
    answering: Callable[[int, bytes], str], bucket_url: str, action: Callable[[Store], object]
) -> None:
    denied = answering(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
    said = sentence(action, Store(url=bucket_url, endpoint=denied), StoreRefused)
    assert re.search(r"access is denied to (GET|PUT|HEAD|LIST) .*AccessDenied", said)


def test_encryption_is_asked_for_and_not_there(s3: str, bucket_url: str) -> None:
    store = Store(url=bucket_url, endpoint=s3.replace("http:", "https:"))
    sentence(ACTIONS["put"], store, StoreUnreachable)


def test_a_file_too_large_for_one_request(
    s3: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("prefect_mlops.blocks._bucket._LARGEST", 10)
    (tmp_path / "large").write_bytes(b"x" * 11)
    said = sentence(lambda store: store.add(tmp_path / "large"), Store(url=bucket_url, endpoint=s3), StoreRefused)
    assert "split the file" in said


def test_a_bucket_with_the_prefix_of_another(s3: str, bucket_url: str) -> None:
    """`store` and `store2` are two stores, although one name begins with the other."""
    one, two = Store(url=bucket_url, endpoint=s3), Store(url=f"{bucket_url}2", endpoint=s3)
    one.put(b"one")
    two.put(b"two")
    assert one.id != two.id
    assert len(list(one.digests())) == len(list(two.digests())) == 1
    assert list(one.strays()) == []
    assert Store(url=f"s3://{BUCKET}", endpoint=s3).url == f"s3://{BUCKET}"


def test_a_port_that_accepts_and_says_nothing_is_given_up(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_mlops.blocks._bucket._TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = Store(url=bucket_url, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        sentence(ACTIONS["put"], store, StoreUnreachable)
