"""Having a split served by Seldon Core, stage by stage: write, wait until it is up, wait until the routes follow."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect_mlops.blocks import _seldon_answers as answers
from prefect_mlops.blocks import _seldon_manifest as seldon
from prefect_mlops.blocks._kubernetes import Cluster
from prefect_mlops.blocks._seldon_desk import Desk
from prefect_mlops.blocks._seldon_look import Look
from prefect_mlops.blocks._seldon_manifest import Json
from prefect_mlops.blocks._seldon_path import Stage, Standing, path
from prefect_mlops.blocks.errors import ArmNotReady, RoutesNotMoved
from prefect_mlops.blocks.split import Arm, Split

logger = logging.getLogger("prefect_mlops")

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Patience:
    """How long one waits, in seconds.

    Attributes:
        start: For a release to come up.
        move: For the routes to follow.
    """

    start: float
    move: float


@dataclass(frozen=True)
class Change:
    """A split that one service shall serve.

    Attributes:
        target: What serves, as people call it.
        cluster: Where the service is looked at.
        desk: Where its predictors are written.
        split: What it shall serve.
        rendered: Makes the predictor of an arm.
        patience: How long it may take.
    """

    target: str
    cluster: Cluster
    desk: Desk
    split: Split
    rendered: Callable[[Arm], Json]
    patience: Patience

    async def refusals(self) -> None:
        """Have the API server and the webhook judge it; nothing is changed.

        Raises:
            Owned, Refused: If it could not be written.
        """
        look = await Look.at(self.cluster, self.desk.service)
        await self.desk.try_out(look.manifest, listed(self._predictors(look), stage_of(self.split)))

    async def carry_out(self) -> None:
        """Go the way there.

        Raises:
            FenceTooLow, Owned, Refused, TargetUnreachable: As for `Desk.write`.
            ArmNotReady: If a release does not come up.
            RoutesNotMoved: If the routes do not follow.
        """
        look = await Look.at(self.cluster, self.desk.service)
        wanted = self._without_dead(look)
        predictors = self._predictors(look)
        for stage in path(_standing(look), wanted):
            await self.desk.write(listed(predictors, stage))
            await self._wait_up([name for name in stage.percents if name in wanted.percents])
            await self._wait_moved(stage)

    def _without_dead(self, look: Look) -> Stage:
        wanted, gone = stage_of(self.split), dead(look, self.split, self.patience.start)
        if gone:
            logger.warning("%s: %s would hold up every weight, so it is dropped", self.desk.service, ", ".join(gone))
        return Stage({name: one for name, one in wanted.percents.items() if name not in gone}, wanted.shadows)

    def _predictors(self, look: Look) -> dict[str, Json]:
        """Every predictor that is there or in the split: those that answer as they are, others as they are started."""
        arms = {seldon.name_of(arm): arm for arm in self.split.arms}
        new = {name: arm for name, arm in arms.items() if name not in look.predictors or not look.answers(name)}
        return look.predictors | {name: self.rendered(arm) for name, arm in new.items()}

    async def _wait_up(self, names: list[str]) -> None:
        """Wait until predictors are up and their pods answer with their releases."""
        began = time.monotonic()
        while True:
            look = await Look.at(self.cluster, self.desk.service)
            await self.desk.check(look.manifest)
            missing = [name for name in names if not await self._is_up(look, name)]
            if not missing:
                return
            waited = time.monotonic() - began
            for name in missing:
                if is_hopeless(look, name) or waited > self.patience.start:
                    words = await _last_words(self.cluster, look, name)
                    raise ArmNotReady(self.desk.service, self._arm(name).release, waited, words)
            await asyncio.sleep(POLL_SECONDS)

    async def _is_up(self, look: Look, name: str) -> bool:
        return look.is_up(name) and await answers.ready(self.cluster, look, self._arm(name)) > 0

    def _arm(self, name: str) -> Arm:
        return next(arm for arm in self.split.arms if seldon.name_of(arm) == name)

    async def _wait_moved(self, stage: Stage) -> None:
        """Wait until the routes are those of a stage."""
        began = time.monotonic()
        while True:
            look = await Look.at(self.cluster, self.desk.service)
            if (look.weights, look.mirror) == (stage.weights, stage.mirror):
                return
            waited = time.monotonic() - began
            if waited > self.patience.move:
                down = [f"{name}: {lacks}" for name in look.predictors if (lacks := look.lacks(name))]
                why = "; ".join(down) or "every predictor is up, so Seldon's operator did not act; is it running?"
                raise RoutesNotMoved(self.target, self.desk.service, waited, str(look.split()), why)
            await asyncio.sleep(POLL_SECONDS)


def stage_of(split: Split) -> Stage:
    """A split in predictors, live ones first."""
    shadows = frozenset(seldon.name_of(arm) for arm in split.arms if arm.role == "shadow")
    return Stage(seldon.weights(split), shadows)


def listed(predictors: dict[str, Json], stage: Stage) -> list[Json]:
    """The list of a stage, in its order."""
    return [{**predictors[name], "traffic": percent} for name, percent in stage.percents.items()]


def dead(look: Look, split: Split, start_seconds: float) -> list[str]:
    """The warm predictors of a split that are there, and do not come up."""
    names = [seldon.name_of(arm) for arm in split.arms if arm.role == "warm"]
    there = [name for name in names if name in look.predictors and not look.is_up(name)]
    return [name for name in there if is_hopeless(look, name) or _age(look, name) > start_seconds]


def is_hopeless(look: Look, name: str) -> bool:
    """Whether a predictor that is not up has a trouble that no waiting mends."""
    return any(trouble.hopeless for trouble in look.troubles(name))


def _age(look: Look, name: str) -> float:
    """For how many seconds a predictor has been there."""
    born = [datetime.fromisoformat(one["metadata"]["creationTimestamp"]) for one in look.deployments_of(name)]
    return (datetime.now(UTC) - max(born)).total_seconds() if born else 0.0


def _standing(look: Look) -> list[Standing]:
    return [
        Standing(
            name,
            look.weights.get(name, 0),
            answers=look.answers(name),
            is_up=look.is_up(name),
            is_shadow=bool(one.get("shadow")),
        )
        for name, one in look.predictors.items()
    ]


async def _last_words(cluster: Cluster, look: Look, name: str) -> str:
    """Why a predictor is not up: what is in the way, its pods' last events and log lines."""
    words = [trouble.words for trouble in look.troubles(name)] or [look.lacks(name) or "its pods do not answer"]
    for pod in look.pods_of(name)[:1]:
        pod_name = pod["metadata"]["name"]
        events = await cluster.list("events", fieldSelector=f"involvedObject.name={pod_name}")
        words += [str(event.get("message")) for event in events if event.get("type") == "Warning"][-3:]
        logs = [await cluster.last_lines(pod_name, seldon.CONTAINER, previous=previous) for previous in (True, False)]
        words += [" / ".join(text.split("\n")).strip(" /") for text in logs if text.strip()][:1]
    return "; ".join(dict.fromkeys(" ".join(word.split()) for word in words))[:1500]
