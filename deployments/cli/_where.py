"""Where a command looks and acts: the local place, or an environment that is not on this machine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.exceptions import PrefectException
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_UI_URL,
    temporary_settings,
)

from prefect_mlops.blocks import Environment, SeldonServing, Store
from prefect_mlops.blocks import _location as location
from prefect_mlops.deployments.local.place import Place

_HEALTH_SECONDS = 2.0


class NoRuns(Exception):
    """No flow can be run in Prefect for an environment; says why."""


class Where(Protocol):
    """What a command needs to know of where it looks and acts."""

    @property
    def home(self) -> Path | None:
        """The folder of the local place, where it is one."""
        ...

    @property
    def store(self) -> str:
        """What the store is called."""
        ...

    @property
    def is_stopped(self) -> bool | None:
        """Whether somebody stopped the local place; None where there is none to stop."""
        ...

    @property
    def prefect_url(self) -> str | None:
        """Where Prefect's pages are, if there is a Prefect."""
        ...

    def prefect_is_up(self) -> bool:
        """Whether Prefect answers."""
        ...

    def environment(self, name: str) -> Environment:
        """An environment, rebuilt from its log alone; raises NoLog if it has none."""
        ...

    def settings(self, *, heartbeats: bool = True) -> AbstractContextManager[None]:
        """Lead this process's Prefect client to the Prefect that is meant, with little patience."""
        ...

    def runs(self, name: str, *, heartbeats: bool = True) -> AbstractContextManager[None]:
        """Have flows run in Prefect with an environment by its name; raises NoRuns if that is not to be had."""
        ...


@dataclass(frozen=True)
class Here:
    """The local place, with a Prefect of its own."""

    place: Place

    @property
    def home(self) -> Path | None:
        return self.place.home

    @property
    def store(self) -> str:
        return str(self.place.paths.store)

    @property
    def is_stopped(self) -> bool | None:
        return self.place.is_stopped

    @property
    def prefect_url(self) -> str | None:
        return self.place.prefect_url

    def prefect_is_up(self) -> bool:
        return self.place.prefect.is_up()

    def environment(self, name: str) -> Environment:
        return self.place.environment(name)

    def settings(self, *, heartbeats: bool = True) -> AbstractContextManager[None]:
        return self.place.settings(heartbeats=heartbeats, retries=1)

    @contextmanager
    def runs(self, name: str, *, heartbeats: bool = True) -> Generator[None]:
        if not self.prefect_is_up():
            raise NoRuns("our Prefect server does not answer")
        with self.settings(heartbeats=heartbeats):
            yield


@dataclass(frozen=True)
class Elsewhere:
    """A store that is not of the local place, with the Prefect of the user's own settings, if they name one.

    Whoever asks goes their own way to the bucket and to the cluster: by AWS's variables, and by KUBECONFIG.
    """

    place: Store

    home = None
    is_stopped = None

    @classmethod
    def at(cls, url: str) -> Elsewhere:
        """The store that `url` names, or the folder, as people write one; raises Invalid if it is neither."""
        url = url if "://" in url else str(Path(url).expanduser().resolve())
        location.place(url)  # says what is wrong without saying again what may be a secret
        return cls(Store(url=url))

    @property
    def store(self) -> str:
        return self.place.url

    @property
    def prefect_url(self) -> str | None:
        return (PREFECT_UI_URL.value() or PREFECT_API_URL.value()) if PREFECT_API_URL.value() else None

    def prefect_is_up(self) -> bool:
        if not PREFECT_API_URL.value():
            return False
        with self.settings(), get_client(httpx_settings={"timeout": _HEALTH_SECONDS}, sync_client=True) as client:
            return client.api_healthcheck() is None

    def environment(self, name: str) -> Environment:
        environment = Environment.remembered(self.place, name)
        environment.use(environment.store_block, _by_own_way(environment.target), environment.registry_block)
        return environment

    @contextmanager
    def settings(self, *, heartbeats: bool = True) -> Generator[None]:
        updates: dict[Any, Any] = {PREFECT_CLIENT_MAX_RETRIES: 1}
        if not heartbeats:
            updates[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
        with temporary_settings(updates=updates):
            yield

    @contextmanager
    def runs(self, name: str, *, heartbeats: bool = True) -> Generator[None]:
        """The block of that name must be there: a Prefect that does not know the environment is not its Prefect.

        Its settings count, which are newer than those that the log began with.
        """
        url = PREFECT_API_URL.value()
        if not url:
            raise NoRuns("no Prefect is named by PREFECT_API_URL or your profile")
        if not self.prefect_is_up():
            raise NoRuns(f"Prefect at {url} does not answer")
        with self.settings(heartbeats=heartbeats), self._saved(name, url).at_hand():
            yield

    def _saved(self, name: str, url: str) -> Environment:
        """The environment as its blocks in Prefect say, reached as this machine reaches its parts."""
        try:
            saved = Environment.find(name)
            store, target, registry = saved.store_block, saved.target, saved.registry_block
        except (httpx.HTTPError, PrefectException, ConnectionError, ValueError) as error:
            raise NoRuns(f"Prefect at {url} has no environment {name!r} that can be used ({_first(error)})") from error
        if store.url != self.place.url:
            raise NoRuns(f"the environment {name!r} of Prefect at {url} has its log in {store.url}")
        saved = saved.model_copy(update={"receipts": None})  # they are kept where its runs run
        saved.use(self.place.known_as(store.endpoint, store.region), _by_own_way(target), registry)
        return saved


def newest_page(where: Where, key: str) -> str | None:
    """The newest page that runs left in Prefect under `key`, if it answers and has one."""
    if not where.prefect_is_up():
        return None
    wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
    with where.settings(), get_client(sync_client=True) as client:
        found = client.read_latest_artifacts(artifact_filter=wanted)
    return str(found[0].data) if found else None


def _by_own_way(target: Any) -> Any:
    """The target without the name of its keys, which is known to Prefect alone: the person's own are used."""
    return target.model_copy(update={"credentials": None}) if isinstance(target, SeldonServing) else target


def _first(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
