"""Serving on this machine: real model servers behind real gateways."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from filelock import FileLock, Timeout
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, TypeAdapter, ValidationError, field_validator

from prefect_mlops.blocks import _envoy
from prefect_mlops.blocks._canonical import Label
from prefect_mlops.blocks._gateways import NAMES, Gateways, free_port, is_taken
from prefect_mlops.blocks._model_servers import SERVER, ModelServers
from prefect_mlops.blocks._supervisor import Supervisor, write_atomically
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import ArmNotReady, FenceTooLow, TargetRefused, TargetUnreachable
from prefect_mlops.blocks.graph import graph_of
from prefect_mlops.blocks.split import Address, Counters, Observed, Split

if TYPE_CHECKING:
    from prefect_mlops.blocks.store import Store

LOCK_SECONDS = 15.0
INLINE_DRAIN_SECONDS = 0.2


@dataclass(frozen=True)
class _Turn:
    """One call of apply: it may change things until the next call takes its turn."""

    service: str
    fence: int
    number: int


class LocalServing(Block):
    """Serves models on this machine: two model servers per release behind two gateways, on loopback.

    Everything runs under one supervisor per home folder: it outlives the flow that started it,
    restarts what dies, is itself succeeded when it is killed, and stops on command.

    Example:
        ```python
        from prefect_mlops.blocks import LocalServing
        serving = LocalServing.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Local Serving"
    _block_type_slug = "local-serving"
    _documentation_url: ClassVar[Any] = "https://docs.prefect.io/v3/concepts/blocks"
    _description = "Serves models on this machine: model servers behind a gateway, on loopback."

    home: Path = Field(title="Home", description="Folder of the local place: sockets, logs, model files.")
    port: int = Field(
        default=0, ge=0, le=65535, title="Port",
        description="Port of the gateway on 127.0.0.1; 0 takes a free one at the first start and keeps it.",
    )  # fmt: skip
    namespace: Label = Field(default="default", title="Namespace", description="Second part of every service's path.")
    replicas: int = Field(default=2, ge=1, le=16, title="Replicas", description="Model servers per release.")
    start_seconds: int = Field(default=60, ge=1, title="Start seconds", description="Time for a server to get ready.")
    drain_seconds: int = Field(default=10, ge=0, title="Drain seconds", description="Time for its last answers.")
    max_body_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1, le=16 * 1024 * 1024, title="Largest request",
        description="Longest request body in bytes; a longer one is answered 413.",
    )  # fmt: skip

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    _command: tuple[str, ...] = PrivateAttr(default=SERVER)  # tests start a server of their own

    # --- the target's interface ----------------------------------------------------------

    def refusals(self, service: str, split: Split, store: Store) -> list[str]:
        """What of `split` it cannot do, as sentences; empty if it can. Nothing is changed."""
        reasons: list[str] = []
        try:
            TypeAdapter(Label).validate_python(service)
        except ValidationError:
            reasons.append(f"a service's name is a DNS label of at most 30 characters, got {service!r}")
        kept = self._kept_port()
        if self.port and kept and self.port != kept:
            reasons.append(f"the gateway of {self.home} has port {kept} and keeps it, got {self.port}; stop it first")
        wanted = self.port or kept
        if wanted and not (self._supervisor.names() & set(NAMES)) and is_taken(wanted):
            reasons.append(f"port {wanted} of 127.0.0.1 is taken by another program; end that one or choose another")
        graphs = [release for release in split.releases if graph_of(store, release)]
        return reasons + [
            f"release {release} has an inference graph, which only Seldon Core runs" for release in graphs
        ]

    def tenable(self, service: str, split: Split) -> Split:
        """`split` itself: an arm that does not come up keeps no other from being served here."""
        return split

    def apply(self, service: str, split: Split, *, fence: int, store: Store) -> None:
        """Serve `split` from now on: start what is missing, move the traffic, end what is not needed.

        Traffic moves in one step, after every arm is ready. It can be called again after any
        failure, and a call that was killed is repaired by the next one.

        Args:
            service: The service, a DNS label.
            split: What to serve. An empty one answers 503.
            fence: Number of the log entry on whose behalf this is done.
            store: Holds the releases and the models.

        Raises:
            TargetRefused: If it cannot do this; see `refusals`. Nothing was changed.
            FenceTooLow: If a higher fence was seen. Nothing was changed.
            ArmNotReady: If a release does not come up. Traffic was not moved.
            TargetUnreachable: If supervisor or gateway does not answer.
        """
        if reasons := self.refusals(service, split, store):
            raise TargetRefused(f"local serving in {self.home}", service, tuple(reasons))
        turn = self._take_turn(service, fence)
        self._supervisor.ensure()
        self._gateways.ensure(self._choose_port())
        servers = self._servers(service)
        started = self._start_missing(servers, split, turn, store)
        self._wait_ready(servers, started, turn)
        self._route(servers, split, turn)
        self._retire(servers, split, turn)

    def observe(self, service: str) -> Observed:
        """What is really served: the routes that every running gateway carries out, and the servers that answer.

        Raises:
            TargetUnreachable: If no gateway answers, or the gateways disagree.
        """
        fence = self._fences().get(service)
        if self._supervisor.is_down or not self._supervisor.names() & set(NAMES):  # nothing was started since a stop
            return Observed(routes=Split(), ready={}, fence=fence)
        routes = self._gateways.split(service)
        servers = self._servers(service)
        return Observed(routes=routes, ready={one: servers.ready(one) for one in routes.releases}, fence=fence)

    def address(self, service: str, release: str | None = None) -> Address:
        """Where clients send requests for `service`, or where exactly `release` is reached.

        Raises:
            TargetUnreachable: If the gateway was never started, so that its port is not known.
        """
        port = self._kept_port() or self.port
        if not port:
            raise TargetUnreachable(f"local serving in {self.home}", "it was never started, so it has no port yet")
        headers = {_envoy.RELEASE_HEADER: release} if release else {}
        return Address(url=f"http://127.0.0.1:{port}/seldon/{self.namespace}/{service}", headers=headers)

    def counters(self, service: str) -> Counters:
        """Answers by release since the gateways started: live ones, pinned ones and copies for a shadow.

        Raises:
            TargetUnreachable: If no gateway answers.
        """
        start, answers = self._gateways.answers(service)
        requests = {release: every for release, (every, _) in answers.items()}
        return Counters(start=start, requests=requests, errors={release: bad for release, (_, bad) in answers.items()})

    def mend(self) -> None:
        """Have a supervisor again where one was killed together with its watcher; a home that was stopped stays so.

        Raises:
            TargetUnreachable: If it does not come up.
        """
        if self._supervisor.is_wanted:
            self._supervisor.ensure()

    def services(self) -> tuple[str, ...]:
        """Every service that it was ever asked to serve."""
        return tuple(sorted(self._fences()))

    def records(self) -> list[Path]:
        """Folders with the prediction records of its model servers."""
        return [self._folder / "records"]

    def stop(self) -> None:
        """Stop every program of the home, and the supervisor; fences and the port are kept.

        Raises:
            TargetUnreachable: If something does not end.
        """
        self._supervisor.stop()
        self._gateways.forget(self._kept_port())

    # --- the steps of apply --------------------------------------------------------------

    def _take_turn(self, service: str, fence: int) -> _Turn:
        with self._lock():
            state = self._state()
            highest, number = state["turns"].get(service, (None, 0))
            if highest is not None and fence < highest:
                raise FenceTooLow(service, fence, highest)
            state["turns"][service] = (fence, number + 1)
            self._write_state(state)
        return _Turn(service, fence, number + 1)

    def _check(self, turn: _Turn) -> None:
        """Raise FenceTooLow if another apply came after this one; with the lock held, before each change."""
        highest, number = self._state()["turns"][turn.service]
        if (highest, number) != (turn.fence, turn.number):
            raise FenceTooLow(turn.service, turn.fence, highest)

    def _start_missing(self, servers: ModelServers, split: Split, turn: _Turn, store: Store) -> list[str]:
        """Start every server that does not answer, and name the releases that they are of."""
        programs = {release: servers.prepare(release, store) for release in split.releases}
        missing = [program for some in programs.values() for program in some]
        if missing:
            names = [program.name for program in missing]
            self._supervisor.settle(*names, seconds=self.drain_seconds + self.start_seconds)
            with self._lock():
                self._check(turn)
                for program in missing:
                    self._supervisor.put(program)
        return [release for release, some in programs.items() if some]

    def _wait_ready(self, servers: ModelServers, started: list[str], turn: _Turn) -> None:
        began = time.monotonic()
        routed = {_envoy.release_of(name) for name in self._gateways.clusters(turn.service)}
        for release in started:
            enough = 1 if release in routed else self.replicas
            failure = self._wait_for(servers, release, enough, turn, began + self.start_seconds)
            if failure is not None:
                self._undo_start(servers, routed, turn)
                raise ArmNotReady(turn.service, release, time.monotonic() - began, failure)

    def _wait_for(self, servers: ModelServers, release: str, enough: int, turn: _Turn, deadline: float) -> str | None:
        """Wait until `enough` servers of `release` answer; else say why they do not."""
        while servers.ready(release) < enough:
            self._check(turn)
            failure = servers.failure(release)
            if failure is not None:
                return failure
            if time.monotonic() > deadline:
                return servers.last_words(release) or "(none)"
            time.sleep(0.02)
        return None

    def _undo_start(self, servers: ModelServers, routed: set[str], turn: _Turn) -> None:
        with self._lock():
            self._check(turn)
            servers.remove(keep=routed)

    def _route(self, servers: ModelServers, split: Split, turn: _Turn) -> None:
        with self._lock():
            self._check(turn)
            self._gateways.add_clusters(turn.service, servers.clusters(split))
            routes = _envoy.service_routes(self.namespace, turn.service, split, max_body_bytes=self.max_body_bytes)
            self._gateways.push_routes(turn.service, routes, fences=self._fences())

    def _retire(self, servers: ModelServers, split: Split, turn: _Turn) -> None:
        """End what `split` does not name: at once if it is idle, else beside the caller, who has other things to do."""
        gone = self._gateways.clusters(turn.service) - servers.clusters(split).keys()
        if wait_until(lambda: self._gateways.idle(gone), seconds=INLINE_DRAIN_SECONDS):
            self._drop(servers, split, turn)
        else:
            threading.Thread(target=self._drain, args=(servers, split, turn, gone), name="drain").start()

    def _drain(self, servers: ModelServers, split: Split, turn: _Turn, gone: set[str]) -> None:
        wait_until(lambda: self._gateways.idle(gone), seconds=self.drain_seconds, pause=0.05)
        self._drop(servers, split, turn)

    def _drop(self, servers: ModelServers, split: Split, turn: _Turn) -> None:
        # Traffic has moved: whatever goes wrong from here is left to the next apply.
        with contextlib.suppress(FenceTooLow, TargetUnreachable), self._lock():
            self._check(turn)
            self._gateways.keep_clusters(turn.service, servers.clusters(split).keys())
            servers.remove(keep=split.releases)

    # --- what it is made of --------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        return self.home / "serving"

    @property
    def _logs(self) -> Path:
        return self.home / "logs"

    @property
    def _supervisor(self) -> Supervisor:
        return Supervisor(self.home)

    @property
    def _gateways(self) -> Gateways:
        return Gateways(self._supervisor, self._folder / "gateway", self._logs)

    def _servers(self, service: str) -> ModelServers:
        return ModelServers(
            supervisor=self._supervisor, folder=self._folder, logs=self._logs, namespace=self.namespace,
            service=service, replicas=self.replicas, max_body_bytes=self.max_body_bytes,
            stop_seconds=self.drain_seconds, command=self._command,
        )  # fmt: skip

    @contextlib.contextmanager
    def _lock(self) -> Generator[None]:
        """Alone in this home's serving state, across processes; never held while a server starts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / "lock", timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            reason = "another apply is stuck in a change; end its process"
            raise TargetUnreachable(f"local serving in {self.home}", reason) from error
        try:
            yield
        finally:
            lock.release()

    def _state(self) -> dict[str, Any]:
        try:
            return json.loads((self._folder / "state.json").read_bytes())
        except FileNotFoundError:
            return {"format": 1, "turns": {}, "port": None}

    def _fences(self) -> dict[str, int]:
        return {service: fence for service, (fence, _) in self._state()["turns"].items()}

    def _write_state(self, state: dict[str, Any]) -> None:
        write_atomically(self._folder / "state.json", json.dumps(state, sort_keys=True).encode())

    def _kept_port(self) -> int | None:
        return self._state()["port"]

    def _choose_port(self) -> int:
        kept = self._kept_port()
        if kept:
            return kept
        with self._lock():
            state = self._state()
            state["port"] = state["port"] or self.port or free_port()
            self._write_state(state)
            return state["port"]
