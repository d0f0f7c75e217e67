"""Journals: entries under dense numbers, each written once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from prefect_mlops.blocks._backend import Backend
from prefect_mlops.blocks.errors import Invalid, StoreUnreachable

NUMBER = re.compile(r"[0-9]{12}")
NAME = re.compile(r"(?!objects/|packs/|indexes/|records/|tmp/)[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+")
_TRIES = 3
_AHEAD = 64


class Journal:
    """Entries under the keys `<name>/<number>`, numbered from 0 without a gap.

    Order is the number alone. An entry is written once: whoever writes a number first has it, and
    everybody else is told so.
    """

    def __init__(self, backend: Backend, store: str, name: str) -> None:
        if not NAME.fullmatch(name):
            raise Invalid("the name of a journal", "is like log/production, in lower case", name)
        self._backend, self._store = backend, store
        self.name = name

    def key(self, number: int) -> str:
        """Where in the store the entry `number` is."""
        if not 0 <= number < 10**12:
            raise Invalid(f"the number of an entry of {self.name}", "has at most 12 digits", number)
        return f"{self.name}/{number:012d}"

    def read(self, number: int) -> bytes | None:
        """The bytes of the entry `number`, or None where there is none."""
        return self._backend.get(self.key(number))

    def append(self, number: int, data: bytes) -> bool:
        """Write `data` as the entry `number`, unless that number is taken.

        Returns:
            True: `data` is what is stored there, durable, even where the answer to the write was lost.
            False: other bytes are there.

        Raises:
            StoreUnreachable: If that cannot be found out. Fold again, and decide again.
        """
        key, lost = self.key(number), None
        for _ in range(_TRIES):
            try:
                if self._backend.put_new(key, data):
                    return True
                found = self._backend.get(key)
            except StoreUnreachable as error:
                lost = error
                continue
            if found is not None:
                return found == data
        raise lost or StoreUnreachable(self._store, f"it refuses {key} as taken and has nothing there")

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Each entry from `start` on with its number, up to the first number that is absent.

        Only reading a number says that it is absent; a listing may lag behind, so it is merely used
        to know how far it is worth reading ahead.
        """
        numbers = count(start)
        for data in self._ahead(start) if self._backend.lanes > 1 else ():
            if data is None:
                return
            yield next(numbers), data
        for number in numbers:
            if (data := self.read(number)) is None:
                return
            yield number, data

    def numbers(self) -> list[int]:
        """Every number that a listing shows, ascending: a gap in it is damage."""
        prefix = f"{self.name}/"
        names = (key[len(prefix) :] for key in self._backend.list(prefix))
        return sorted(int(name) for name in names if NUMBER.fullmatch(name))

    def _ahead(self, start: int) -> Iterator[bytes | None]:
        """The entries that a listing promises, many requests at a time."""
        first = self.read(start)
        yield first
        if first is None:
            return
        last = max(self.numbers(), default=start)
        with ThreadPoolExecutor(self._backend.lanes, thread_name_prefix="journal") as pool:
            for begin in range(start + 1, last + 1, _AHEAD):
                yield from pool.map(self.read, range(begin, min(begin + _AHEAD, last + 1)))
