"""One supervisor per home folder: programs that outlive the flow that started them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from prefect_mlops.blocks import _unix
from prefect_mlops.blocks._locks import lock_now
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import Invalid, TargetUnreachable

DAEMON = "prefect_mlops.deployments.local.daemon"
KEEPER = "prefect_mlops.deployments.local.keep"
WATCH = "prefect_mlops.deployments.local.watch"
SWEEP = "prefect_mlops.deployments.local.sweep"
PHOENIX = "phoenix"
START_SECONDS = 20.0
ALREADY_ADDED, NOT_RUNNING, ALREADY_STARTED = 90, 70, 60
LONGEST_FOLDER = 60  # a socket's path holds 104 bytes at least; the names below need up to 32
INHERITED = re.compile(
    "PATH|HOME|USER|LOGNAME|LANG|LC_.*|TZ|TMPDIR|PYTHONPATH|VIRTUAL_ENV|LD_LIBRARY_PATH|DYLD_.*|SSL_CERT_(FILE|DIR)"
)

_CONFIGURATION = """\
[supervisord]
nodaemon=true
silent=true
nocleanup=true
umask=077
logfile=supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile=supervisord.pid
[unix_http_server]
file={socket}
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[include]
files=programs/*.ini
"""

_PROGRAM = """\
[program:{name}]
command="%(ENV_PREFECT_MLOPS_PYTHON)s" -P -m {keeper} programs/{name}.json
autorestart={autorestart}
startsecs=3
startretries=1000000
stopwaitsecs={stop}
stopasgroup=true
killasgroup=true
stdout_logfile=NONE
stderr_logfile=NONE
"""


def clean_environment(**more: str) -> dict[str, str]:
    """What a started program inherits: where things are, but no settings of Prefect and no secrets."""
    return {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)} | more


@dataclass(frozen=True)
class Program:
    """One program of a home.

    Args:
        name: A DNS label; unique in the home.
        argv: The program and its arguments; the program is an absolute path.
        log: File that takes its output, bounded in size.
        env: Its whole environment; see `clean_environment`.
        cwd: Its working folder.
        autorestart: Whether it is started again when it ends.
        stop_seconds: From SIGTERM to SIGKILL.
        keep: Whether a new supervisor adopts the running program, or replaces it.
        claim: A file that only programs with the same `claim_owner` may hold at one time.
        claim_owner: Who holds it.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=clean_environment)
    cwd: str = "/"
    autorestart: bool = True
    stop_seconds: int = 10
    keep: bool = True
    claim: Path | None = None
    claim_owner: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,78}[a-z0-9])?", self.name):
            raise Invalid("a program's name", "is letters, digits and dashes", self.name)

    @property
    def specification(self) -> bytes:
        """What the keeper reads."""
        spec = asdict(self) | {"log": str(self.log), "env": dict(self.env), "argv": list(self.argv)}
        spec["claim"] = {"file": str(self.claim), "owner": self.claim_owner} if self.claim else None
        del spec["claim_owner"]
        return json.dumps(spec, sort_keys=True, indent=1).encode()

    @property
    def section(self) -> bytes:
        """What supervisord reads."""
        restart, stop = str(self.autorestart).lower(), self.stop_seconds + 2
        return _PROGRAM.format(name=self.name, keeper=KEEPER, stop=stop, autorestart=restart).encode()


@dataclass(frozen=True)
class Process:
    """A program as the supervisor sees it.

    `state` is one of supervisord's (`STARTING`, `RUNNING`, `BACKOFF`, ...); `pid` is the
    program's own, also where it was adopted; `exit_code` is how it last ended by itself since
    it was put (negative: killed by that signal), None if it did not.
    """

    name: str
    state: str
    pid: int | None
    exit_code: int | None


class Supervisor:
    """The supervisor of `home`: starts programs, restarts them, adopts them, stops them all.

    Nothing here keeps a connection or a process handle: any process may talk to the
    supervisor of a home, and any may end.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.root = self.home / "run"

    # --- the supervisor itself -----------------------------------------------------------

    def ensure(self) -> None:
        """Have exactly one supervisor up: start it if there is none, whoever else tries as well.

        Raises:
            TargetUnreachable: If none answers within 20 seconds.
        """
        if self.is_up() and PHOENIX in self.names() and not (self.root / "down").exists():
            return
        self._make_folders()
        with FileLock(self.root / "ensure.lock", timeout=START_SECONDS * 3):
            (self.root / "down").unlink(missing_ok=True)
            if not self.is_up():
                self._start()
            self.put(self._phoenix())
            self._patiently(lambda: self._rpc("startAllProcesses", False))

    def is_up(self) -> bool:
        """Whether the supervisor answers right now."""
        try:
            return self._rpc("getState", seconds=2.0)["statename"] == "RUNNING"
        except (OSError, xmlrpc.client.Error):
            return False

    @property
    def is_down(self) -> bool:
        """Whether the home was never started, or was stopped on purpose and not started since."""
        return not (self.root / "supervisord.conf").exists()

    @property
    def is_wanted(self) -> bool:
        """Whether the home was started, and nobody asked for a stop since."""
        return not self.is_down and not (self.root / "down").exists()

    @property
    def sockets(self) -> Path:
        """The folder for Unix sockets: in the home, or where that path is too long, a private temporary one."""
        folder = self.root / "sockets"
        return folder.readlink() if folder.is_symlink() else folder

    def stop(self) -> None:
        """Stop every program, also those left behind by a killed supervisor, and the supervisor.

        Raises:
            TargetUnreachable: If something still runs after 40 seconds.
        """
        if not self.root.exists():
            return
        with FileLock(self.root / "ensure.lock", timeout=START_SECONDS * 3):
            (self.root / "down").touch()
            if self.is_up():
                self._stop_supervised()
            done = subprocess.run(
                self._python(SWEEP, str(self.root)),
                env=clean_environment(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                reason = done.stderr.decode(errors="replace")[-400:] or "a program does not end"
                raise TargetUnreachable(f"the supervisor of {self.home}", reason)
            shutil.rmtree(self.sockets, ignore_errors=True)
            (self.root / "sockets").unlink(missing_ok=True)

    def _stop_supervised(self) -> None:
        try:
            self._rpc("stopAllProcesses", seconds=30.0)
            self._rpc("shutdown", seconds=5.0)
        except (OSError, xmlrpc.client.Error):
            pass  # killed meanwhile: what it leaves behind is ended below

    def _start(self) -> None:
        socket = self.sockets / "supervisor.sock"
        write_atomically(self.root / "supervisord.conf", _CONFIGURATION.format(socket=_escaped(socket)).encode())
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up():
            if time.monotonic() > deadline:
                raise TargetUnreachable(f"the supervisor of {self.home}", tail(self.root / "daemon.log"))
            self._spawn()
            wait_until(self.is_up, seconds=2.0, pause=0.01)

    def _spawn(self) -> None:
        """Start a daemon, which detaches itself, or gives way to the one that runs."""
        with (self.root / "daemon.log").open("ab") as log:
            subprocess.run(
                self._python(DAEMON, str(self.root)),
                env=clean_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=False,
            )

    def _make_folders(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        sockets = self.root / "sockets"
        _private(self.root)
        if len(os.fsencode(sockets)) > LONGEST_FOLDER and not sockets.is_symlink():
            name = hashlib.sha256(f"{os.getuid()} {self.home}".encode()).hexdigest()[:10]
            sockets.symlink_to(Path(tempfile.gettempdir()) / f"mlops-{name}")
        for folder in (self.root / "programs", self.sockets):
            _private(folder)

    def _phoenix(self) -> Program:
        argv = self._python(WATCH, str(self.root))
        return Program(PHOENIX, tuple(argv), self.root / "daemon.log", stop_seconds=5, keep=False)

    @staticmethod
    def _python(module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", module, *arguments]

    # --- its programs --------------------------------------------------------------------

    def put(self, program: Program) -> None:
        """Have `program` started, as described; a changed description replaces the running program.

        Raises:
            TargetUnreachable: If the supervisor does not answer, or an older program of this name does not end.
        """
        path = self.root / "programs" / f"{program.name}.json"
        if path.exists() and path.read_bytes() != program.specification:
            self.remove(program.name)
        if not path.exists():
            self.settle(program.name, seconds=program.stop_seconds + START_SECONDS)
        path.with_suffix(".exit").unlink(missing_ok=True)
        write_atomically(path, program.specification)
        write_atomically(path.with_suffix(".ini"), program.section)
        self._patiently(lambda: self._rpc("reloadConfig"))
        if self._patiently(lambda: self._rpc("addProcessGroup", program.name), {ALREADY_ADDED}) is None:
            self._restart(program.name)

    def settle(self, *names: str, seconds: float) -> None:
        """Wait until programs of these names that were removed have ended; others are let be.

        A supervisor that was killed before it had ended them leaves that to the next one.

        Raises:
            TargetUnreachable: If one does not end in time.
        """

        def ended() -> bool:
            leaving = set(names) - self.names()
            if leaving & set(self.processes() if leaving else ()):
                return False
            return not any(_is_held(self.root / "programs" / f"{name}.lock") for name in leaving)

        if not wait_until(ended, seconds=seconds, pause=0.02):
            raise TargetUnreachable(f"the supervisor of {self.home}", f"one of {', '.join(names)} does not end")

    def _restart(self, name: str) -> None:
        """Start a program that the supervisor knows already, unless it runs."""
        wait_until(lambda: self.processes()[name].state != "STOPPING", seconds=START_SECONDS, pause=0.02)
        state = self.processes()[name].state
        if state == "BACKOFF":  # do not wait for its next try
            self._patiently(lambda: self._rpc("stopProcess", name, False), {NOT_RUNNING})
        if state not in ("RUNNING", "STARTING"):
            self._patiently(lambda: self._rpc("startProcess", name, False), {ALREADY_STARTED})

    def remove(self, *names: str) -> None:
        """Have programs ended and forgotten. Returns at once; the supervisor sees it through."""
        for name in names:
            for suffix in (".ini", ".json"):
                (self.root / "programs" / f"{name}{suffix}").unlink(missing_ok=True)
        if names:
            self._patiently(lambda: self._rpc("reloadConfig"))

    def names(self) -> set[str]:
        """The programs that were put and not removed, whether or not they run."""
        return {path.stem for path in (self.root / "programs").glob("*.ini")}

    def processes(self) -> dict[str, Process]:
        """Every program by name.

        Raises:
            TargetUnreachable: If the supervisor does not answer.
        """
        found: list[dict[str, Any]] = self._patiently(lambda: self._rpc("getAllProcessInfo"))
        return {one["name"]: self._process(one) for one in found}

    def recorded_pid(self, name: str) -> int | None:
        """The process id that the program `name` wrote when it started; it may be gone by now."""
        pid = _json(self.root / "programs" / f"{name}.lock").get("pid")
        return pid if isinstance(pid, int) else None

    def exit_code(self, name: str) -> int | None:
        """How the program `name` last ended by itself since it was put; None if it did not."""
        code = _json(self.root / "programs" / f"{name}.exit").get("code")
        return code if isinstance(code, int) else None

    def recorded_start(self, name: str) -> str:
        """Which process of the program `name` started last: differs for every start."""
        record = _json(self.root / "programs" / f"{name}.lock")
        return f"{record.get('pid')}@{record.get('started')}"

    def _process(self, info: Mapping[str, Any]) -> Process:
        name = info["name"]
        pid = self.recorded_pid(name) if info["pid"] else None
        return Process(name, info["statename"], pid, self.exit_code(name))

    def _rpc(self, method: str, *arguments: Any, seconds: float = 5.0) -> Any:
        request = xmlrpc.client.dumps(arguments, f"supervisor.{method}")
        socket = self.sockets / "supervisor.sock"
        answer = _unix.call(socket, "POST", "/RPC2", request.encode(), content_type="text/xml", seconds=seconds)
        return xmlrpc.client.loads(answer)[0][0]

    def _patiently(self, call: Callable[[], Any], expected: set[int] | None = None) -> Any:
        """Call, over the half second in which a killed supervisor is succeeded; None for a fault of `expected`."""
        deadline = time.monotonic() + 5.0
        while True:
            try:
                return call()
            except xmlrpc.client.Fault as fault:
                if expected and fault.faultCode in expected:
                    return None
                raise TargetUnreachable(f"the supervisor of {self.home}", fault.faultString) from fault
            except (OSError, xmlrpc.client.Error) as error:
                if time.monotonic() > deadline:
                    raise TargetUnreachable(f"the supervisor of {self.home}", str(error)) from error
                time.sleep(0.02)


def _private(folder: Path) -> None:
    """Make a folder that only this user may enter, or refuse the one that is there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Invalid(f"the folder {folder}", "belongs to you alone", stat.filemode(found.st_mode))


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably: a reader, or a crash, sees the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def tail(log: Path, lines: int = 6) -> str:
    """The last words in `log`, on one line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def _is_held(lock: Path) -> bool:
    """Whether the program runs that holds `lock` as long as it lives."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not lock_now(fd)
    finally:
        os.close(fd)


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")
