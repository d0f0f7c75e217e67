"""The model servers of one home: one program per replica of a release, each on a Unix socket."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_mlops.blocks import _envoy, _unix
from prefect_mlops.blocks._supervisor import Program, Supervisor, clean_environment, tail, write_atomically
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.split import Split

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

    def prepare(self, release: str, store: Store) -> list[Program]:
        """Lay out what the servers of `release` need that do not answer, and describe them; nothing runs yet.

        One that answers, but whose description was removed, is on its way out, whoever may have been killed
        since: it counts as missing.

        Raises:
            Invalid: If the release is for another service.
            ObjectMissing, ObjectDamaged, StoreUnreachable: If the store does not give the model's bytes.
        """
        described = self.supervisor.names()
        numbers = [
            number
            for number in range(self.replicas)
            if self.name(release, number) not in described or not self._is_ready(release, number)
        ]
        if not numbers:
            return []
        document = store.release(release)
        if document.service != self.service:
            raise Invalid(f"release {release}", f"is for {document.service}, not for", self.service)
        model = self._models / document.model.removeprefix("sha256:")
        files = _checkout(store, document.model, model)
        configuration = {
            "service": self.service, "namespace": self.namespace, "release": release, "model": document.model,
            "folder": str(model), "files": files, "host": "127.0.0.1", "port": 0,
            "max_body_bytes": self.max_body_bytes,
        }  # fmt: skip
        return [self._program(release, number, configuration) for number in numbers]

    def _program(self, release: str, number: int, configuration: dict[str, Any]) -> Program:
        name = self.name(release, number)
        spool = self.folder / "records" / self.service / name
        spool.mkdir(parents=True, exist_ok=True)
        own = {"instance": str(number), "socket": str(self.socket(release, number)), "spool": str(spool)}
        path = self._configurations / f"{name}.json"
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

    def clusters(self, split: Split) -> dict[str, _envoy.Json]:
        """How a gateway reaches the servers of each release of `split`, by the cluster's name."""
        upstreams = [self._upstream(arm.release) for arm in split.arms]
        upstreams += [self._upstream(arm.release, shadow=True) for arm in split.arms if arm.role == "shadow"]
        return {upstream.name: _envoy.cluster(upstream) for upstream in upstreams}

    def _upstream(self, release: str, *, shadow: bool = False) -> _envoy.Upstream:
        sockets = tuple(self.socket(release, number) for number in range(self.replicas))
        return _envoy.Upstream(self.service, release, sockets, shadow)

    def remove(self, keep: Iterable[str]) -> None:
        """End every server of this service but those of the releases `keep`, and forget what only they needed."""
        kept = {self.name(release, number) for release in keep for number in range(self.replicas)}
        mine = re.compile(re.escape(self.service) + r"-[0-9a-f]{16}-\d+")
        self.supervisor.remove(*(name for name in self.supervisor.names() if mine.fullmatch(name) and name not in kept))
        models: set[str] = set()
        for path in self._configurations.glob("*.json"):
            if path.stem in kept:
                models.add(Path(json.loads(path.read_bytes())["folder"]).name)
            else:
                path.unlink(missing_ok=True)
        for folder in self._models.glob("*"):
            if folder.name not in models:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _models(self) -> Path:
        return self.folder / "models" / self.service

    @property
    def _configurations(self) -> Path:
        return self.folder / "servers" / self.service

    def ready(self, release: str) -> int:
        """How many servers of `release` answer right now, each being the process that was started for it."""
        return sum(self._is_ready(release, number) for number in range(self.replicas))

    def _is_ready(self, release: str, number: int) -> bool:
        try:
            answer = _unix.get_json(self.socket(release, number), "/ready", seconds=READY_SECONDS)
        except OSError:
            return False
        pid = self.supervisor.recorded_pid(self.name(release, number))
        return answer.get("release") == release and answer.get("pid") == pid

    def failure(self, release: str) -> str | None:
        """Why a server of `release` ended by itself, in its own last words; None if none did."""
        for name in self._names(release):
            code = self.supervisor.exit_code(name)
            if code is not None and code > 0:
                return f"exit status {code}: {tail(self._log(name))}"
        return None

    def last_words(self, release: str) -> str:
        """What the servers of `release` logged last."""
        return " / ".join(tail(self._log(name)) for name in self._names(release))

    def _names(self, release: str) -> list[str]:
        return [self.name(release, number) for number in range(self.replicas)]

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
