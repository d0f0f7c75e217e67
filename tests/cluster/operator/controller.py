"""Follows the cluster and passes over each SeldonDeployment that something happened to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from tests.cluster import kube
from tests.cluster.kube import Client, Json
from tests.cluster.operator.cache import Cache
from tests.cluster.operator.reconciler import reconcile

_log = logging.getLogger("operator")
_FIRST_DELAY, _LONGEST_DELAY = 0.005, 30.0

Key = tuple[str, str]


class Controller:
    """Passes over one SeldonDeployment at a time each, and again where something happened meanwhile."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._cache = Cache(client, namespace)
        self._due: set[Key] = set()
        self._running: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._cache.run(self._notice))
            for one in await self._cache.ready():
                self._notice(one)

    def _notice(self, changed: Json) -> None:
        name = _concerned(changed)
        if name:
            self._ask((changed["metadata"]["namespace"], name))

    def _ask(self, key: Key) -> None:
        self._due.add(key)
        if key not in self._running:
            self._running.add(key)
            self._start(self._work(key))

    async def _work(self, key: Key) -> None:
        while key in self._due:
            self._due.discard(key)
            try:
                await reconcile(self._cache, *key)
                self._failures.pop(key, None)
            except Exception as error:
                _log.info("%s/%s: %s", *key, error or repr(error))
                self._start(self._later(key))
        self._running.discard(key)

    async def _later(self, key: Key) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        await asyncio.sleep(min(_FIRST_DELAY * 2**failures, _LONGEST_DELAY))
        self._ask(key)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _concerned(changed: Json) -> str | None:
    """The SeldonDeployment that a changed object is, or belongs to."""
    if changed["kind"] == kube.SELDON_DEPLOYMENT.name:
        return changed["metadata"]["name"]
    owners = changed["metadata"].get("ownerReferences", [])
    return next((o["name"] for o in owners if o.get("controller") and o["kind"] == kube.SELDON_DEPLOYMENT.name), None)
