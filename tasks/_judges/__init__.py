"""The judges of model tests, one function a kind. Free of Prefect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect_mlops.blocks import model_tests as kinds
from prefect_mlops.tasks._judges import beside, changing, on_holdout, planted, served
from prefect_mlops.tasks._judges.case import Case, Finding, Scored, Unmeasurable

JUDGES: dict[type[kinds.ModelTest], Callable[[Any, Case], Finding]] = {
    kinds.Floor: on_holdout.floor,
    kinds.PerSlice: on_holdout.per_slice,
    kinds.Invariant: changing.invariant,
    kinds.Direction: changing.direction,
    kinds.BeatsChampion: beside.champion,
    kinds.BeatsBaseline: beside.baseline,
    kinds.Generalises: on_holdout.generalises,
    kinds.NotTooGood: on_holdout.not_too_good,
    kinds.KnownSignal: planted.known_signal,
    kinds.Answers: served.answers,
    kinds.NoSlowerThan: served.no_slower_than,
    kinds.NoLargerThan: served.no_larger_than,
    kinds.Custom: on_holdout.custom,
}


def judged(test: kinds.ModelTest, case: Case) -> Finding:
    """What the judge of `test` finds; whatever goes wrong in it is a measurement that failed."""
    try:
        return JUDGES[type(test)](test, case)
    except Unmeasurable as error:
        return Finding("could not be measured", str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a team's model and functions may raise anything; the others still run
        return Finding("could not be measured", f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])


__all__ = ["JUDGES", "Case", "Finding", "Scored", "judged"]
