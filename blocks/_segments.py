"""The segments of prediction records in a store: Parquet files named by the newest time in them and by their bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from prefect_mlops.blocks._backend import Backend
from prefect_mlops.blocks._canonical import digest
from prefect_mlops.blocks.errors import ObjectDamaged

RECORDS = "records/"
_WORD = "[a-z0-9][a-z0-9.-]*"
_KEY = re.compile(rf"records/{_WORD}/{_WORD}/{_WORD}/segment-\d{{8}}T\d{{12}}Z-[0-9a-f]{{64}}\.parquet")
_NAME = re.compile(r"segment-(?:(\d{8}T\d{12}Z)|\d{9})-([0-9a-f]{64})\.parquet")


def is_segment(key: str) -> bool:
    """Whether `key` of a store is that of a segment."""
    return _KEY.fullmatch(key) is not None


def prefix_of(since: str) -> str:
    """What the name of every segment with a record of `since` or later sorts behind.

    Args:
        since: A time in UTC with microseconds; empty for any.
    """
    return "segment-" + re.sub("[-:.]", "", since)


def checked(place: str, key: str, data: bytes) -> bytes:
    """`data`, if it is what the name of the segment `key` says.

    Raises:
        ObjectDamaged: If it is not.
    """
    found, name = digest(data), _NAME.fullmatch(key.rpartition("/")[2])
    if name is None or found != f"sha256:{name[2]}":
        raise ObjectDamaged(place, key, found)
    return data


class Segments:
    """Segments below one prefix of a store. They never change once they are there.

    Args:
        backend: Where they are.
        store: How the store is called in errors.
        rooms: Nothing, or a namespace, or a namespace and a service.
    """

    def __init__(self, backend: Backend, store: str, rooms: tuple[str, ...]) -> None:
        self._backend, self._store = backend, store
        self._prefix = RECORDS + "".join(f"{room}/" for room in rooms)
        self._is_service = len(rooms) == 2
        self.lanes = backend.lanes

    def lines(self) -> Iterator[bytes]:
        """Nothing: what a pod has not sealed yet cannot be read from elsewhere."""
        return iter(())

    def names(self, since: str = "") -> Iterator[str]:
        """The key of every segment that may have records of `since` or later, and of some that have not.

        Of one service, only these are listed; of many, what is older is listed in vain.

        Raises:
            StoreUnreachable: If the store does not answer.
        """
        begin = prefix_of(since)
        if self._is_service:
            instances = (self._prefix + instance for instance in self._backend.folders(self._prefix))
            keys = chain.from_iterable(self._backend.list(f"{one}/", f"{one}/{begin}") for one in instances)
        else:
            keys = (key for key in self._backend.list(self._prefix) if key.rpartition("/")[2] > begin)
        return (key for key in keys if is_segment(key))

    def read(self, name: str) -> bytes | None:
        """The bytes of a segment, checked, or None where it is gone.

        Raises:
            ObjectDamaged: If they are not those that its name says.
            StoreUnreachable: If the store does not answer.
        """
        data = self._backend.get(name)
        return None if data is None else checked(self._store, name, data)
