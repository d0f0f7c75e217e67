"""Every recording of the real operator is reproduced by the stand-in, and one changed by hand is noticed.

`SELDON_RECORDINGS` names the folder of the recordings; each is replayed on the node, several at once. Within one run
some things race, in Kubernetes itself too: what was recorded is one of the ways in which it can go, so a replay that
went another way is repeated.
"""

from __future__ import annotations

import asyncio
import copy
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import kube
from tests.cluster.node import Node
from tests.cluster.recordings import Comparison, Moment, Step, read
from tests.cluster.replay import replay

AT_ONCE, TRIES = 6, 3

Replayed = tuple[list[Step], list[str], list[list[Moment]]]


def recordings() -> dict[str, Path]:
    """The recordings to replay, by name."""
    named = os.environ.get("SELDON_RECORDINGS")
    if not named:
        return {}
    inner = Path(named, "no-engine")
    return {path.stem: path for path in sorted((inner if inner.is_dir() else Path(named)).glob("*.json"))}


@pytest.fixture(scope="module")
def replays(node: Node) -> dict[str, Replayed]:
    """What came of each recording's manifests here."""
    return asyncio.run(_replay_all(node.kubeconfig, recordings()))


async def _replay(client: kube.Client, steps: list[Step]) -> Replayed:
    for _ in range(TRIES - 1):
        found = steps, *await replay(client, f"replay-{secrets.token_hex(4)}", steps)
        if not Comparison(*found).differences():
            return found
    return steps, *await replay(client, f"replay-{secrets.token_hex(4)}", steps)


async def _replay_all(kubeconfig: Path, paths: dict[str, Path]) -> dict[str, Replayed]:
    places = asyncio.Semaphore(AT_ONCE)
    async with kube.connect(kubeconfig) as client:

        async def one(path: Path) -> Replayed:
            async with places:
                return await _replay(client, read(path))

        found = await asyncio.gather(*map(one, paths.values()))
    return dict(zip(paths, found, strict=True))


needs_recordings = pytest.mark.skipif(
    not recordings(), reason="no recordings of Seldon's operator; name their folder in SELDON_RECORDINGS"
)


@needs_recordings
@pytest.mark.parametrize("name", recordings())
def test_the_stand_in_does_what_the_operator_did(replays: dict[str, Replayed], name: str) -> None:
    assert Comparison(*replays[name]).differences() == []


# --- changed by hand -------------------------------------------------------------------------

Change = Callable[[list[Step]], Any]


def _last(steps: list[Step]) -> dict[str, Any]:
    return steps[-1].timeline[-1]


def _one(steps: list[Step], kind: str) -> dict[str, Any]:
    return next(one for name, one in steps[-1].objects.items() if name.startswith(f"{kind}/"))


def another_weight(steps: list[Step]) -> None:
    next(value for key, value in _last(steps).items() if key.startswith("routes "))[0][1] = 37


def another_host(steps: list[Step]) -> None:
    next(value for key, value in _last(steps).items() if key.startswith("routes "))[0][0] += "x"


def another_state(steps: list[Step]) -> None:
    _last(steps)["state"] = "Failed"


def another_label(steps: list[Step]) -> None:
    _one(steps, "Deployment")["spec"]["template"]["metadata"]["labels"]["version"] += "x"


def another_port(steps: list[Step]) -> None:
    _one(steps, "Service")["spec"]["ports"][0]["port"] += 1


def another_variable(steps: list[Step]) -> None:
    _one(steps, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"][-1]["value"] += "x"


def another_owner(steps: list[Step]) -> None:
    _one(steps, "VirtualService")["metadata"]["ownerReferences"][0]["controller"] = False


def another_reason(steps: list[Step]) -> None:
    _one(steps, "SeldonDeployment")["status"]["conditions"][1]["reason"] += "x"


def another_answer(steps: list[Step]) -> None:
    steps[-1] = Step(steps[-1].apply, steps[-1].answer + "x", steps[-1].timeline, steps[-1].objects)


def no_rule(steps: list[Step]) -> None:
    del steps[-1].objects[next(name for name in steps[-1].objects if name.startswith("DestinationRule/"))]


def one_more_object(steps: list[Step]) -> None:
    steps[-1].objects["Service/more"] = copy.deepcopy(_one(steps, "Service"))


def a_restarted_pod(steps: list[Step]) -> None:
    _last(steps)["pods"][0][1] = "pod-99"


def backwards(steps: list[Step]) -> None:
    steps[0].timeline.reverse()


def routes_before_readiness(steps: list[Step]) -> None:
    """As if traffic went to a predictor whose Deployment has no pod that is ready."""
    first, last = steps[0].timeline[0], steps[0].timeline[-1]
    first |= {key: value for key, value in last.items() if key.startswith(("routes ", "mirror "))}


def available_at_once(steps: list[Step]) -> None:
    steps[0].timeline[0]["state"] = "Available"


@needs_recordings
@pytest.mark.parametrize("name", recordings())
@pytest.mark.parametrize(
    "change",
    [
        another_weight, another_host, another_state, another_label, another_port, another_variable, another_owner,
        another_reason, another_answer, no_rule, one_more_object, a_restarted_pod, backwards,
        routes_before_readiness, available_at_once,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_a_recording_changed_by_hand_is_noticed(replays: dict[str, Replayed], name: str, change: Change) -> None:
    steps, answers, moments = replays[name]
    changed = copy.deepcopy(steps)
    change(changed)
    assert Comparison(changed, answers, moments).differences()
