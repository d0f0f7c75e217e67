"""The thread that seals spool files, and takes segments to the store where there is one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from prefect_mlops.deployments.server._errors import StoreUnavailable
from prefect_mlops.deployments.server._say import say
from prefect_mlops.deployments.server._segments import seal

STOP_SECONDS = 20.0
SEGMENTS = "segment-*.parquet"

Keep = Callable[[Path], None]
"""Takes a segment to where it is kept; raises StoreUnavailable where it is not sure of that."""


class Sealer:
    """Seals what it is given, in a thread of its own; what fails stays, and is tried again at the next tick.

    Args:
        folder: Where the segments lie.
        keep: Takes a segment away; it is then deleted here.
    """

    def __init__(self, folder: Path, keep: Keep | None) -> None:
        self._folder, self._keep = folder, keep
        self._todo: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._failed: list[Path] = []
        self._away = False
        self._thread = threading.Thread(target=self._run, name="sealer", daemon=True)

    def start(self) -> None:
        """Start with the segments that lie there already."""
        self._thread.start()
        self._wake()

    def put(self, path: Path) -> None:
        """Have the spool file `path` sealed."""
        self._todo.put(path)

    def again(self) -> None:
        """Try again what failed, with whatever comes next."""
        failed, self._failed = self._failed, []
        for path in failed:
            self._todo.put(path)
        if self._away:
            self._wake()

    def stop(self) -> None:
        """Seal and take away what there is, as far as that can be done in time."""
        self.again()
        self._todo.put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS if self._keep else None)
        left = len(list(self._folder.glob(SEGMENTS))) if self._keep else 0
        if left:
            say(f"{left} segments of records are not in the store; they stay in {self._folder} for the next process")

    def _wake(self) -> None:
        if self._keep is not None:
            self._todo.put(self._folder)

    def _run(self) -> None:
        while (path := self._todo.get()) is not None:
            if path != self._folder:
                self._seal(path)
            if self._todo.empty():
                self._take_away()
        self._take_away()

    def _seal(self, path: Path) -> None:
        try:
            seal(path)
        except (OSError, pa.ArrowException) as error:
            say(f"{path} could not be sealed, it stays and is tried again: {type(error).__name__}: {error}")
            self._failed.append(path)

    def _take_away(self) -> None:
        """The oldest first, until one cannot be taken."""
        if self._keep is None:
            return
        was_away, self._away = self._away, False
        try:
            for segment in sorted(self._folder.glob(SEGMENTS)):
                self._keep(segment)
                segment.unlink(missing_ok=True)
        except (OSError, StoreUnavailable) as error:
            self._away = True
            if not was_away:
                say(f"records stay in {self._folder} until the store takes them: {error}")
