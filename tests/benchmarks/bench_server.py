"""The model server against MLServer and Seldon's Python wrapper: requests per CPU second, one row each.

All three serve the same pickled pipeline over HTTP on loopback, each as its own process, and make a
data frame from the same rows. They are asked in turns, in several rounds, by one client that keeps a
number of connections busy; every request is another row. CPU time is that of the server's whole
process tree, from /proc. The peers run in their leanest form: no parallel workers, no metrics, no
access log, and a runtime class that leaves out every conversion which they would otherwise do. MLServer
is measured as it is installed, where it calls the model once per request, and with its adaptive
batching tuned by hand to this very load, which is not what anybody gets unasked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path
from typing import Any

import httpx
import uvloop

from tests.benchmarks import Benchmark, Unmeasured
from tests.benchmarks.peers import peer_python
from tests.deployments.server import wrapper
from tests.deployments.server.models import (
    NUMBERS,
    census,
    census_model,
    census_rows,
    census_signature,
    write_config,
    write_model,
)
from tests.deployments.server.processes import PROGRAM, until
from tests.deployments.server.wrapper import free_port

CONNECTIONS = 32
ROUNDS = 3
SECONDS = 4.0
ROWS = 512
BATCHING = {"max_batch_size": CONNECTIONS, "max_batch_time": 0.05}
MLSERVER = ("mlserver==1.7.1", "cloudpickle")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Peer:
    """One server that is measured: how to start it, where to ask it, and what."""

    name: str
    command: list[str]
    port: int
    path: str
    body: Callable[[list[Any]], dict[str, Any]]
    environment: dict[str, str]
    folder: Path
    benchmark: str = ""
    goal: float = 1.0

    def requests(self) -> list[bytes]:
        """One whole HTTP request per row."""
        return [self._request(row) for row in census_rows(ROWS)]

    def _request(self, row: list[Any]) -> bytes:
        body = json.dumps(self.body(row)).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def run() -> Iterator[Benchmark]:
    """Requests per CPU second on one row: ours beside each peer's, all in one run."""
    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        home = Path(name)
        files = write_model(home / "model", census_model(), census_signature())
        peers = [_ours(home, files)]
        for make in (_mlserver, _mlserver_batching, _seldon):
            try:
                peers.append(make(home))
            except Unmeasured as error:
                missing.append(str(error))
        leaders = [stack.enter_context(_running(peer)) for peer in peers]
        ours, *figures = _measure(peers, leaders)
        for peer, figure in zip(peers[1:], figures, strict=True):
            yield Benchmark(
                peer.benchmark, ours=ours, peer=figure, peer_name=peer.name, unit="requests/cpu s", goal=peer.goal
            )
    if missing:
        raise Unmeasured("; ".join(dict.fromkeys(missing)))


def _measure(peers: list[Peer], leaders: list[int]) -> list[float]:
    """The median figure of each peer over rounds in which they take turns."""
    figures: list[list[float]] = [[] for _ in peers]
    for peer in peers:
        uvloop.run(_load(peer, 1.5))
    for _ in range(ROUNDS):
        for index, peer in enumerate(peers):
            before = _cpu_seconds(leaders[index])
            answers, latencies = uvloop.run(_load(peer, SECONDS))
            spent = _cpu_seconds(leaders[index]) - before
            figures[index].append(answers / spent)
            p50, p99 = (statistics.quantiles(latencies, n=100)[at] * 1000 for at in (49, 98))
            print(
                f"{peer.name}: {answers / SECONDS:.0f}/s, {answers / spent:.0f} per CPU second, "
                f"{spent / SECONDS * 100:.0f} % CPU, p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                file=sys.stderr,
            )
    return [statistics.median(values) for values in figures]


class _Client:
    """Keeps a number of connections busy; does as little as can be done beside, so as not to be the limit."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.port, self.requests = port, itertools.cycle(requests)
        self.latencies: list[float] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopped = False
        self.tasks: set[asyncio.Task[None]] = set()

    def connect(self) -> None:
        """Open one more connection."""
        task = asyncio.get_running_loop().create_task(self._connect())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def fail(self, reason: str) -> None:
        """Give up: a server that does not answer is not measured."""
        if not self.failed.done():
            self.failed.set_exception(RuntimeError(reason))

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: _Connection(self), "127.0.0.1", self.port)


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as an answer is whole; opens another where the server closes this one."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._buffer = b""
        self._closing = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, body = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        head = head.lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"http/1.1 200"):
            self._client.fail(f"not answered: {self._buffer[:500]!r}")
        self._buffer = b""
        self._client.latencies.append(time.perf_counter() - self._sent)
        self._closing = b"connection: close" in head
        if self._client.stopped:
            self._transport.close()
        elif not self._closing:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._client.stopped:
            return
        if self._closing:
            self._client.connect()
        else:
            self._client.fail(f"the server closed the connection: {exc}")

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._client.requests))


async def _load(peer: Peer, seconds: float) -> tuple[int, list[float]]:
    """Keep the connections busy; returns how many answers came, and how long each took."""
    client = _Client(peer.port, peer.requests())
    for _ in range(CONNECTIONS):
        client.connect()
    await asyncio.wait([client.failed], timeout=seconds)
    count = len(client.latencies)
    client.stopped = True
    if client.failed.done():
        client.failed.result()
    return count, client.latencies


def _ours(home: Path, files: list[dict[str, Any]]) -> Peer:
    port = free_port()
    config = write_config(home, files, port=port)
    return Peer(
        name="prefect-mlops",
        command=[sys.executable, "-m", PROGRAM, str(config)],
        port=port,
        path="/api/v1.0/predictions",
        body=_seldon_body,
        environment={},
        folder=home,
    )


def _seldon_body(row: list[Any]) -> dict[str, Any]:
    return {"data": {"names": list(census(1).columns), "ndarray": [row]}}


def _seldon(home: Path) -> Peer:
    if util.find_spec("seldon_core") is None:
        raise Unmeasured("the Seldon wrapper is not installed: it is the extra `seldon`, for Python 3.12")
    port = free_port()
    folder = home / "seldon"
    folder.mkdir()
    return Peer(
        name=f"seldon-core {metadata.version('seldon-core')}",
        command=wrapper.command(home / "server.json", port),
        port=port,
        path="/api/v1.0/predictions",
        body=_seldon_body,
        environment=wrapper.environment(folder),
        folder=folder,
        benchmark="server_vs_seldon_wrapper",
        goal=5.0,
    )


_MLSERVER_RUNTIME = """
    import pickle

    import pandas as pd
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceResponse


    class Census(MLModel):
        async def load(self):
            self.fitted = pickle.loads(open({model!r}, "rb").read())
            return True

        async def predict(self, payload):
            frame = pd.DataFrame({{field.name: field.data.root for field in payload.inputs}})
            answer = self.fitted.predict_proba(frame)
            return InferenceResponse(
                model_name=self.name, id=payload.id, outputs=[NumpyCodec.encode_output("probabilities", answer)]
            )
"""


def _mlserver(home: Path) -> Peer:
    return _mlserver_with(home / "mlserver", home / "model", {}, "server_vs_mlserver", 3.0)


def _mlserver_batching(home: Path) -> Peer:
    peer = _mlserver_with(home / "batching", home / "model", BATCHING, "server_vs_mlserver_batching", 1.0)
    return replace(peer, name=f"{peer.name} with adaptive batching")


def _mlserver_with(folder: Path, model: Path, more: dict[str, Any], benchmark: str, goal: float) -> Peer:
    needed = [f"{name}=={metadata.version(name)}" for name in ("pandas", "scikit-learn", "numpy", "scipy")]
    python = peer_python("mlserver", [*MLSERVER, *needed])
    port = free_port()
    folder.mkdir()
    (folder / "census_runtime.py").write_text(textwrap.dedent(_MLSERVER_RUNTIME).format(model=str(model / "model.pkl")))
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(
        json.dumps({"name": "census", "implementation": "census_runtime.Census", **more})
    )
    return Peer(
        name=MLSERVER[0].replace("==", " "),
        command=[str(python.with_name("mlserver")), "start", str(folder)],
        port=port,
        path="/v2/models/census/infer",
        body=_mlserver_body,
        environment={"PYTHONPATH": str(folder)},
        folder=folder,
        benchmark=benchmark,
        goal=goal,
    )


def _mlserver_body(row: list[Any]) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "INT64" if name in NUMBERS else "BYTES", "data": [value]}
        for name, value in zip(census(1).columns, row, strict=True)
    ]
    return {"inputs": inputs}


@contextmanager
def _running(peer: Peer) -> Generator[int]:
    log = (peer.folder / "log.txt").open("wb")
    process = subprocess.Popen(
        peer.command,
        cwd=peer.folder,
        env={**os.environ, **ONE_THREAD, **peer.environment},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        until(lambda: _answers(peer, process), 90)
        yield process.pid
    except TimeoutError as error:
        words = (peer.folder / "log.txt").read_text(errors="replace")[-1500:]
        raise Unmeasured(f"{peer.name} did not start: {words}") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        log.close()


def _answers(peer: Peer, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise TimeoutError
    try:
        answer = httpx.post(f"http://127.0.0.1:{peer.port}{peer.path}", json=peer.body(census_rows(1)[0]), timeout=5)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def _cpu_seconds(leader: int) -> float:
    """User and system time of every process of the session of `leader`, dead children included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
