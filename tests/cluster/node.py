"""A running node, as the processes in its network see it: what tests may do to it from inside."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.api import Cluster, wait_for
from tests.cluster.commands import SEARCHED, run
from tests.cluster.daemons import daemons


@dataclass(frozen=True)
class Node:
    """A node by its home folder; the processes that a test starts with it live until the node ends."""

    home: Path

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.home / "kubeconfig"

    def cluster(self) -> Cluster:
        """Its API server."""
        return Cluster.ours(self.kubeconfig)

    def start(self, name: str) -> None:
        """Start one of `daemons`; that it answers is the caller's to wait for."""
        daemon = daemons(self.home)[name]
        told = {"PATH": f"{self.home}/programs:{SEARCHED}", "TMPDIR": f"{self.home}/tmp", **daemon.environment}
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        program = daemon.command[0]
        pid = os.posix_spawn(program, daemon.command, {**os.environ, **told}, file_actions=files, setsid=True)
        self._pid(name).write_text(str(pid))

    def stop(self, name: str, number: int = signal.SIGKILL) -> None:
        """End one of them by a signal, and wait until it is gone."""
        pid = self.pid(name)
        self._pid(name).unlink()
        os.kill(pid, number)
        wait_for(lambda: _gone(pid), f"the end of {name}")

    def restart(self, name: str) -> None:
        """Kill one of them and start it again; an API server is waited for."""
        self.stop(name)
        self.start(name)
        if name == "apiserver":
            self.wait_for_api()

    def wait_for_api(self) -> None:
        """Wait until the API server says that it is ready."""
        with contextlib.closing(self.cluster()) as cluster:
            wait_for(lambda: cluster.get("/readyz") == "ok", "the API server", seconds=60)

    def load(self, archive: Path) -> None:
        """Have the node know the image in an archive, of buildah's or Docker's making."""
        self.containers("images", "import", "--local", "--snapshotter", "overlayfs", str(archive))

    def knows(self, image: str) -> bool:
        """Whether an image of that name need not be loaded."""
        return image in self.containers("images", "ls", "--quiet").split()

    def containers(self, *words: str) -> str:
        """What containerd's own command line says."""
        to = ("--address", self.home / "containerd.sock", "--namespace", "k8s.io")
        return run(self.home / "programs" / "ctr", *to, *words)

    def wait_for_containerd(self) -> None:
        """Wait until containerd answers."""
        wait_for(lambda: self.containers("version"), "containerd")

    def pid(self, name: str) -> int:
        """The process that is one of `daemons`."""
        return int(self._pid(name).read_text())

    def log(self, name: str) -> Path:
        """The file that one of `daemons` writes to."""
        return self.home / f"{name}.log"

    def _pid(self, name: str) -> Path:
        return self.home / f"{name}.pid"


def _gone(pid: int) -> bool:
    """Whether a process, of ours or not, is no more."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return not Path(f"/proc/{pid}").exists()
