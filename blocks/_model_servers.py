"""The model servers of one home: one program per replica of a release, each on a Unix socket."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_mlops.blocks import _envoy, _unix
from prefect_mlops.blocks._supervisor import Program, Supervisor, clean_environment, tail, write_atomically
from prefect_mlops.blocks.errors import Invalid

if TYPE_CHECKING:
    from prefect_mlops.blocks.store import Store

SERVER = (sys.executable, "-P", "-m", "prefect_mlops.deployments.server")
READY_SECONDS = 1.0


@dataclass(frozen=True)
class ModelServers:
    """Starts, watches and removes the model servers of the releases of one service."""

    supervisor: Supervisor
    folder: Path
    logs: Path
    namespace: str
    service: str
    replicas: int
    max_body_bytes: int
    stop_seconds: int
    command: tuple[str, ...] = SERVER

    def start(self, release: str, store: Store) -> list[Program]:
        """Prepare all that the servers of `release` need, and describe their programs; nothing runs yet."""
        document = store.release(release)
        model = self.folder / "models" / document.model.removeprefix("sha256:")
        files = _checkout(store, document.model, model)
        configuration = {
            "service": self.service, "namespace": self.namespace, "release": release, "model": document.model,
            "folder": str(model), "files": files, "host": "127.0.0.1", "port": 0,
            "max_body_bytes": self.max_body_bytes,
        }  # fmt: skip
        return [self._program(release, number, configuration) for number in range(self.replicas)]

    def _program(self, release: str, number: int, configuration: dict[str, Any]) -> Program:
        name = self.name(release, number)
        spool = self.folder / "records" / self.service / name
        spool.mkdir(parents=True, exist_ok=True)
        own = {"instance": str(number), "socket": str(self.socket(release, number)), "spool": str(spool)}
        path = self.folder / "servers" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(configuration | own, indent=1).encode())
        return Program(
            name,
            (*self.command, str(path)),
            self._log(name),
            env=clean_environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONUNBUFFERED="1"),
            stop_seconds=self.stop_seconds,
        )

    def name(self, release: str, number: int) -> str:
        """The name of one replica's program."""
        return f"{self.service}-{_short(release)}-{number}"

    def socket(self, release: str, number: int) -> Path:
        """Where one replica listens."""
        return self.supervisor.sockets / f"{_short(release)}-{number}.sock"

    def cluster(self, release: str, *, shadow: bool = False) -> _envoy.Upstream:
        """How a gateway reaches the servers of a release."""
        sockets = tuple(self.socket(release, number) for number in range(self.replicas))
        return _envoy.Upstream(self.service, release, sockets, shadow)

    def names(self, releases: Sequence[str] | None = None) -> set[str]:
        """The programs of this service, or of some of its releases."""
        mine = re.compile(re.escape(self.service) + r"-[0-9a-f]{16}-\d+")
        found = {name for name in self.supervisor.names() if mine.fullmatch(name)}
        if releases is None:
            return found
        return {name for name in found if name.rpartition("-")[0].rpartition("-")[2] in map(_short, releases)}

    def ready(self, release: str) -> int:
        """How many servers of `release` answer right now, each being the process that was started for it."""
        return sum(self._is_ready(release, name) for name in self.names([release]))

    def _is_ready(self, release: str, name: str) -> bool:
        socket = self.socket(release, int(name.rpartition("-")[2]))
        try:
            answer = _unix.get_json(socket, "/ready", seconds=READY_SECONDS)
        except OSError:
            return False
        return answer.get("release") == release and answer.get("pid") == self.supervisor.recorded_pid(name)

    def failure(self, release: str) -> str | None:
        """Why a server of `release` ended by itself, in its own last words; None if none did."""
        for name in sorted(self.names([release])):
            code = self.supervisor.exit_code(name)
            if code is not None and code > 0:
                return f"exit status {code}: {tail(self._log(name))}"
        return None

    def last_words(self, release: str) -> str:
        """What the servers of `release` logged last."""
        return " / ".join(tail(self._log(name)) for name in sorted(self.names([release])))

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def _checkout(store: Store, model: str, folder: Path) -> list[dict[str, Any]]:
    """The files of a model in `folder`, every byte checked; a damaged folder is replaced."""
    try:
        snapshot = store.checkout(model, folder)
    except Invalid:
        shutil.rmtree(folder)
        snapshot = store.checkout(model, folder)
    return [file.model_dump(mode="json") for file in snapshot.files]


def _short(release: str) -> str:
    return release.removeprefix("sha256:")[:16]
