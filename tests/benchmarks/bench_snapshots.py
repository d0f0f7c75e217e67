"""Snapshots against borg and DVC: adding 2 GiB, adding it again, an edit of 1 %, and 20,000 small files.

Every tool gets the same files, in turns, and begins with an empty store; what it wrote is synced within its
time. borg neither encrypts nor compresses, as we do not, and DVC copies, the one of its ways in which a file of
the workspace can be edited without damage to the cache. The peers are measured as commands; of ours, what a task of a
running flow does: the snapshot and its commit, in a process that has loaded Prefect already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from tests.benchmarks import Benchmark, Unmeasured
from tests.benchmarks.peers import peer_python

LARGE = int(os.environ.get("SNAPSHOT_MIB", "2048")) << 20
EDITED = LARGE // 100
FILES, FILE_SIZE = 20_000, 10 << 10
FIRST_ADDS = 2
"""The better one counts, of every tool: on a virtual machine, memory that nothing has used for a while is slow once."""

MEMORY_MIB = 300
DVC = ("dvc==3.67.1",)


@dataclass(frozen=True)
class Figures:
    """What one tool took for one step: seconds, bytes that its store grew by, and MiB of memory, 0 if not known."""

    seconds: float
    growth: int
    peak: float


@dataclass(frozen=True)
class Tool:
    """A tool with an empty store of its own."""

    name: str
    store: Path
    start: Callable[[], Callable[[], float]]
    """Gets ready, and returns what adds the data and says how many MiB of memory that took."""

    def add(self, step: str) -> Figures:
        """One addition, synced."""
        add = self.start()
        os.sync()
        before, began = _size(self.store), time.perf_counter()
        peak = add()
        os.sync()
        figures = Figures(time.perf_counter() - began, _size(self.store) - before, peak)
        told = f"{figures.seconds:.2f} s, grew by {figures.growth / 1e6:.1f} MB, {peak:.0f} MiB of memory"
        print(f"{self.name}, {step}: {told}", file=sys.stderr)
        return figures


def run() -> Iterator[Benchmark]:
    """Ratios of seconds, the peer's to ours: how many times as fast; of bytes, and of memory."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        home = Path(name)
        yield from _large(home / "large")
        yield from _small(home / "small")


def _large(home: Path) -> Iterator[Benchmark]:
    data = home / "data.csv"
    data.parent.mkdir()
    _write_rows(data, LARGE)
    tools: list[Tool] = []
    adds: list[list[Figures]] = []
    for number in range(FIRST_ADDS):
        tools = [make(home / f"tools-{number}", data) for make in (_ours, _borg, _dvc)]
        adds.append([tool.add("first") for tool in tools])
        if number < FIRST_ADDS - 1:
            for tool in tools:
                shutil.rmtree(tool.store)
            data.with_name("data.csv.dvc").unlink()
    first = [min(of_one, key=lambda figures: figures.seconds) for of_one in zip(*adds, strict=True)]
    again = [tool.add("again") for tool in tools]
    with data.open("r+b") as file:
        file.seek(LARGE // 2)
        file.write(_rows(99, EDITED)[:EDITED])
    edited = [tool.add("edited") for tool in tools]
    _, borg, dvc = tools
    yield _faster("snapshot_first_vs_borg", first[0], first[1], borg, 2.0)
    yield _faster("snapshot_first_vs_dvc", first[0], first[2], dvc, 4.0)
    yield _faster("snapshot_again_vs_dvc", again[0], again[2], dvc, 1.0)
    growth = edited[0].growth
    yield Benchmark("snapshot_edit_growth", growth, EDITED, "bytes that were edited", "B", 1.2, at_most=True)
    peak = max(figures[0].peak for figures in (first, again, edited))
    yield Benchmark("snapshot_memory", peak, MEMORY_MIB, "bound", "MiB", 1.0, at_most=True)


def _small(home: Path) -> Iterator[Benchmark]:
    data = home / "data"
    data.mkdir(parents=True)
    content = np.random.default_rng(7).integers(32, 127, FILES * FILE_SIZE, np.uint8).tobytes()
    for number in range(FILES):
        folder = data / f"{number // 1000}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}").write_bytes(content[number * FILE_SIZE : (number + 1) * FILE_SIZE])
    tools = [make(home / "tools", data) for make in (_ours, _borg)]
    first = [tool.add("small") for tool in tools]
    again = [tool.add("small again") for tool in tools]
    yield _faster("snapshot_small_vs_borg", first[0], first[1], tools[1], 2.0)
    yield _faster("snapshot_small_again_vs_borg", again[0], again[1], tools[1], 1.0)


def _faster(name: str, ours: Figures, peer: Figures, tool: Tool, goal: float) -> Benchmark:
    return Benchmark(name, 1 / ours.seconds, 1 / peer.seconds, tool.name, "1/s", goal)


_OURS = """
import sys
from pathlib import Path
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.store import Store
print("ready", flush=True)
sys.stdin.readline()
store = Store(url=sys.argv[1])
Branch(store, "main").commit(store.pack(Path(sys.argv[2])), source=sys.argv[2])
print("done", *(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), flush=True)
"""


def _ours(home: Path, data: Path) -> Tool:
    store = home / "ours"
    store.mkdir(parents=True)

    def start() -> Callable[[], float]:
        command = [sys.executable, "-c", _OURS, str(store), str(data)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout
        stdout.readline()

        def add() -> float:
            stdin.write("go\n")
            stdin.flush()
            return float(stdout.readline().split()[1]) / 1024

        return add

    return Tool("prefect-mlops", store, start)


def _borg(home: Path, data: Path) -> Tool:
    program = shutil.which("borg")
    if program is None:
        raise Unmeasured("borg is not installed; Debian has it as borgbackup")
    store = home / "borg"
    environment = {"BORG_BASE_DIR": str(home / "borg-home"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
    _run([program, "init", "--encryption", "none", str(store)], environment)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def start() -> Callable[[], float]:
        create = [program, "create", "--compression", "none", f"{store}::{time.time_ns()}", str(data)]
        return lambda: _run(create, environment)

    return Tool(version, store, start)


def _dvc(home: Path, data: Path) -> Tool:
    program = str(peer_python("dvc", list(DVC)).with_name("dvc"))
    environment = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(home / "dvc-site")}
    for words in (["init", "--no-scm"], ["config", "cache.type", "copy"]):
        _run([program, *words], environment, data.parent)
    add = [program, "add", str(data)]
    return Tool(DVC[0].replace("==", " "), data.parent / ".dvc", lambda: lambda: _run(add, environment, data.parent))


def _run(command: list[str], environment: dict[str, str], folder: Path | None = None) -> float:
    """Run a command to its end; its memory is not known."""
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=folder, capture_output=True, check=False)
    if done.returncode:
        raise Unmeasured(f"{command[0]} {command[1]}: {done.stderr.decode(errors='replace')[-300:]}")
    return 0.0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def _write_rows(path: Path, size: int) -> None:
    with path.open("wb") as file:
        seed = 0
        while (left := size - file.tell()) > 0:
            file.write(_rows(seed, 64 << 20)[:left])
            seed += 1


def _rows(seed: int, size: int) -> bytes:
    """At least `size` bytes of a table as text, which nothing else has."""
    draw = np.random.default_rng(seed)
    count = size // 60 + 1000
    table = pa.table(
        {
            "id": draw.integers(0, 1 << 48, count),
            "age": draw.integers(17, 90, count),
            "amount": draw.normal(1000, 300, count).round(2),
            "score": draw.random(count),
            "kind": pa.array(np.array(["Private", "Self-emp-inc", "Local-gov"])[draw.integers(0, 3, count)]),
        }
    )
    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False))
    return sink.getvalue().to_pybytes()
