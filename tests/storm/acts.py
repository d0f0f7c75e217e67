"""What the storm kills: acts that `tests.forks` carries out in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from prefect_mlops.blocks import Environment, ModelRegistry
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows import _rollout, reconcile_serving, release_model, rollback_release
from prefect_mlops.flows._rollout import Rollout
from prefect_mlops.flows.reconcile import reconcile
from prefect_mlops.flows.release import Strategy, roll_out
from prefect_mlops.flows.rollback import roll_back
from prefect_mlops.tasks import shift_traffic
from prefect_mlops.tasks.traffic import open_log
from tests.storm.home import EASY, SERVICE, environment_of, recipes

Act = dict[str, Any]


def begun(environment: Environment, release: str) -> Rollout:
    """A rollout of a release that was trained before."""
    rollout = Rollout(environment, open_log(environment), SERVICE, release, "storm")
    rollout.begin()
    return rollout


@flow(name="release-model", flow_run_name="release", persist_result=False)
def roll_out_again(release: str, strategy: Strategy) -> str:
    """The second half of `release_model`, for a release that was trained before."""
    roll_out(begun(Environment.find("local"), release), strategy)
    return release


def with_prefect(act: Act, results: Path) -> Any:
    """Carry out an act as a flow run."""
    how: Any = {"strategy": act.get("strategy", "blue-green")}
    match act["kind"]:
        case "release":
            return roll_out_again(act["to"], **how)
        case "whole release":
            recipe, data = recipes().get(act["to"], EASY), results / act["to"]
            return release_model(recipe, data=data, environment="local", reason="storm", **how)
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


def act(home: str, folder: str, kind: str, *, prefect: bool, heartbeats: bool = True, **more: Any) -> str:
    """Carry out an act on a home, whose data files are in `folder`."""
    act: Act = {"kind": kind, **more}
    if prefect:
        with Place(Path(home)).settings(heartbeats=heartbeats):
            return str(with_prefect(act, Path(folder)))
    return str(without_prefect(act, environment_of(Path(home), warm_minutes=act["warm_minutes"])))


def warm(folder: Path) -> None:
    """Import what is imported late."""
    ModelRegistry(tracking_uri=f"sqlite:///{folder}/warm.db", artifacts=str(folder)).version_of("a", "b")
