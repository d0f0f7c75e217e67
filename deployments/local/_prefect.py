"""Our own Prefect server and its worker: programs of the home, never the user's profile."""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import dataclass

import httpx

from prefect_mlops.blocks._canonical import canonical
from prefect_mlops.blocks._gateways import free_port, is_taken
from prefect_mlops.blocks._supervisor import Program, Supervisor, clean_environment, tail, write_atomically
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import Invalid, TargetUnreachable
from prefect_mlops.deployments.local._home import Home

SERVER, WORKER = "prefect-server", "prefect-worker"
WORK_POOL = "local"
START_SECONDS = 240.0
"""A first start writes the whole database: 20 s on a quiet machine, more on a busy one."""


@dataclass(frozen=True)
class PrefectServer:
    """The Prefect server of a home, on SQLite and loopback."""

    home: Home

    @property
    def supervisor(self) -> Supervisor:
        """What keeps it running."""
        return Supervisor(self.home.path)

    def is_up(self, seconds: float = 0.5) -> bool:
        """Whether it answers within `seconds`."""
        url = self.home.prefect_url
        if url is None:
            return False
        try:
            return httpx.get(f"{url}/api/health", timeout=seconds, trust_env=False).json() is True
        except (httpx.HTTPError, ValueError):
            return False

    def ensure(self) -> None:
        """Have it started; returns at once. Call it with the place's lock held.

        Raises:
            Invalid: If another program has its port.
            TargetUnreachable: If the supervisor does not answer.
        """
        self.home.make()
        self.supervisor.ensure()
        self.supervisor.put(self._server(self._choose_port(), self._encryption_key()))

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            TargetUnreachable: If it ends instead, or does not answer in four minutes.
        """
        if not wait_until(self._answers_or_ended, seconds=START_SECONDS, pause=0.1) or not self.is_up(5.0):
            raise TargetUnreachable("the Prefect server", tail(self.home.logs / f"{SERVER}.log") or "it says nothing")

    def ensure_worker(self) -> None:
        """Have a worker started that runs what is deployed to the work pool of the place."""
        self.supervisor.put(self._worker())

    def _answers_or_ended(self) -> bool:
        if self.is_up(2.0):
            return True
        code = self.supervisor.exit_code(SERVER)
        return code is not None and code > 0

    def _choose_port(self) -> int:
        port = self.home.prefect_port
        if port is None:
            port = free_port()
            write_atomically(self.home.prefect / "port.json", canonical({"format": 1, "port": port}))
        elif is_taken(port) and SERVER not in self.supervisor.names():
            advice = f"end the program that listens there, or remove {self.home.prefect / 'port.json'} to get another"
            raise Invalid(f"the port of our Prefect server, {port} on 127.0.0.1,", "is free", "a stranger", advice)
        return port

    def _encryption_key(self) -> str:
        path = self.home.prefect / "encryption.key"
        if not path.exists():
            write_atomically(path, base64.urlsafe_b64encode(os.urandom(32)))
        return path.read_text()

    def _server(self, port: int, key: str) -> Program:
        patience = {"PREFECT_SERVER_DATABASE_TIMEOUT": "30"}  # a busy disk keeps one writer waiting for another
        few = {  # or an hour of runs to come would stand above the runs that were, in the list that people look at
            "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT1M",
        }
        settings = self.home.client_settings() | patience | few | {"PREFECT_SERVER_ENCRYPTION_KEY": key}
        command = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
        return self._program(SERVER, command, settings)

    def _worker(self) -> Program:
        settings = self.home.client_settings() | {"PREFECT_WORKER_QUERY_SECONDS": "2"}
        command = ("worker", "start", "--pool", WORK_POOL, "--type", "process", "--name", "local", "--limit", "4")
        return self._program(WORKER, command, settings)

    def _program(self, name: str, command: tuple[str, ...], settings: dict[str, str]) -> Program:
        argv = (sys.executable, "-P", "-m", "prefect", *command)
        log = self.home.logs / f"{name}.log"
        return Program(name, argv, log, env=clean_environment(**settings), cwd=str(self.home.prefect))
