"""A serving target in memory, with a real fence, that fails on purpose.

It stands at the target's protocol, so that everything above it is the real code. A `Gateway` is what really
serves; each writer reaches it through a `MemoryTarget` of its own, whose `mishap` is asked before each step and
may also let another writer act first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from prefect_mlops.blocks.environment import Environment
from prefect_mlops.blocks.errors import ArmNotReady, FenceTooLow, TargetUnreachable
from prefect_mlops.blocks.registry import ModelRegistry
from prefect_mlops.blocks.split import Address, Counters, Observed, Split
from prefect_mlops.blocks.store import Store


class Mishap(Enum):
    """What goes wrong in one step of a target."""

    NONE = "nothing"
    UNREACHABLE = "it does not answer, and nothing was done"
    LATE = "it does not answer, and does it later, by `Gateway.land`, unless something else happened to it since"
    NOT_READY = "a server does not come up; nothing was routed"
    DIES_BEFORE = "it stops answering before it routed"
    DIES_AFTER = "it stops answering after it routed"
    IGNORES = "it accepts, and goes on serving what it served"
    SERVES_OTHER = "it accepts, and serves something else"
    CRASHES = "it routes, and then a server dies"


Step = Callable[[str, str], Mishap]
"""Given the step (`apply`, `start`, `observe`) and the service, says what goes wrong."""


def no_mishap(step: str, service: str) -> Mishap:
    """Nothing goes wrong."""
    return Mishap.NONE


@dataclass
class Served:
    """What one service really serves."""

    routes: Split = field(default_factory=Split)
    ready: dict[str, int] = field(default_factory=dict[str, int])
    fence: int | None = None
    version: int = 0

    def shows(self, split: Split) -> bool:
        return Observed(routes=self.routes, ready=self.ready, fence=self.fence).shows(split)


@dataclass
class Gateway:
    """What really serves, shared by all writers. Each accepted apply is a new version, also if nothing differs."""

    services: dict[str, Served] = field(default_factory=dict[str, Served])
    broken: frozenset[str] = frozenset()
    """Releases that never come up."""
    late: list[tuple[str, Split, int, int]] = field(default_factory=list[tuple[str, Split, int, int]])
    accepted: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def of(self, service: str) -> Served:
        return self.services.setdefault(service, Served())

    def admit(self, service: str, fence: int) -> Served:
        held = self.of(service)
        if held.fence is not None and fence < held.fence:
            raise FenceTooLow(service, fence, held.fence)
        held.fence = fence
        held.version += 1
        self.accepted.append((service, fence))
        return held

    def route(self, service: str, split: Split) -> None:
        held = self.of(service)
        held.routes, held.ready = split, dict.fromkeys(split.releases, 1)

    def land(self) -> None:
        """A request arrives that nobody waits for any more."""
        service, split, fence, version = self.late.pop(0)
        held = self.of(service)
        if version == held.version and fence >= (held.fence or 0) and not self.broken & set(split.releases):
            self.admit(service, fence)
            self.route(service, split)


@dataclass
class MemoryTarget:
    """One writer's way to a gateway."""

    gateway: Gateway
    mishap: Step = no_mishap
    namespace: str = "memory"

    def refusals(self, service: str, split: Split, store: Store) -> list[str]:
        return ["there is no shadow here"] if any(arm.role == "shadow" for arm in split.arms) else []

    def tenable(self, service: str, split: Split) -> Split:
        return split

    def apply(self, service: str, split: Split, *, fence: int, store: Store) -> None:
        self._reach("apply", service, split, fence)
        held = self.gateway.admit(service, fence)
        what = self.mishap("start", service)
        if what is Mishap.NOT_READY or self.gateway.broken & set(split.releases):
            raise ArmNotReady(service, split.releases[0] if split.releases else "none", 0.0, "killed")
        if what is Mishap.DIES_BEFORE:
            raise TargetUnreachable("memory", what.value)
        if held.fence != fence:  # somebody came while the servers started; the same lock guards routing
            raise FenceTooLow(service, fence, held.fence or 0)
        self._route(service, split, what)

    def observe(self, service: str) -> Observed:
        self._reach("observe", service, Split(), -1)
        held = self.gateway.of(service)
        return Observed(routes=held.routes, ready=dict(held.ready), fence=held.fence)

    def address(self, service: str, release: str | None = None) -> Address:
        return Address(url=f"http://memory/{service}", headers={"x-release": release} if release else {})

    def counters(self, service: str) -> Counters:
        return Counters(start="memory", requests={}, errors={})

    def mend(self) -> None:
        return

    def services(self) -> tuple[str, ...]:
        return tuple(self.gateway.services)

    def records(self) -> list[Path]:
        return []

    def _reach(self, step: str, service: str, split: Split, fence: int) -> None:
        what = self.mishap(step, service)
        if what is Mishap.LATE and step == "apply":
            self.gateway.late.append((service, split, fence, self.gateway.of(service).version))
        if what in (Mishap.UNREACHABLE, Mishap.LATE):
            raise TargetUnreachable("memory", what.value)

    def _route(self, service: str, split: Split, what: Mishap) -> None:
        if what is Mishap.IGNORES:
            return
        self.gateway.route(service, split)
        if what is Mishap.SERVES_OTHER:
            self.gateway.route(service, Split(arms=split.live) if len(split.arms) > len(split.live) else Split())
        if what is Mishap.CRASHES and split.releases:
            self.gateway.of(service).ready[split.releases[-1]] = 0
        if what is Mishap.DIES_AFTER:
            raise TargetUnreachable("memory", what.value)


def memory_place(store: Store, target: MemoryTarget, **rules: int) -> Environment:
    """An environment on these two parts, in which nobody waits for a target to settle."""
    place = Environment.model_validate({"name": "local", "settle_seconds": 0, **rules})
    place.use(store, target, ModelRegistry(tracking_uri="sqlite:///none.db"))
    return place
