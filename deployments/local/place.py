"""The local place: one home folder with a store, a Prefect server, a registry and what serves, on one machine."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from filelock import FileLock
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, temporary_settings

from prefect_mlops.blocks import Environment, LocalServing, ModelRegistry, Store
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.deployments.local._home import Home
from prefect_mlops.deployments.local._prefect import START_SECONDS, PrefectServer

NAME = "local"
STAMP = "prefect_mlops_place"
"""The Prefect variable that says what was set up; it goes when the database goes."""


class Place:
    """Everything that one machine needs, in one folder, under one supervisor.

    Args:
        home: The folder; else that of `PREFECT_MLOPS_HOME`, else `~/.prefect-mlops`.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.paths = Home.chosen(home)
        self.home = self.paths.path
        self.prefect = PrefectServer(self.paths)

    # --- its parts -----------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """Where objects and the log are kept."""
        return Store(url=str(self.paths.store))

    @property
    def serving(self) -> LocalServing:
        """What serves here."""
        return LocalServing(home=self.home)

    @property
    def registry(self) -> ModelRegistry:
        """Where people look at models."""
        files = self.paths.mlflow
        return ModelRegistry(tracking_uri=f"sqlite:///{files / 'mlflow.db'}", artifacts=(files / "artifacts").as_uri())

    @property
    def receipts(self) -> Path:
        """The folder that remembers the newest log entry outside the store."""
        return self.paths.receipts

    @property
    def prefect_url(self) -> str | None:
        """Where our Prefect server's pages are; None before its first start."""
        return self.paths.prefect_url

    def environment(self, name: str = NAME) -> Environment:
        """An environment whose log is in the store of this place, rebuilt from that log alone.

        Raises:
            NoLog: If there is no such log.
        """
        environment = Environment.remembered(self.store, name, self.receipts)
        target = environment.target
        if isinstance(target, LocalServing):  # the folder may have been moved since the log began
            environment.use(self.store, target.model_copy(update={"home": self.home}), self.registry)
        return environment

    @property
    def is_stopped(self) -> bool:
        """Whether it was never started, or was stopped and not started since."""
        return not self.prefect.supervisor.is_wanted

    # --- up and down ---------------------------------------------------------------------

    def up(self, *, worker: bool = True, repair: bool = False) -> None:
        """Have everything running and set up; what is already done is not done again.

        Safe to call from several processes at once.

        Args:
            worker: Whether to start the worker that runs what is deployed.
            repair: Whether to look at every block and deployment even where nothing has changed.

        Raises:
            Invalid: If the home folder cannot be used, or the port of our Prefect server is taken.
            TargetUnreachable: If supervisor or Prefect server do not come up.
        """
        if rule := self.paths.refusal():
            raise Invalid("the home folder", rule, str(self.home), "choose another with --home or PREFECT_MLOPS_HOME")
        self.paths.make()
        with FileLock(self.home / "up.lock", timeout=2 * START_SECONDS):
            self.prefect.ensure()
            self.prefect.wait()
            with self.settings():
                self._set_up(repair=repair)
            if worker:
                self.prefect.ensure_worker()

    def down(self) -> None:
        """Stop every program of the place; everything that was recorded stays.

        Raises:
            TargetUnreachable: If something does not end.
        """
        self.serving.stop()

    @contextmanager
    def settings(self, *, heartbeats: bool = True, retries: int | None = None) -> Generator[None]:
        """Lead this process's Prefect to the server of this place, whatever the user's own profile says.

        Args:
            heartbeats: Whether flows tell that they are alive, so that automations notice a killed one.
                Without, a flow ends up to a second sooner.
            retries: How often a call that the server does not answer is made again; Prefect's default if None.
        """
        import prefect.settings as known

        updates: dict[Any, Any] = {
            getattr(known, name): value
            for name, value in self.paths.client_settings().items()
            if name.startswith("PREFECT_")
        }
        if not heartbeats:
            updates[known.PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
        if retries is not None:
            updates[known.PREFECT_CLIENT_MAX_RETRIES] = retries
        with temporary_settings(updates=updates, restore_defaults={PREFECT_API_KEY, PREFECT_API_AUTH_STRING}):
            yield

    def _set_up(self, *, repair: bool) -> None:
        from prefect.variables import Variable

        from prefect_mlops.deployments.local import _definitions

        stamp = f"{_definitions.fingerprint()} {self.home}"
        if not repair and Variable.get(STAMP) == stamp:
            return
        self._save_blocks()
        _definitions.apply()
        Environment.find(NAME).log()
        Variable.set(STAMP, stamp, overwrite=True)

    def _save_blocks(self) -> None:
        _save(self.store, {"url": str(self.paths.store)})
        _save(self.serving, {"home": self.home})
        registry = self.registry
        _save(registry, {"tracking_uri": registry.tracking_uri, "artifacts": registry.artifacts})
        _save(Environment(name=NAME, receipts=self.receipts), {"receipts": self.receipts})


def _save(wanted: Block, places: Mapping[str, Any]) -> None:
    """Save a block that is missing; of one that is there, correct where things are and keep what people set."""
    try:
        saved = cast(Block, type(wanted).load(NAME))
    except ValueError:
        wanted.save(NAME)
        return
    if any(getattr(saved, name) != value for name, value in places.items()):
        saved.model_copy(update=dict(places)).save(NAME, overwrite=True)
