"""Real local places for tests: one without Prefect for each module, one with it at most once per pytest process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import psutil
import pytest
from prefect.logging.handlers import APILogHandler

from prefect_mlops.blocks import Answers, Environment, Floor, LocalServing, Split
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.entry import Released
from prefect_mlops.blocks.log import Draft
from prefect_mlops.deployments import cli
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import shift_traffic, snapshot_data, train_model

SERVICE = RECIPE.name
EASY = RECIPE.model_copy(update={"tests": [Floor("accuracy", 0.5), Answers()]})
"""The recipe with tests that a model of a few hundred rows passes, whatever is live."""


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def _place(where: Path | str) -> list[str]:
    """The home of a local place, or the url of a store elsewhere, as an option."""
    return ["--home", str(where)] if isinstance(where, Path) else ["--store", where]


def say(where: Path | str, *words: str) -> Said:
    """Give a command to the command line, in this process: Prefect is loaded already."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["prefect-mlops", *_place(where), *words]
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        cli.main()
    return Said(int(left.value.code or 0), out.getvalue(), err.getvalue())


def start(where: Path | str, *words: str, by: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
    """Give a command to the command line, in a process of its own, which a program with the words `by` starts."""
    command = [*by, sys.executable, "-m", "prefect_mlops.deployments.cli", *_place(where), *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **(pipes | options))


def run(where: Path | str, *words: str, **options: Any) -> Said:
    """Give a command to a process of its own, and wait for it."""
    process = start(where, *words, **options)
    out, err = process.communicate(timeout=280)
    return Said(process.returncode, out, err)


def api(place: Place, path: str, method: str = "POST", /, **body: Any) -> Any:
    """Ask the server; one on SQLite that says 503 wants to be asked again, as Prefect's own client does."""
    answers: list[httpx.Response] = []
    url, content = f"{place.prefect_url}/api/{path}", body if method != "GET" else None

    def answered() -> bool:
        answers.append(httpx.request(method, url, json=content, timeout=60))
        return answers[-1].status_code != 503

    assert wait_until(answered, seconds=60, pause=1)
    answer = answers[-1].raise_for_status()
    return answer.json() if answer.content else None


def ask(place: Place, **headers: str) -> httpx.Response:
    """Ask for a prediction at the front door."""
    example = {"age": 44, "workclass": "Private", "education": "Masters", "education-num": 12, "hours-per-week": 50}
    example |= {"fnlwgt": 1, "marital-status": "Divorced", "occupation": "Sales", "relationship": "Wife"}
    example |= {"race": "White", "sex": "Female", "capital-gain": 0, "capital-loss": 0, "native-country": "India"}
    url = say(place.home, "status", "--json").document["services"][SERVICE]["url"]
    question = {"data": {"names": list(example), "ndarray": [list(example.values())]}}
    return httpx.post(url, json=question, headers=headers, timeout=30)


def processes_of(home: Path) -> list[psutil.Process]:
    """Whatever runs with the home folder in its command line or environment, this process aside."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(home) in word for word in words):
                found.append(process)
    return found


def processes_of_run(run_id: str) -> list[psutil.Process]:
    """What a flow run that was started by a worker runs in, also in a pod of a node that runs here."""
    return [one for one in psutil.process_iter() if _env(one).get("PREFECT__FLOW_RUN_ID") == run_id]


def _env(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error):
        return process.environ()
    return {}


def begin(place: Place) -> Environment:
    """Begin the place's log without Prefect, with one small model server a release."""
    place.paths.make()
    environment = Environment(name="local", receipts=place.receipts)
    serving = place.serving.model_copy(update={"replicas": 1, "drain_seconds": 1})
    environment.use(place.store, serving, place.registry)
    environment.log()
    return environment


def release(environment: Environment, folder: Path, seed: int, reason: str = "") -> str:
    """Train a small model, and have it answer everything, with what answered before kept warm."""
    path = folder / f"census-{seed}.csv"
    census(600, seed=seed).to_csv(path, index=False)
    store, log = environment.store_block, environment.log()
    candidate = train_model.fn(store, RECIPE, snapshot_data.fn(store, path, SERVICE).snapshot)
    digest = store.put_release(candidate.release())
    known = log.state().service(SERVICE)
    body = Released(release=digest, number=len(known.numbers) + 1)
    log.append(lambda _: Draft(body, (SERVICE,), begins=True, reason=reason))
    split = Split.of(digest, warm=[arm.release for arm in known.split.live])
    shift_traffic.fn(environment, SERVICE, split, reason=reason, actor="ana")
    return digest


@contextlib.contextmanager
def a_place(home: Path) -> Generator[Place]:
    """A place in `home` that leaves nothing behind."""
    place = Place(home)
    try:
        yield place
    finally:
        place.down()
        assert processes_of(place.home) == []


def two_releases(place: Place, folder: Path) -> None:
    """Have credit-v2 live and credit-v1 warm, without Prefect."""
    environment = begin(place)
    for seed in (1, 2):
        release(environment, folder, seed, reason=f"model {seed}")


@pytest.fixture(scope="module")
def bare_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place that serves credit-v2, with credit-v1 warm, and in which Prefect was never started."""
    folder = tmp_path_factory.mktemp("bare")
    with a_place(folder / "home") as place:
        two_releases(place, folder)
        yield place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place that serves the same, with its Prefect server up and no worker."""
    folder = tmp_path_factory.mktemp("place")
    with a_place(folder / "home") as place:
        two_releases(place, folder)
        place.up(worker=False)
        serving = place.environment().target
        assert isinstance(serving, LocalServing)
        with place.settings():
            serving.save("local", overwrite=True)  # one model server a release, as it began
        yield place
        APILogHandler().flush()  # what Prefect still has to log would be tried for a minute after the server is gone
