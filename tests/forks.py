"""Calls in processes of their own that begin at once, for tests that kill them at random moments.

`python -m tests.forks FOLDER MODULE...` imports the modules, then reads one call a line from standard input, forks a
process for it and answers with its number. A fork, not a new interpreter: seconds of imports would be where nearly
every kill lands. What a call that came to its end has to say is in `FOLDER/<number>.json`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import psutil

from prefect_mlops.blocks._functions import function_named
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.deployments.local import _process as process

ROOT = Path(__file__).resolve().parents[1]
CALL_SECONDS = 120.0
UNKNOWN_SECONDS = 6.0


def drawn() -> random.Random:
    """What draws a test's moments; `KILL_SEED` sets it, and a test that fails shows what it was."""
    seed = int(os.environ.get("KILL_SEED", "7"))
    print(f"KILL_SEED={seed}")
    return random.Random(seed)


@dataclass(frozen=True)
class Proc:
    """A process that is told apart from every later one with its number."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int | None) -> Proc | None:
        """The process `pid`, or None if it is gone."""
        started = process.started(pid) if pid else None
        return cls(pid, started) if pid and started else None

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return process.started(self.pid) == self.started

    def kill(self, number: int) -> bool:
        """Send it a signal; whether it was there to get it."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


@dataclass
class Moments:
    """Moments of runs: anywhere in the time that such a run takes when nobody disturbs it."""

    random: random.Random
    known: dict[Any, list[float]] = field(default_factory=lambda: defaultdict(list))

    def learn(self, kind: Any, seconds: float) -> None:
        """A run of this kind came to its end after so many seconds."""
        self.known[kind].append(seconds)

    def draw(self, kind: Any) -> float:
        """Seconds after the start of a run of this kind."""
        return self.random.uniform(0, statistics.median(self.known[kind][-9:] or [UNKNOWN_SECONDS]))


@dataclass
class Fork:
    """One call, in a process of its own."""

    number: int
    proc: Proc
    began: float
    folder: Path

    def report(self) -> dict[str, Any] | None:
        """How it ended; None if it did not, or was killed."""
        try:
            return json.loads((self.folder / f"{self.number}.json").read_bytes())
        except FileNotFoundError:
            return None

    @property
    def seconds(self) -> float:
        """How long it took, once it came to its end."""
        return (self.report() or {})["seconds"]

    def result(self) -> Any:
        """What the call returned, once it did; what it raised fails the test."""
        assert wait_until(lambda: not self.proc.alive, seconds=CALL_SECONDS, pause=0.005)
        found, log = self.report(), (self.folder / f"{self.number}.log").read_text()
        assert found is not None, log
        assert found["error"] is None, log
        return found["said"]

    def killed_after(self, seconds: float) -> bool:
        """Kill it so long after its start; whether it was still at work."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))
        struck = self.proc.kill(signal.SIGKILL)
        gone = wait_until(lambda: not psutil.pid_exists(self.proc.pid), seconds=10, pause=0.001)
        assert gone  # with the last of its threads, which may still write: till then its locks are held
        return struck and self.report() is None


class Forks:
    """Starts calls of functions of modules that it imported once.

    Args:
        folder: Gets what the calls say.
        modules: What to import before the first call; one that has a function `warm` is told to.
        env: Settings that the calls get, beside those of this process.
    """

    def __init__(self, folder: Path, *modules: str, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._started: list[Proc] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", str(folder), *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(env or {})},
        )  # fmt: skip
        self._line()

    def start(self, function: str, **arguments: Any) -> Fork:
        """Call `module:function` with arguments that are plain data."""
        assert self._process.stdin
        number = len(self._started)
        call = {"number": number, "function": function, "arguments": arguments}
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        pid = int(self._line())
        self._started.append(Proc.of(pid) or Proc(pid, "over already"))
        return Fork(number, self._started[-1], time.monotonic(), self.folder)

    def _line(self) -> str:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            self.stop()
            raise RuntimeError("the starter of calls died")
        return line

    def stop(self) -> None:
        """Start no more, and end what a failed test left at work."""
        self._process.communicate(timeout=30)
        for started in self._started:
            started.kill(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def carry_out(call: dict[str, Any], folder: Path) -> None:
    """Make a call in this process, and write down how it ended."""
    began = time.monotonic()
    report: dict[str, Any] = {"error": None, "said": None}
    try:
        report["said"] = function_named(call["function"], "function")(**call["arguments"])
    except Exception as error:
        report |= {"error": type(error).__name__, "said": str(error)}
        traceback.print_exc()
    report["seconds"] = time.monotonic() - began
    draft = folder / f".{call['number']}"
    draft.write_text(json.dumps(report))
    draft.rename(folder / f"{call['number']}.json")


def fork(work: Callable[[], None], output: Path) -> int:
    """Do `work` in a process of its own, which is told apart from its parent by nobody."""
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # pyarrow's threads idle
    if (child := os.fork()) != 0:
        return child
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        null, log = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for fd, there in ((null, 0), (log, 1), (log, 2)):
            os.dup2(fd, there)
        work()
        sys.stdout.flush()
    finally:
        os._exit(0)


def main(folder: Path, *modules: str) -> None:
    """Fork one process a call until standard input ends."""
    for module in map(import_module, modules):
        getattr(module, "warm", lambda _: None)(folder)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits: a killed call leaves no zombie
    print("ready", flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        pid = fork(lambda call=call: carry_out(call, folder), folder / f"{call['number']}.log")
        print(pid, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
