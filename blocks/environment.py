"""Environments: the one block that a flow is given the name of."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr

from prefect_mlops.blocks._canonical import Label, Value
from prefect_mlops.blocks.entry import Actor, Genesis, Run
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.local_serving import LocalServing
from prefect_mlops.blocks.log import NoLog, ReleaseLog
from prefect_mlops.blocks.records import Source, Spools
from prefect_mlops.blocks.registry import ModelRegistry
from prefect_mlops.blocks.seldon_serving import SeldonServing
from prefect_mlops.blocks.split import Address, Counters, Observed, Split
from prefect_mlops.blocks.store import Store
from prefect_mlops.blocks.writer import os_user


@runtime_checkable
class ServingTarget(Protocol):
    """What serves: it is told a split and finds its own path there without a gap.

    The fence is the number of the log entry on whose behalf a call is made; a target keeps the
    highest it has seen for a service, and refuses a lower one.
    """

    @property
    def namespace(self) -> str:
        """Second part of every service's path."""
        ...

    def refusals(self, service: str, split: Split, store: Store) -> list[str]:
        """What in `split` it cannot do, as sentences; asked before anything changes."""
        ...

    def tenable(self, service: str, split: Split) -> Split:
        """`split` without the warm arms that are there already, do not come up, and would keep it from being served."""
        ...

    def apply(self, service: str, split: Split, *, fence: int, store: Store) -> None:
        """Serve `split`, whose releases are read from `store`.

        Raises:
            FenceTooLow: If a higher fence was seen. Nothing was changed.
            ArmNotReady: If a release does not come up. Traffic was not moved to it.
            TargetUnreachable: If the target does not answer.
        """
        ...

    def observe(self, service: str) -> Observed:
        """What is really served, read back from the parts that carry it out."""
        ...

    def address(self, service: str, release: str | None = None) -> Address:
        """Where clients send requests, or where one release is reached for probes."""
        ...

    def counters(self, service: str) -> Counters:
        """Cumulative counts of answers."""
        ...

    def mend(self) -> None:
        """Have what keeps everything running up again, where it was killed; changes no split, and starts nothing anew.

        Raises:
            TargetUnreachable: If it does not come up.
        """
        ...

    def services(self) -> tuple[str, ...]:
        """Every service that it has something of."""
        ...

    def records(self) -> list[Path]:
        """Folders of this machine with prediction records of its model servers."""
        ...


class Policy(Value):
    """The rules of an environment, as they are resolved into each entry that asks for a change."""

    warm_minutes: int = Field(ge=0, description="How long the replaced release stays warm.")
    watch_seconds: int = Field(ge=0, description="How long a new release is watched before it is kept.")
    max_error_permille: int = Field(ge=0, le=1000, description="Failed answers of a watched release that are let pass.")
    approval: bool = Field(description="Whether a person must approve each release.")
    lease_seconds: int = Field(ge=1, description="After how long a silent run may be taken over.")
    settle_seconds: int = Field(ge=0, description="How long what is served may differ from what was applied.")
    shadow_requests: int = Field(ge=1, description="How many requests a shadow answers before it is compared.")
    shadow_seconds: int = Field(ge=1, description="How long a shadow may wait for so many requests.")
    shadow_agreement_permille: int = Field(
        ge=0, le=1000, description="Answers in a thousand on which a shadow must agree with what is live."
    )


class Environment(Block):
    """A place that releases go to: names its store, its registry and its serving target, and holds its policy.

    It holds names of blocks, not blocks, so that the Prefect UI can edit it safely.

    Example:
        ```python
        from prefect_mlops.blocks import Environment
        environment = Environment.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "MLOps Environment"
    _block_type_slug = "mlops-environment"
    _targets: ClassVar[dict[str, type[Block]]] = {"local-serving": LocalServing, "seldon-serving": SeldonServing}

    name: Label = Field(title="Name", description="Name of the environment, which is also the name of its log.")
    store: str = Field(
        default="mlops-store/local", title="Store", description="Block that holds objects and the log, as type/name."
    )
    serving: str = Field(
        default="local-serving/local", title="Serving", description="Block that serves the models, as type/name."
    )
    registry: str = Field(
        default="model-registry/local", title="Registry", description="Block that shows models to people, as type/name."
    )
    receipts: Path | None = Field(
        default=None, title="Receipts", description="Folder outside the store that remembers the newest log entry."
    )
    warm_minutes: int = Field(
        default=30, ge=0, title="Warm minutes", description="How long a replaced release stays warm."
    )
    watch_seconds: int = Field(
        default=2, ge=0, title="Watch seconds", description="How long a new release is watched before it is kept."
    )
    max_error_permille: int = Field(
        default=10,
        ge=0,
        le=1000,
        title="Errors",
        description="Failed answers in a thousand that a watched release may give.",
    )
    approval: bool = Field(
        default=False, title="Approval", description="Whether a person must approve before traffic moves to a release."
    )
    lease_seconds: int = Field(
        default=180, ge=1, title="Lease seconds", description="After how long a silent run may be taken over."
    )
    settle_seconds: int = Field(
        default=5,
        ge=0,
        title="Settle seconds",
        description="How long what is served may differ from what was applied before that counts as a refusal.",
    )

    shadow_requests: int = Field(
        default=500,
        ge=1,
        title="Shadow requests",
        description="How many requests a shadow answers before it is compared.",
    )
    shadow_seconds: int = Field(
        default=600, ge=1, title="Shadow seconds", description="How long a shadow may wait for so many requests."
    )
    shadow_agreement_permille: int = Field(
        default=900,
        ge=0,
        le=1000,
        title="Shadow agreement",
        description="Answers in a thousand on which a shadow must agree with what is live.",
    )
    start_seconds: int = Field(
        default=900,
        ge=1,
        title="Start seconds",
        description="How long a step that runs as a Job of its own may wait for a machine to start on.",
    )

    _at_hand: ClassVar[ContextVar[Environment | None]] = ContextVar("_at_hand", default=None)
    _store: Store | None = PrivateAttr(default=None)
    _target: ServingTarget | None = PrivateAttr(default=None)
    _registry: ModelRegistry | None = PrivateAttr(default=None)
    _log: ReleaseLog | None = PrivateAttr(default=None)

    @classmethod
    def find(cls, name: str) -> Environment:
        """Load the environment that people call `name`; inside `at_hand` of that one, it is that one.

        Raises:
            Invalid: If there is none.
        """
        if (known := cls._at_hand.get()) is not None and known.name == name:
            return known
        try:
            return cast(Environment, cls.load(name))
        except ValueError as error:
            advice = "run `prefect-mlops up` for the local one, or save an Environment block of that name"
            raise Invalid("environment", "is the name of a saved Environment block", name, advice) from error

    @classmethod
    def remembered(cls, store: Store, name: str, receipts: Path | None = None) -> Environment:
        """Rebuild an environment from the first entry of its log, without Prefect.

        What `store` does not say of the way that others, such as pods, take to it, that entry says.

        Raises:
            NoLog: If the log has no entry.
        """
        genesis = ReleaseLog(store, name).begun().genesis
        if genesis is None or not isinstance(genesis.body, Genesis):
            raise NoLog(name, store.url)
        parts = genesis.body.configuration
        environment = cls(name=name, receipts=receipts, **cast(dict[str, Any], parts["policy"]))
        serving = dict(parts["serving"])
        target = cls._targets[str(serving.pop("type"))]
        kept, registry = cast(dict[str, Any], parts["store"]), cast(dict[str, Any], parts["registry"])
        if kept["url"] == store.url:  # else it was moved, and what was said of the way there is no longer true
            store = store.known_as(store.endpoint or kept["endpoint"], store.region or kept["region"])
        environment.use(store, cast(ServingTarget, target(**serving)), ModelRegistry(**registry))
        return environment

    def use(self, store: Store, target: ServingTarget, registry: ModelRegistry) -> None:
        """Work with these parts instead of loading the blocks that the fields name."""
        self._store, self._target, self._registry, self._log = store, target, registry, None

    @contextmanager
    def at_hand(self) -> Generator[None]:
        """Let flows that are given its name work with this very environment and the parts that it uses."""
        before = self._at_hand.set(self)
        try:
            yield
        finally:
            self._at_hand.reset(before)

    @property
    def store_block(self) -> Store:
        """Its store."""
        if self._store is None:
            self._store = cast(Store, _loaded(self.store, Store))
        return self._store

    @property
    def target(self) -> ServingTarget:
        """What serves its models."""
        if self._target is None:
            self._target = cast(ServingTarget, _loaded(self.serving, *self._targets.values()))
        return self._target

    @property
    def registry_block(self) -> ModelRegistry:
        """Where people look at its models."""
        if self._registry is None:
            self._registry = cast(ModelRegistry, _loaded(self.registry, ModelRegistry))
        return self._registry

    @property
    def policy(self) -> Policy:
        """Its rules."""
        return Policy(**{name: getattr(self, name) for name in Policy.model_fields})

    def log(self, run: Run | None = None, actor: Actor | None = None) -> ReleaseLog:
        """Its log, begun if it was not."""
        if self._log is None:
            self._log = ReleaseLog(self.store_block, self.name, receipts=self.receipts)
        if self._log.state().genesis is None:
            self._log.begin(self.configuration())
        return self._log.on_behalf_of(actor or os_user(), run)

    def services(self) -> tuple[str, ...]:
        """Every service that its log knows or its target has something of, but for those of the store's other logs.

        Raises:
            TargetUnreachable: If the target does not answer.
        """
        known, logs = set(self.log().state().services), self.store_block.journals("log/")
        others = [name.removeprefix("log/") for name in logs if name != f"log/{self.name}"]
        theirs = {one for name in others for one in ReleaseLog(self.store_block, name).state().services}
        return tuple(sorted(known | (set(self.target.services()) - theirs)))

    def records(self, service: str | None = None) -> list[Source]:
        """Where the prediction records of `service` are, or of every service: on this machine, and in the store."""
        rooms = (self.target.namespace, *([service] if service else []))
        return [*map(Spools, self.target.records()), self.store_block.records(*rooms)]

    def configuration(self) -> dict[str, dict[str, str | int | bool | None]]:
        """Its parts with their settings, as the first entry of the log keeps them; never a secret."""
        serving = cast(Block, self.target)
        return {
            "store": _settings(self.store_block),
            "serving": {"type": serving.get_block_type_slug(), **_settings(serving)},
            "registry": _settings(self.registry_block),
            "policy": self.policy.model_dump(),
        }


def _loaded(reference: str, *kinds: type[Block]) -> Block:
    """Load a block named as type/name; `Block.load` would first import every collection, for seconds."""
    slug, _, name = reference.partition("/")
    kind = next((kind for kind in kinds if kind.get_block_type_slug() == slug), None)
    return cast(Block, kind.load(name) if kind else Block.load(reference))


def _settings(block: Block) -> dict[str, str | int | bool | None]:
    """The settings of a block, those that are more than a word or a number as JSON."""
    settings = block.model_dump(mode="json", include=set(type(block).model_fields))
    scalar = (str, int, bool, type(None))
    return {name: one if isinstance(one, scalar) else json.dumps(one, sort_keys=True) for name, one in settings.items()}
