"""A store in memory that fails on purpose, the same way each time for the same seed.

It stands at the backend protocol, so that everything above it is the real code:

>>> shelf = Shelf()
>>> store = flaky_store(shelf, faults=scripted({2: Fault.LOSE_ANSWER}))
>>> store.journal("log/local").append(0, b"entry")
True

Several stores on one shelf are several writers. A `Faults` function is called before each operation; it may
also let another writer act first, which interleaves two writers wherever a test wants.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from prefect_mlops.blocks._backend import SCRATCH
from prefect_mlops.blocks.errors import StoreUnreachable
from prefect_mlops.blocks.store import Store


class Fault(Enum):
    """What goes wrong in one operation."""

    NONE = "nothing"
    LOSE_REQUEST = "the request never arrives; the caller sees StoreUnreachable"
    LOSE_ANSWER = "a put is carried out, and the caller sees StoreUnreachable"
    STALL = "a put is carried out later, by `Shelf.land`; the caller sees StoreUnreachable now"
    KILL_BEFORE = "the caller dies before anything is sent"
    KILL_AFTER = "the caller dies when the operation is carried out"
    KILL_STALLED = "the caller dies, and its put is carried out later, by `Shelf.land`"
    STALE = "a listing shows what was there some writes ago"


Faults = Callable[[str, str], Fault]
"""Given the operation (`put`, `get`, `has`, `list`) and its key, says what goes wrong."""


class Killed(BaseException):
    """The process that runs this dies here. Everything it still tries on its store raises this again."""


@dataclass
class Shelf:
    """What a server really holds, shared by all writers."""

    held: dict[str, bytes] = field(default_factory=dict)
    late: list[tuple[str, bytes]] = field(default_factory=list)
    """Puts on their way that nobody waits for any more."""
    history: list[str] = field(default_factory=list)
    """Keys in the order they were written."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Write, unless something is there."""
        if key in self.held:
            return False
        self.held[key] = data
        self.history.append(key)
        return True

    def land(self, index: int = 0) -> bool:
        """Carry out one stalled put, and say whether it was in time; False too if there is none."""
        return bool(self.late) and self.put_new(*self.late.pop(index % len(self.late)))


def no_faults(operation: str, key: str) -> Fault:
    """Nothing goes wrong."""
    return Fault.NONE


def scripted(script: dict[int, Fault], operation: str = "put") -> Faults:
    """Faults at chosen points: `script` maps the number of an operation, from 0, without the store's own
    proof and identity, to what goes wrong in it."""
    count = iter(range(1 << 62))

    def faults(what: str, key: str) -> Fault:
        own = key.startswith(SCRATCH) or key == "store.json"
        return Fault.NONE if own or what != operation else script.get(next(count), Fault.NONE)

    return faults


def random_faults(rng: random.Random, probability: float = 0.2, kinds: Iterable[Fault] = tuple(Fault)) -> Faults:
    """Each operation fails with `probability`, in a way drawn from `kinds`."""
    choices = [kind for kind in kinds if kind is not Fault.NONE]

    def faults(operation: str, key: str) -> Fault:
        return rng.choice(choices) if rng.random() < probability else Fault.NONE

    return faults


@dataclass
class FlakyBackend:
    """One writer's way to a shelf."""

    shelf: Shelf
    faults: Faults = no_faults
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    dead: bool = False
    lanes: int = 1

    def put_new(self, key: str, data: bytes) -> bool:
        fault = self._begin("put", key)
        if fault in (Fault.STALL, Fault.KILL_STALLED):
            self.shelf.late.append((key, data))
        new = fault not in (Fault.STALL, Fault.KILL_STALLED) and self.shelf.put_new(key, data)
        if fault is Fault.STALL:
            raise StoreUnreachable("memory", f"{fault.value}: {key}")
        self._end(fault, key)
        return new

    def put_new_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> bool:
        return self.put_new(key, b"".join(chunks))

    def get(self, key: str) -> bytes | None:
        self._end(self._begin("get", key), key)
        return self.shelf.held.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        data = self.get(key)
        return None if data is None else data[start : start + length]

    def stream(self, key: str) -> Iterator[bytes] | None:
        data = self.get(key)
        return None if data is None else iter([data])

    def has(self, key: str) -> bool:
        self._end(self._begin("has", key), key)
        return key in self.shelf.held

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        fault = self._begin("list", prefix)
        self._end(fault, prefix)
        shown = self.shelf.history
        if fault is Fault.STALE:
            shown = shown[: self.rng.randint(0, len(shown))]
        below = (key for key in shown if key.startswith(prefix) and not key.startswith(SCRATCH))
        return iter(sorted(key for key in below if key > after))

    def folders(self, prefix: str) -> tuple[str, ...]:
        names = (key.removeprefix(prefix) for key in self.list(prefix))
        return tuple(dict.fromkeys(name.partition("/")[0] for name in names if "/" in name))

    def delete(self, key: str) -> None:
        if not self.dead and self.shelf.held.pop(key, None) is not None:
            self.shelf.history.remove(key)

    def _begin(self, operation: str, key: str) -> Fault:
        if self.dead:
            raise Killed(key)
        fault = self.faults(operation, key)
        if fault is Fault.KILL_BEFORE:
            self.dead = True
            raise Killed(key)
        if fault is Fault.LOSE_REQUEST:
            raise StoreUnreachable("memory", f"{fault.value}: {key}")
        return fault

    def _end(self, fault: Fault, key: str) -> None:
        if fault in (Fault.KILL_AFTER, Fault.KILL_STALLED):
            self.dead = True
            raise Killed(key)
        if fault is Fault.LOSE_ANSWER:
            raise StoreUnreachable("memory", f"{fault.value}: {key}")


def flaky_store(shelf: Shelf, faults: Faults = no_faults, rng: random.Random | None = None) -> Store:
    """A store of one writer on `shelf`."""
    store = Store(url="/memory")
    store._backend = FlakyBackend(shelf, faults, rng or random.Random(0))
    return store
