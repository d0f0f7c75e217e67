"""Decisions that can be recorded, replayed and made fewer, so that a failing history is told by its shortest form."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Where every decision of a history comes from: a seed, or a record of another history.

    A decision is a number; 0 is always the plainest one, and what a record does not say is 0.
    """

    def __init__(self, seed: int | None = None, record: Sequence[int] = ()) -> None:
        self._rng = None if seed is None else random.Random(seed)
        self._replayed = iter(record)
        self.made: list[int] = []

    def below(self, limit: int) -> int:
        """A number from 0 on below `limit`."""
        number = int(self._rng.random() * limit) if self._rng else next(self._replayed, 0) % limit
        self.made.append(number)
        return number

    def chance(self, permille: int) -> bool:
        """Yes, in so many of a thousand cases."""
        return self.below(1000) >= 1000 - permille

    def one(self, things: Sequence[T]) -> T:
        """One of them."""
        return things[self.below(len(things))]


def shortest(record: list[int], fails: Callable[[list[int]], bool], *, tries: int = 400) -> list[int]:
    """A shorter record that still fails: cut off its end, cut pieces out, make decisions plain."""
    step = len(record)
    while step and tries > 0:
        place, smaller = 0, False
        while place < len(record) and tries > 0:
            for attempt in (
                record[:place] + record[place + step :],
                record[:place] + [0] * len(record[place : place + step]) + record[place + step :],
            ):
                if attempt != record and tries > 0:
                    tries -= 1
                    if fails(attempt):
                        record, smaller = attempt, True
                        break
            else:
                place += step
        step = step if smaller and step == 1 else step // 2
    return record
