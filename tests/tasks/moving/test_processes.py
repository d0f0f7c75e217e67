"""Two real processes on one log: one wins, the other says why; who stalls and wakes changes nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefect_mlops.blocks.entry import Asked, Takeover, Writer
from prefect_mlops.blocks.errors import StoreUnreachable
from prefect_mlops.blocks.split import Split
from prefect_mlops.blocks.store import Store
from prefect_mlops.blocks.verify import verify
from prefect_mlops.blocks.writer import is_gone, process_mark
from prefect_mlops.tasks._moving import Plan, move, take_over
from tests.blocks.log.stories import Teller, digest
from tests.blocks.store.servers import ACCESS, DROP_ANSWER, DROP_REQUEST, PASS, SECRET, proxied
from tests.tasks.moving.doubles import memory_place
from tests.tasks.moving.mover import FileTarget, open_log

ROOT = Path(__file__).resolve().parents[3]


class Mover:
    """A process that moves traffic."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self.process, self.name = process, name

    def tell(self, store: Store, gateway: Path, do: str, service: str, release: str) -> None:
        assert self.process.stdin is not None
        where = {"url": store.url, "endpoint": store.endpoint, "gateway": str(gateway)}
        self.process.stdin.write(json.dumps({**where, "do": do, "service": service, "release": release}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@contextmanager
def mover(name: str) -> Generator[Mover]:
    command = [sys.executable, "-m", "tests.tasks.moving.mover", name]
    keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    environment = {**os.environ, **keys}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Mover(process, name)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def movers() -> Generator[list[Mover]]:
    with ExitStack() as stack:
        movers = [stack.enter_context(mover(name)) for name in ("anna", "bert")]
        for one in movers:
            assert one.answer() == {"ready": one.name}
        yield movers


def test_of_two_releases_at_once_one_wins_and_the_other_says_why(
    movers: list[Mover], connect: Callable[[], Store], tmp_path: Path
) -> None:
    gateway = tmp_path / "gateway"
    log = open_log(connect(), "eye")
    log.begin({})
    for number in range(12):
        service = f"credit-{number}"
        for place, one in enumerate(movers):
            one.tell(log.store, gateway, "number", service, digest(place))
        assert all("entry" in one.answer() for one in movers)
        for one in movers[:: 1 if number % 2 else -1]:
            one.tell(log.store, gateway, "move", service, digest(movers.index(one)))
        answers = [one.answer() for one in movers]
        (won,) = [place for place, answer in enumerate(answers) if "entry" in answer]
        lost = answers[1 - won]
        assert lost["error"] in {"ServiceBusy", "Superseded"}
        assert f"run {movers[won].name}, by tester" in lost["says"]
        assert "nothing was changed" in lost["says"]
        assert FileTarget(gateway).observe(service).routes == Split.of(digest(won))
    assert [service.asked for service in log.state().services.values()] == [None] * 12
    assert [fault for fault in verify(log).faults if fault.key.startswith("log/")] == []


def test_a_stalled_process_that_wakes_after_a_take_over_changes_nothing(
    movers: list[Mover], connect: Callable[[], Store], tmp_path: Path
) -> None:
    anna, target = movers[0], FileTarget(tmp_path / "gateway")
    log = open_log(connect(), "reconcile")
    teller = Teller(log)
    for number in (1, 2):
        teller.released(digest(number))
    place = memory_place(log.store, target)
    move(place, log, "credit", Plan(after=Split.of(digest(1))))
    move(place, log, "credit", Plan(after=Split()))
    anna.tell(log.store, target.path, "stall", "credit", digest(2))
    assert os.waitpid(anna.process.pid, os.WUNTRACED) == (anna.process.pid, (signal.SIGSTOP << 8) | 0x7F)
    asked = log.state().service("credit").asked
    assert asked is not None
    assert psutil.Process(anna.process.pid).status() == psutil.STATUS_STOPPED
    assert not is_gone(asked.writer)

    closed = take_over(place, log, "credit", at_once=True, reason="it stalled")
    assert closed is not None
    assert closed.closes == asked.seq
    head, served = log.state().head, target.observe("credit")

    os.kill(anna.process.pid, signal.SIGCONT)
    answer = anna.answer()
    assert answer["error"] == "TakenOver"
    assert f"log entry {asked.seq} of credit was taken over" in answer["says"]
    assert log.state().head == head
    assert target.observe("credit") == served
    assert not is_gone(asked.writer)


def test_a_process_is_gone_when_it_ended_also_if_nobody_buried_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        writer = Writer(nonce="", host=socket.gethostname(), process=process_mark(process.pid), code="")
        assert not is_gone(writer)
        assert not is_gone(writer.model_copy(update={"host": "elsewhere", "process": "1@0"}))
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(writer)
    assert is_gone(writer)
    assert not is_gone(writer.model_copy(update={"process": "of another program"}))


@pytest.mark.parametrize("action", [DROP_ANSWER, DROP_REQUEST])
@pytest.mark.usefixtures("keys")
def test_on_s3_an_append_whose_answer_is_lost_is_there_once(
    s3: str, bucket_url: str, tmp_path: Path, action: str
) -> None:
    """Every first try at a log entry loses its answer; the whole protocol goes through, once."""
    tried: set[str] = set()

    def first_try(method: str, path: str) -> str:
        fresh = method == "PUT" and "/log/local/" in path and path not in tried
        tried.add(path if fresh else "")
        return action if fresh else PASS

    with proxied(s3) as proxy:
        log = open_log(Store(url=bucket_url, endpoint=proxy.url), "anna")
        teller = Teller(log)
        teller.released(digest(1))
        proxy.decide = first_try
        closed = move(
            memory_place(log.store, FileTarget(tmp_path / "gateway")), log, "credit", Plan(after=Split.of(digest(1)))
        )
    entries = list(open_log(Store(url=bucket_url, endpoint=s3), "eye").entries())
    assert [entry.kind for entry in entries] == ["genesis", "released", "asked", "observed"]
    assert entries[-1] == closed
    assert len({entry.writer.nonce for entry in entries}) == 4


def goes_down_after(key: str) -> Callable[[str, str], str]:
    """The server carries out the put of `key`, and nobody hears of it, nor of anything else."""
    seen: list[str] = []

    def decide(method: str, path: str) -> str:
        if method == "PUT" and path.endswith(key) and not seen:
            seen.append(path)
            return DROP_ANSWER
        return DROP_REQUEST if seen else PASS

    return decide


@pytest.mark.usefixtures("keys")
def test_on_s3_the_same_run_carries_on_when_the_store_is_back(s3: str, bucket_url: str, tmp_path: Path) -> None:
    """The ask was written, and nobody said so: the second try finishes it and asks again, under its own number."""
    target = FileTarget(tmp_path / "gateway")
    with proxied(s3) as proxy:
        log = open_log(Store(url=bucket_url, endpoint=proxy.url), "anna")
        Teller(log).released(digest(1))
        place = memory_place(log.store, target)
        plan = Plan(after=Split.of(digest(1)), before=Split())
        proxy.decide = goes_down_after("/log/local/000000000002")
        with pytest.raises(StoreUnreachable):
            move(place, log, "credit", plan)
        proxy.decide = lambda method, path: PASS
        closed = move(place, log, "credit", plan)
    entries = list(open_log(Store(url=bucket_url, endpoint=s3), "eye").entries())
    bodies = [type(entry.body) for entry in entries if isinstance(entry.body, (Asked, Takeover))]
    assert bodies == [Asked, Takeover, Asked]
    assert closed.seq == entries[-1].seq
    assert target.observe("credit").routes == plan.after
