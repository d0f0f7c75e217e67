"""Recordings of what Seldon's operator did, and whether a replay of one shows the same.

A recording holds samples, some ten a second. A replay holds every change, in the order in which the API server made
them. They agree if the recording could be a sampling of the replay: the same answers, the same objects in the end,
and each fact in the same order, by itself and beside those that depend on it. Seconds are not compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

from tests.cluster.kube import Json

LASTING_SECONDS = 1.0
_NAMES = {"state", "ready"}
_ROUTED = ("routes ", "mirror ")

Facts = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One manifest that was applied, and what came of it."""

    apply: Json
    answer: str
    timeline: list[Json]
    objects: dict[str, Json]

    @property
    def wanted(self) -> set[str]:
        """The predictors, by the names of their Deployments up to the component's number."""
        name = self.apply["metadata"]["name"]
        return {f"{name}-{one['name']}-" for one in self.apply.get("spec", {}).get("predictors", [])}


@dataclass(frozen=True)
class Moment:
    """One stretch of a replay in which no fact changed; `objects` are those at its end."""

    entry: Json
    seconds: float
    objects: dict[str, Json]


def read(path: Path) -> list[Step]:
    """The steps of a recording."""
    return [Step(*(one[key] for key in ("apply", "answer", "timeline", "objects"))) for one in json.loads(path.read_text())]


# --- facts -----------------------------------------------------------------------------------


class Pods:
    """Which pods of a Deployment came together, so that it does not matter which of them is called first."""

    def __init__(self, entries: Iterable[Json], sizes: dict[str, list[int]] | None = None) -> None:
        first: dict[tuple[str, str], int] = {}
        for number, entry in enumerate(entries):
            for deployment, name, *_ in entry.get("pods", []):
                first.setdefault((deployment, name), number)
        self._group: dict[tuple[str, str], int] = {}
        self.sizes: dict[str, list[int]] = {}
        for deployment, pods in groupby(sorted(first, key=lambda pod: (pod[0], first[pod], pod[1])), lambda pod: pod[0]):
            self._assign(deployment, list(pods), first, (sizes or {}).get(deployment))

    def _assign(self, deployment: str, pods: list[Any], first: dict[Any, int], sizes: list[int] | None) -> None:
        together = sizes or [len(list(each)) for _, each in groupby(pods, lambda pod: first[pod])]
        groups = [number for number, size in enumerate(together) for _ in range(size)]
        more = range(len(together), len(together) + len(pods))
        for pod, group in zip(pods, [*groups, *more], strict=False):
            self._group[pod] = group
        self.sizes[deployment] = together if len(pods) == sum(together) else [*together, len(pods) - sum(together)]

    def facts(self, entry: Json) -> Facts:
        """An entry of a timeline as facts, each under a name of its own."""
        found: Facts = {key: value for key, value in entry.items() if key not in {"after_s", "pods"}}
        for deployment, name, *state in entry.get("pods", []):
            found.setdefault(f"pods {deployment} {self._group[deployment, name]}", []).append(state)
        return {key: sorted(value) if key.startswith("pods ") else value for key, value in found.items()}


def _ours(name: str) -> bool:
    """Whether a fact is the operator's own doing."""
    return name in _NAMES or name.startswith(_ROUTED)


# --- comparison ------------------------------------------------------------------------------


class Comparison:
    """A recording beside a replay of it."""

    def __init__(self, steps: list[Step], answers: list[str], replay: list[list[Moment]]) -> None:
        self._steps, self._answers, self._replay = steps, answers, replay
        self._recorded_pods = Pods(entry for step in steps for entry in step.timeline)
        self._replayed_pods = Pods((one.entry for each in replay for one in each), self._recorded_pods.sizes)

    def differences(self) -> list[str]:
        """What the two disagree about, in words; empty if they agree."""
        found = [f"step {number}: {said}" for number in range(len(self._steps)) for said in self._step(number)]
        ours, theirs = self._recorded_pods.sizes, self._replayed_pods.sizes
        for name in sorted(ours.keys() | theirs.keys()):
            if sum(ours.get(name, [])) != sum(theirs.get(name, [])):
                found.append(f"pods of {name}: {ours.get(name)} recorded, {theirs.get(name)} replayed")
        return found

    def _step(self, number: int) -> Iterator[str]:
        step, moments = self._steps[number], self._replay[number]
        if step.answer != self._answers[number]:
            yield f"answer: {step.answer!r} recorded, {self._answers[number]!r} replayed"
        times = [one["after_s"] for one in step.timeline]
        if times != sorted(times):
            yield f"timeline: its times go back: {times}"
        samples = [self._recorded_pods.facts(one) for one in step.timeline]
        history = [self._replayed_pods.facts(one.entry) for one in moments]
        end = last_index(history, samples[-1]) if samples else len(history) - 1
        if end is None:
            yield f"end: {_differing(samples[-1], history[-1])}"
            end = len(history) - 1
        yield from _order(step, samples, history)
        yield from _lasting(samples, history[: end + 1], [one.seconds for one in moments[: end + 1]])
        yield from _afterwards(history[end:])
        yield from _objects(step.objects, moments[end].objects)


def last_index(history: list[Facts], facts: Facts) -> int | None:
    """The last place in a history where exactly these facts held."""
    return next((place for place in reversed(range(len(history))) if history[place] == facts), None)


def _differing(recorded: Facts, replayed: Facts) -> str:
    names = sorted(recorded.keys() | replayed.keys())
    each = [
        f"{name} {recorded.get(name)} recorded, {replayed.get(name)} replayed"
        for name in names
        if recorded.get(name) != replayed.get(name)
    ]
    return "; ".join(each) or "each fact by itself is there, but never all at once"


def _order(step: Step, samples: list[Facts], history: list[Facts]) -> Iterator[str]:
    """Each fact's values in their order, and beside them those of the facts that depend on each other."""
    names = sorted({name for one in [*samples, *history] for name in one})
    stale = {name for name in names if name.startswith("deployment ") and not _is_wanted(step, name)}
    firm = [name for name in names if name not in stale]
    pairs = [pair for pair in product(firm, firm) if _depend(*pair)]
    for each in [*((name,) for name in firm), *pairs]:
        recorded = _values(samples, each)
        if not _embeds(recorded, _values(history, each)):
            yield f"order of {' and '.join(each)}: {recorded} recorded, {_values(history, each)} replayed"
    for name in stale:
        recorded, replayed = ([_generation(one) for one in _values(each, (name,))] for each in (samples, history))
        if not _embeds(recorded, replayed):
            yield f"order of {name}: generations {recorded} recorded, {replayed} replayed"


def _is_wanted(step: Step, name: str) -> bool:
    return name.removeprefix("deployment ").startswith(tuple(step.wanted))


def _depend(one: str, other: str) -> bool:
    """Whether the order of two facts is no accident: what the operator does, beside what it looks at."""
    if _ours(one) and _ours(other):
        return one < other
    if _ours(one) and other.startswith("deployment "):
        return True
    return one.startswith(_ROUTED) and other.startswith("pods ")


def _values(history: list[Facts], names: tuple[str, ...]) -> list[list[Any]]:
    return [key for key, _ in groupby([one.get(name) for name in names] for one in history)]


def _generation(value: list[Any]) -> int | None:
    return None if value[0] is None else value[0]["generation"]


def _embeds(recorded: list[Any], history: list[Any]) -> bool:
    """Whether all that was recorded is in the history, in that order."""
    rest = iter(history)
    return all(one in rest for one in recorded)


def _lasting(samples: list[Facts], history: list[Facts], seconds: list[float]) -> Iterator[str]:
    """What lasted in the replay must have been seen in the recording; what was before the step may not be."""
    for name in sorted({name for one in history for name in one}):
        seen = [one.get(name) for one in samples]
        place = 0
        for value, stretch in groupby(history, lambda one: one.get(name)):  # noqa: B023
            length = len(list(stretch))
            lasted = sum(seconds[place : place + length])
            if place and lasted >= LASTING_SECONDS and value not in seen:
                yield f"{name}: {value} for {lasted:.1f} s in the replay, never recorded"
            place += length


def _afterwards(history: list[Facts]) -> Iterator[str]:
    for name in sorted({name for one in history for name in one if _ours(name)}):
        values = _values(history, (name,))
        if len(values) > 1:
            yield f"{name}: went on to {values[1:]} after what was recorded last"


# --- objects ---------------------------------------------------------------------------------


def _objects(recorded: dict[str, Json], replayed: dict[str, Json]) -> Iterator[str]:
    for name in sorted(recorded.keys() | replayed.keys()):
        if name not in recorded or name not in replayed:
            yield f"{name}: only {'recorded' if name in recorded else 'in the replay'}"
        else:
            yield from _unlike(name, plain(recorded[name]), plain(replayed[name]))


def _unlike(path: str, recorded: Any, replayed: Any) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        for key in sorted(recorded.keys() | replayed.keys()):
            yield from _unlike(f"{path}.{key}", recorded.get(key), replayed.get(key))
    elif isinstance(recorded, list) and isinstance(replayed, list) and len(recorded) == len(replayed):
        for number, (one, other) in enumerate(zip(recorded, replayed, strict=True)):
            yield from _unlike(f"{path}[{number}]", one, other)
    elif recorded != replayed:
        yield f"{path}: {recorded!r} recorded, {replayed!r} replayed"


_VARYING = {
    "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "managedFields", "clusterIP", "clusterIPs",
    "lastTransitionTime", "lastUpdateTime", "seldon.io/last-applied",
}  # fmt: skip
_HASH = re.compile(r'(ReplicaSet "[a-z0-9-]+)-[a-z0-9]{6,10}"')


def plain(document: Any) -> Any:
    """An object without what is different each time."""
    if isinstance(document, dict):
        kept = {key: plain(value) for key, value in document.items() if key not in _VARYING}
        if document.get("kind") == "HorizontalPodAutoscaler":
            kept.pop("status", None)
        return kept
    if isinstance(document, list):
        each = [plain(one) for one in document]
        conditions = bool(each) and all(isinstance(one, dict) and {"type", "status"} <= one.keys() for one in each)
        return sorted(each, key=lambda one: one["type"]) if conditions else each
    return _HASH.sub(r'\1-HASH"', document) if isinstance(document, str) else document
