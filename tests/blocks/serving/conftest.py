from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from prefect_mlops.blocks import LocalServing, Release, Split, Store
from prefect_mlops.blocks._wait import wait_until

STUB = (sys.executable, str(Path(__file__).with_name("stub_server.py")))
NONE = "sha256:" + "0" * 64
PREDICTIONS = "/api/v1.0/predictions"


@dataclass
class Answer:
    began: float
    ended: float
    status: int
    release: str | None
    body: Any = None
    error: str = ""


@dataclass
class Place:
    """A local place of its own, with a store and model servers that do as they are told."""

    folder: Path
    home: Path
    store: Store
    fence: int = 0

    def serving(self, **fields: Any) -> LocalServing:
        serving = LocalServing.model_validate({"home": self.home, "start_seconds": 20, **fields})
        serving._command = STUB
        return serving

    def release(self, answer: str, service: str = "credit", **behaviour: Any) -> str:
        folder = self.folder / "models" / service / answer
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "behaviour.json").write_text(json.dumps({"answer": answer, **behaviour}))
        model = self.store.add(folder).id
        digests = dict.fromkeys(("data", "code", "runtime", "tests", "probes"), NONE)
        return self.store.put_release(Release(service=service, model=model, **digests))

    def apply(self, split: Split, service: str = "credit", **fields: Any) -> None:
        self.fence += 1
        self.serving(**fields).apply(service, split, fence=self.fence, store=self.store)

    def ask(
        self,
        pin: str | None = None,
        service: str = "credit",
        body: bytes = b"{}",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        address = self.serving().address(service, pin)
        parts = urlsplit(address.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
        try:
            return exchange(connection, parts.path + PREDICTIONS, body, {**address.headers, **(headers or {})})
        finally:
            connection.close()

    def pid(self, release: str, number: int = 0, service: str = "credit") -> int:
        return self.program(f"{service}-{release[7:23]}-{number}")

    def program(self, name: str) -> int:
        pid = self.serving()._supervisor.recorded_pid(name)
        assert pid is not None
        return pid

    def supervisor(self) -> int:
        return int(json.loads((self.home / "run" / "lock").read_bytes())["pid"])

    def processes(self) -> list[psutil.Process]:
        """Every process that was started for this home."""
        return [one for one in psutil.process_iter() if str(self.home) in " ".join(_command(one))]

    @contextmanager
    def traffic(self, threads: int = 2, service: str = "credit") -> Generator[Traffic]:
        traffic = Traffic(self.serving().address(service).url)
        traffic.start(threads)
        try:
            yield traffic
        finally:
            traffic.stop()


@dataclass
class Traffic:
    """Clients that keep their connections and ask again and again."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, threads: int) -> None:
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        while not self._stop.wait(0.002):
            answer = exchange(connection, parts.path + PREDICTIONS, b'{"data": {"ndarray": [[1]]}}')
            self.answers.append(answer)
            if answer.status != 200:
                connection.close()
        connection.close()

    def wait(self, more: int, seconds: float = 20) -> None:
        """Until `more` further answers have come."""
        wanted = len(self.answers) + more
        assert wait_until(lambda: len(self.answers) >= wanted, seconds=seconds), "traffic stands still"

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    def by_release(self) -> Counter[str | None]:
        return Counter(answer.release for answer in self.answers if answer.status == 200)


def exchange(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str] | None = None
) -> Answer:
    began = time.monotonic()
    try:
        connection.request("POST", path, body, {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return Answer(began, time.monotonic(), 0, None, error=repr(error))
    with suppress(ValueError):
        data = json.loads(data)
    return Answer(began, time.monotonic(), response.status, response.getheader("x-release"), data)


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_place(folder: Path) -> Place:
    return Place(folder, folder / "h", Store(url=str(folder / "store")))


@contextmanager
def place_in(folder: Path) -> Generator[Place]:
    place = make_place(folder)
    try:
        yield place
    finally:
        place.serving().stop()
        left = place.processes()
        assert not left, [one.cmdline() for one in left]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One place for a whole module; each test brings it where it wants it."""
    with place_in(tmp_path_factory.mktemp("place")) as made:
        yield made
