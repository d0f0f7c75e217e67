"""Starts what the storm kills: `python -m tests.storm.acts HOME RESULTS`.

Reads one act a line from standard input, forks a process for it and answers with its number. A fork,
not a new interpreter: four seconds of imports would be where nearly every kill lands. The results of
an act that came to its end are in `RESULTS/<number>.json`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow

from prefect_mlops.blocks import Environment, ModelRegistry
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.flows import _rollout, reconcile_serving, release_model, rollback_release
from prefect_mlops.flows._rollout import Rollout
from prefect_mlops.flows.reconcile import reconcile
from prefect_mlops.flows.release import roll_out
from prefect_mlops.flows.rollback import roll_back
from prefect_mlops.tasks import shift_traffic
from prefect_mlops.tasks.traffic import open_log
from tests.storm.home import SERVICE, environment_of, recipes

Act = dict[str, Any]


def begun(environment: Environment, release: str) -> Rollout:
    """A rollout of a release that was trained before."""
    rollout = Rollout(environment, open_log(environment), SERVICE, release, "storm")
    rollout.begin()
    return rollout


@flow(name="release-model", flow_run_name="release", persist_result=False)
def roll_out_again(release: str) -> None:
    """The second half of `release_model`, for a release that was trained before."""
    roll_out(begun(Environment.find("local"), release))


def with_prefect(act: Act, results: Path) -> Any:
    """Carry out an act as a flow run."""
    match act["kind"]:
        case "release":
            return roll_out_again(act["to"])
        case "whole release":
            return release_model(recipes()[act["to"]], data=results / act["to"], environment="local", reason="storm")
        case "rollback":
            return rollback_release(SERVICE, to=act["to"], environment="local", reason="storm")
        case _:
            return reconcile_serving("local")


def without_prefect(act: Act, environment: Environment) -> Any:
    """Carry out an act while Prefect is down."""
    match act["kind"]:
        case "release":
            for name in ("shift_traffic", "probe_release", "watch_release"):  # as functions: a task needs its server
                setattr(_rollout, name, getattr(_rollout, name).fn)
            return roll_out(begun(environment, act["to"]))
        case "rollback":
            return roll_back(environment, SERVICE, act["to"], reason="storm", shift=shift_traffic.fn).seq
        case _:
            return reconcile(environment, shift=shift_traffic.fn)


def carry_out(act: Act, home: Path, results: Path) -> None:
    """Carry out an act in this process, and write down how it ended."""
    began = time.monotonic()
    report: dict[str, Any] = {"error": None, "said": ""}
    try:
        if act["prefect"]:
            report["said"] = str(with_prefect(act, results))
        else:
            report["said"] = str(without_prefect(act, environment_of(home, warm_minutes=act["warm_minutes"])))
    except Exception as error:
        report |= {"error": type(error).__name__, "said": str(error), "expected": isinstance(error, MlopsError)}
        traceback.print_exc()
    report["seconds"] = time.monotonic() - began
    draft = results / f".{act['number']}"
    draft.write_text(json.dumps(report))
    draft.rename(results / f"{act['number']}.json")


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


def main(home: Path, results: Path) -> None:
    """Fork one process an act until standard input ends."""
    ModelRegistry(tracking_uri=f"sqlite:///{results}/warm.db", artifacts=str(results)).version_of("a", "b")  # imports
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits: a killed act leaves no zombie
    print("ready", flush=True)
    for line in sys.stdin:
        act = json.loads(line)
        pid = fork(lambda act=act: carry_out(act, home, results), results / f"{act['number']}.log")
        print(pid, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
