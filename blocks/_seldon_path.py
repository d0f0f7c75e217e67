"""The way from what a SeldonDeployment serves to what it shall serve, without a gap: pure arithmetic.

Seldon moves weights only while every predictor of the list is ready, and a predictor that is taken off the list is
ended at once. So what is missing is started at no weight beside what answers; then the weights move; then what is
not needed any more goes. A predictor that is not up would hold all of that up, so it goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """A predictor that is there.

    Attributes:
        name: Its name.
        percent: Percent of the requests that it is routed now.
        answers: Whether any of it is ready.
        is_up: Whether all of it is ready; what is not holds up every change of weights.
        is_shadow: Whether it only gets copies.
    """

    name: str
    percent: int
    answers: bool
    is_up: bool
    is_shadow: bool = False


@dataclass(frozen=True)
class Stage:
    """One list of predictors on the way.

    Attributes:
        percents: What each predictor gets, by name, in the order of the list; a shadow's is that of its copies.
        shadows: Which of them are shadows.
    """

    percents: Mapping[str, int]
    shadows: frozenset[str] = frozenset()

    @property
    def weights(self) -> dict[str, int]:
        """What is routed, as the routes say it: nothing of those that get nothing."""
        return {name: percent for name, percent in self.percents.items() if percent and name not in self.shadows}

    @property
    def mirror(self) -> tuple[str, int] | None:
        """The shadow and the percent of its copies."""
        return next(((name, self.percents[name]) for name in self.percents if name in self.shadows), None)


def path(standing: Iterable[Standing], wanted: Stage) -> list[Stage]:
    """The lists to go through, one after the other; the last one is `wanted`.

    Args:
        standing: What is there now.
        wanted: What shall be there.
    """
    there = {one.name: one for one in standing}
    answering = {one.name: one.percent for one in there.values() if one.answers and one.percent and not one.is_shadow}
    missing = [name for name in wanted.percents if name not in there or not there[name].is_up]
    stages: list[Stage] = []
    if missing and answering and set(missing) - wanted.shadows:
        stages.append(_beside(answering, wanted))
    going = [name for name in answering if name not in wanted.percents and there[name].is_up]
    if going:
        stages.append(_joined(wanted, dict.fromkeys(going, 0)))
    if not stages or stages[-1] != wanted:
        stages.append(wanted)
    return stages


def _beside(answering: Mapping[str, int], wanted: Stage) -> Stage:
    """What is wanted at no weight, beside what answers with the weights that it has."""
    first, *_ = sorted(answering, key=lambda name: -answering[name])
    whole = {**answering, first: answering[first] + 100 - sum(answering.values())}
    return _joined(wanted, whole, keep=False)


def _joined(wanted: Stage, more: Mapping[str, int], *, keep: bool = True) -> Stage:
    """`wanted`, its weights kept or not, with `more`; what is routed stands first, a shadow last."""
    own = {name: percent if keep else 0 for name, percent in wanted.percents.items() if name not in wanted.shadows}
    live = {name: percent for name, percent in (own | dict(more)).items() if percent}
    idle = {name: 0 for name in (own | dict(more)) if name not in live}
    shadows = {name: percent for name, percent in wanted.percents.items() if name in wanted.shadows}
    return Stage(live | idle | shadows, wanted.shadows)
