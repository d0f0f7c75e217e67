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
from itertools import groupby, pairwise
from math import inf
from pathlib import Path
from typing import Any

from tests.cluster.kube import Json

LASTING_SECONDS = 1.5
BRIEF_SECONDS = 0.4  # what is shorter, a sample may miss
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
    parts = ("apply", "answer", "timeline", "objects")
    return [Step(*(one[part] for part in parts)) for one in json.loads(path.read_text())]


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
        in_order = sorted(first, key=lambda pod: (pod[0], first[pod], pod[1]))
        for deployment, pods in groupby(in_order, lambda pod: pod[0]):
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
        aside = {"after_s", "pods"}
        found: Facts = {key: value for key, value in entry.items() if key not in aside and value is not None}
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
        return found + [
            f"pods of {name}: {ours.get(name)} recorded, {theirs.get(name)} replayed"
            for name in sorted(ours.keys() | theirs.keys())
            if sum(ours.get(name, [])) != sum(theirs.get(name, []))
        ]

    def _step(self, number: int) -> Iterator[str]:
        step, moments = self._steps[number], self._replay[number]
        if step.answer.strip() != self._answers[number].strip():
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
        facts = _Facts(step.wanted, self._recorded_pods.sizes, {name for one in [*samples, *history] for name in one})
        lengths = [after - before for before, after in pairwise([*times, inf])]
        yield from facts.order(samples, lengths, history)
        yield from facts.lasting(samples, history[: end + 1], [one.seconds for one in moments[: end + 1]])
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


class _Facts:
    """The names of a step's facts, and which of them show the same each time.

    How a Deployment goes away, and in what order the pods of one that has many become ready, is an accident of the
    moment: of those only what lasted counts.
    """

    def __init__(self, wanted: set[str], sizes: dict[str, list[int]], names: set[str]) -> None:
        many = {name for name, each in sizes.items() if max(each) > 1}
        deployments = {name for name in names if name.startswith("deployment ")}
        self._loose = {
            name for name in deployments
            if (bare := name.removeprefix("deployment ")) in many or not bare.startswith(tuple(wanted))
        }  # fmt: skip
        self._firm = sorted(names - self._loose)
        pairs = [(one, other) for one in self._firm for other in self._firm if _depend(one, other)]
        self._tuples: list[tuple[str, ...]] = [*((name,) for name in self._firm), *pairs]
        self._single = [
            (f"deployment {pods.split()[1]}", pods) for pods in self._firm
            if pods.startswith("pods ") and f"deployment {pods.split()[1]}" in self._firm
        ]  # fmt: skip

    def order(self, samples: list[Facts], lengths: list[float], history: list[Facts]) -> Iterator[str]:
        """Each fact's values in their order, and beside them those of the facts that depend on each other."""
        for names in self._tuples:
            comparable = samples if len(names) == 1 else [one for one in samples if _settled(one, names)]
            recorded, replayed = _values(comparable, names), _values(history, names)
            if not _embeds(recorded, replayed):
                yield f"order of {' and '.join(names)}: {recorded} recorded, {replayed} replayed"
        for name in sorted(self._loose):
            stretches = _stretches(samples, lengths, (name,))
            recorded = [value for (value,), length in stretches if length >= LASTING_SECONDS]
            replayed = [value for (value,) in _values(history, (name,))]
            if not _embeds(recorded, replayed):
                yield f"order of {name}: {recorded} recorded, {replayed} replayed"
            recorded, replayed = _presence(samples, name), _presence(history, name)
            if not _embeds(recorded, replayed):
                yield f"order of {name} and its pods: {recorded} recorded, {replayed} replayed"

    def lasting(self, samples: list[Facts], history: list[Facts], lengths: list[float]) -> Iterator[str]:
        """What lasted in the replay must have been seen in the recording; what was before the step may not be."""
        single = [((name,), LASTING_SECONDS) for name in self._firm]
        for names, least in [*single, *((pair, BRIEF_SECONDS) for pair in self._single)]:
            seen = [[one.get(name) for name in names] for one in samples]
            for value, length in _stretches(history, lengths, names)[1:]:
                if length >= least and value not in seen and _waits_for_pods(names, value):
                    said = f"{' and '.join(names)}: {value} for {length:.1f} s in the replay"
                    yield f"{said}, never recorded"


def _waits_for_pods(names: tuple[str, ...], value: list[Any]) -> bool:
    """Whether these values can last for another reason than that a controller is slow."""
    for name, one in zip(names, value, strict=True):
        if one is None:
            continue
        if name.startswith("deployment ") and (not _is_settled(one) or (len(names) > 1 and one["availableReplicas"])):
            return False
        if name.startswith("pods ") and any(deleting for _, deleting in one):
            return False
    return len(names) == 1 or None not in value


def _depend(one: str, other: str) -> bool:
    """Whether the order of two facts is no accident: what the operator does, beside what it looks at."""
    if _ours(one) and _ours(other):
        return one < other
    if _ours(one) and other.startswith("deployment "):
        return True
    return one.startswith(_ROUTED) and other.startswith("pods ")


def _stretches(history: list[Facts], lengths: list[float], names: tuple[str, ...]) -> list[tuple[list[Any], float]]:
    """The values of some facts one after the other, and for how long they held."""
    found: list[tuple[list[Any], float]] = []
    for one, length in zip(history, lengths, strict=True):
        value = [one.get(name) for name in names]
        if found and found[-1][0] == value:
            found[-1] = value, found[-1][1] + length
        else:
            found.append((value, length))
    return found


def _values(history: list[Facts], names: tuple[str, ...]) -> list[list[Any]]:
    """The values of some facts one after the other; beside another, of pods only whether one is being deleted."""
    together = len(names) > 1
    return [key for key, _ in groupby([_view(one, name, together=together) for name in names] for one in history)]


def _presence(history: list[Facts], name: str) -> list[tuple[bool, bool]]:
    """Whether a Deployment was there, and whether pods of it were: it goes after them."""
    pods = f"pods {name.removeprefix('deployment ')} "
    return [key for key, _ in groupby((name in one, any(each.startswith(pods) for each in one)) for one in history)]


def _view(facts: Facts, name: str, *, together: bool) -> Any:
    value = facts.get(name)
    return any(deleting for _, deleting in value or []) if together and name.startswith("pods ") else value


def _settled(facts: Facts, names: tuple[str, ...]) -> bool:
    """Whether the Deployments among some facts are as their controller left them, not as it found them."""
    found = (facts.get(name) for name in names if name.startswith("deployment "))
    return all(one is None or _is_settled(one) for one in found)


def _is_settled(counts: Json) -> bool:
    return counts["observedGeneration"] == counts["generation"] and counts["updatedReplicas"] > 0


def _embeds(recorded: list[Any], history: list[Any]) -> bool:
    """Whether all that was recorded is in the history, in that order."""
    rest = iter(history)
    return all(one in rest for one in recorded)


def _afterwards(history: list[Facts]) -> Iterator[str]:
    for name in sorted({name for one in history for name in one}):
        values = _values(history, (name,))
        if len(values) > 1 and (_ours(name) or _stays(values[0][0])):
            yield f"{name}: went on to {values[1:]} after what was recorded last"


def _stays(pods: Any) -> bool:
    """Whether these are pods of which none was being deleted."""
    return isinstance(pods, list) and not any(deleting for _, deleting in pods)


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
