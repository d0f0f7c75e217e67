"""The supervisor of one home: `python -m prefect_mlops.deployments.local.daemon ROOT`.

It is supervisord with three mends (measured faults of supervisor 4.3.0): at most one runs per
home, by a lock; when it is killed, a waiting process takes that lock and starts the next one,
which adopts the programs that still run (see `keep`); and it looks after its children ten
times a second instead of once. It also bounds the programs' logs, and ends programs whose
description was removed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from supervisor import events, supervisord
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions

from prefect_mlops.deployments.local import _process as process

ANOTHER_RUNS = 75
LOG_BYTES = 10 * 1024 * 1024
LOOK_SECONDS = 0.1
ORPHAN_SECONDS = 15.0
"""From SIGTERM to SIGKILL for a program whose description, and so its own patience, is gone."""


class _Options(ServerOptions):
    """Keeps the daemon's own lock open, and remembers how each program ended."""

    def cleanup_fds(self) -> None:
        """Nothing is leaked here, and closing everything would close the lock."""

    def fork(self) -> int:
        """Fork a child that hears SIGTERM only once its keeper can pass it on."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        pid = super().fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        return pid

    def waitpid(self) -> tuple[int | None, int | None]:
        pid, status = super().waitpid()
        child = (self.pidhistory or {}).get(pid) if pid else None
        if child is not None and status is not None:
            code = os.waitstatus_to_exitcode(status)
            Path(f"programs/{child.config.name}.exit").write_text(json.dumps({"pid": pid, "code": code}))
        return pid, status


class _Daemon(supervisord.Supervisor):
    """supervisord's main loop, looking more often, and ending what was removed."""

    def runforever(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # supervisord would restart everything
        poll = self.options.poller.poll
        self.options.poller.poll = lambda timeout: (self._retire(), poll(min(timeout, LOOK_SECONDS)))[1]
        events.subscribe(events.Tick5Event, self._look_after)
        self._told: dict[str, float] = {}
        self._end_orphans()
        super().runforever()

    def _retire(self) -> None:
        groups: dict[str, Any] = self.process_groups or {}
        wanted = {config.name for config in self.options.process_group_configs}
        for name, group in [(name, group) for name, group in groups.items() if name not in wanted]:
            if group.get_unstopped_processes():
                group.stop_all()
            elif _is_free(Path(f"programs/{name}.lock")):
                self.remove_process_group(name)
                for suffix in (".lock", ".exit"):
                    Path(f"programs/{name}{suffix}").unlink(missing_ok=True)

    def _look_after(self, _: object) -> None:
        for spec in Path("programs").glob("*.json"):
            try:
                _bound(Path(json.loads(spec.read_bytes())["log"]))
            except (OSError, ValueError, KeyError):
                continue
        there = {path.stem for path in Path("programs").glob("*.ini")}
        configs = self.options.process_group_configs
        self.options.process_group_configs = [config for config in configs if config.name in there]
        self._end_orphans()

    def _end_orphans(self) -> None:
        """End what was removed while a supervisor ran that was killed before it had ended it."""
        for lock in Path("programs").glob("*.lock"):
            name = lock.stem
            if name in (self.process_groups or {}) or lock.with_suffix(".ini").exists():
                continue
            fd = process.take_lock(lock)
            if fd is None:
                patience = self._told.setdefault(name, time.monotonic() + ORPHAN_SECONDS)
                process.signal_holder(lock, signal.SIGTERM if time.monotonic() < patience else signal.SIGKILL)
                continue
            for suffix in (".lock", ".exit"):
                lock.with_suffix(suffix).unlink(missing_ok=True)
            self._told.pop(name, None)
            os.close(fd)


def _is_free(lock: Path) -> bool:
    """Whether nobody holds `lock`; who still does, after the program was stopped, is killed."""
    fd = process.take_lock(lock)
    if fd is None:
        process.signal_holder(lock, signal.SIGKILL)
        return False
    os.close(fd)
    return True


def _bound(log: Path) -> None:
    """Keep the newest `LOG_BYTES` in `log` and as many before them in a copy; the writer appends."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)


def run(root: Path, lock: int | None = None) -> int:
    """Supervise the programs of `root` in the background until told to stop; `lock` is an inherited one."""
    lock = process.take_lock(root / "lock") if lock is None else lock
    if lock is None:
        return ANOTHER_RUNS
    if (root / "down").exists():
        return 0
    if os.fork():  # the child shares the lock, and is nobody's to wait for
        return 0
    os.setsid()
    os.set_inheritable(lock, False)
    process.write_record(lock)
    os.chdir(root)
    Path("sockets", "supervisor.sock").unlink(missing_ok=True)
    os.environ |= {"PREFECT_MLOPS_PYTHON": sys.executable, "PREFECT_MLOPS_SUPERVISOR": str(os.getpid())}
    options = _Options()
    options.realize(["-c", "supervisord.conf", "-n"], doc=supervisord.__doc__)
    options.__dict__.update(first=True, test=False)
    try:
        _Daemon(options).main()
    except asyncore.ExitNow:
        pass
    finally:
        options.close_httpservers()
    return 0


def main(arguments: list[str]) -> int:
    """Entry point: ROOT, and `--lock FD` where a predecessor hands its lock on."""
    inherited = int(arguments[2]) if arguments[1:2] == ["--lock"] else None
    return run(Path(arguments[0]).absolute(), inherited)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
