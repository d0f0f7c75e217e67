"""The content of files by its digest, wherever the store keeps it: plain and whole, or in packs."""

from __future__ import annotations

from collections.abc import Iterator

from prefect_mlops.blocks._objects import Objects
from prefect_mlops.blocks._packs import Packs
from prefect_mlops.blocks.errors import ObjectMissing


class Contents:
    """What files hold. What is read is checked against its name."""

    def __init__(self, objects: Objects, packs: Packs) -> None:
        self._objects, self._packs = objects, packs

    def stream(self, digest: str) -> Iterator[bytes]:
        """The bytes in pieces; damage is known, and raised, only after the last.

        Raises:
            ObjectMissing: If there are none.
            ObjectDamaged: If they have another digest.
        """
        if not self._packs.has_read(digest):
            try:
                return self._objects.stream(digest)
            except ObjectMissing:
                if not self._packs.has(digest):
                    raise
        return self._packs.stream(digest)
