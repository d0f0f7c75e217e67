"""The storm: one round per kill, each with its checks, and figures at the end."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefect_mlops.blocks import _unix, verify
from prefect_mlops.blocks._gateways import _claims, is_taken
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.deployments.traffic import Answer
from tests.forks import Moments, Proc
from tests.storm.checks import Checks, live, look
from tests.storm.clients import Clients
from tests.storm.home import SERVICE, Processes, environment_of, recipes, recorded, train, wait_for, write_data
from tests.storm.runs import Act, Scripts, Worker, wait

SERVING = ("flow", "supervisor", "gateway", "model server", "supervisor and watcher")
PREFECT = ("worker", "prefect server")
KINDS = ("release", "rollback", "reconcile")
ACT_SECONDS = 120.0
WHOLE_SECONDS = 90.0
_MEMBERS = "/stats?format=json&filter=membership_(healthy|total)$"
TRIES = 30
BUSY = {"ServiceBusy", "TakenOver", "Superseded"}


@dataclass
class Round:
    """What one kill did."""

    number: int
    kind: str
    victim: str
    next_kind: str
    runner: str = ""
    victims: list[str] = field(default_factory=list[str])
    killed_at_seconds: float = 0.0
    phase: str = ""
    outcome: str = ""
    next_outcome: str = ""
    converged_seconds: float | None = None
    whole_seconds: float | None = None
    split: str = ""
    requests: int = 0
    failed: list[str] = field(default_factory=list[str])
    processes: int = 0
    files: int = 0
    kilobytes: int = 0
    wrong: list[str] = field(default_factory=list[str])


class Storm:
    """A home under traffic, in which something is killed in every round.

    Args:
        home: The folder of the home; made here.
        scratch: Folder for what the storm itself writes.
        seed: Draws the moments and the victims; the machine's own timing is not in it.
        rate: Questions a second.
        prefect: Whether the home has a Prefect server and a worker.
    """

    def __init__(self, home: Path, scratch: Path, *, seed: int, rate: int, prefect: bool) -> None:
        self.home, self.scratch, self.rate, self.prefect = home, scratch, rate, prefect
        self.random = random.Random(seed)
        self.place = Place(home)
        self.worker = Worker(self.place)
        self.processes = Processes(home)
        self.moments = Moments(self.random)
        self.releases: list[str] = []
        self.rounds: list[Round] = []

    # --- before and after ----------------------------------------------------------------

    @contextmanager
    def raging(self) -> Generator[Storm]:
        """A calm of which it is known how long every kind of run takes."""
        with self.calm():
            for runner, kind in itertools.product(self._runners(), KINDS):
                self._measure(runner, kind)
            yield self

    @contextmanager
    def calm(self, *, worker: bool = True) -> Generator[Storm]:
        """A home with two releases, one of them live, and clients that ask."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(parents=True, exist_ok=True)
        write_data(self.scratch)
        with ExitStack() as stack:
            stack.callback(self.place.down)
            if self.prefect:
                self.place.up(worker=worker)
            settings = self.place.paths.client_settings() if self.prefect else {}
            self.scripts = Scripts(self.home, self.scratch, settings)
            stack.callback(self.scripts.stop)
            self._release_two()
            self.environment = environment_of(self.home)
            self.clients = Clients(self.environment.target.address(SERVICE).url, self.scratch, self.rate)
            stack.callback(self.clients.stop)
            self.checks = Checks(self.place, self.environment, self.clients)
            yield self

    def _release_two(self) -> None:
        """Have both releases in the store, and released once."""
        if self.prefect:
            for name in recipes():
                self.releases.append(self._done(self.scripts.act("whole release", prefect=True, to=name))["said"])
            return
        store = environment_of(self.home).store_block
        self.releases = [train(store, self.scratch / name, recipe) for name, recipe in recipes().items()]
        for release in self.releases:
            self._done(self.scripts.act("release", prefect=False, warm_minutes=30, to=release))

    def _done(self, act: Act) -> dict[str, Any]:
        report = wait(act, ACT_SECONDS)
        if report is None or report["error"]:
            raise RuntimeError(f"{act.kind} failed before anything was killed: {report}, see {self.scratch}")
        return report

    def _measure(self, runner: str, kind: str) -> None:
        act = self._start(runner, kind)
        assert act is not None
        self._done(act)
        self.moments.learn((runner, kind), time.monotonic() - act.began)

    # --- runs ----------------------------------------------------------------------------

    def _runners(self) -> tuple[str, ...]:
        return ("plain", "script") if self.prefect else ("plain",)

    def _start(self, runner: str, kind: str) -> Act | None:
        """Start a run: `plain` while Prefect is down, as a `script` that tells Prefect, or under the `worker`."""
        to, warm_minutes = self._destination(kind), self.random.choice((0, 30, 30))
        if runner == "worker":
            return self.worker.start(kind, to)
        return self.scripts.act(kind, prefect=runner == "script", to=to, warm_minutes=warm_minutes)

    def _destination(self, kind: str) -> str:
        """A release that does not answer now; for a rollback sometimes just `previous`."""
        known = self.checks.log.state().service(SERVICE)
        others = [release for release in self.releases if release not in live(known.split)]
        if kind == "rollback" and known.previous is not None and self.random.random() < 0.5:
            return "previous"
        return self.random.choice(others)

    def _runner_for(self, victim: str, kind: str) -> str:
        """Mostly plain runs: what Prefect does around a run is most of its time, and moves no traffic."""
        if victim == "worker" or (self.prefect and kind != "release" and self.random.random() < 0.05):
            return "worker"
        if victim == "prefect server":
            return "script"
        return "script" if self.prefect and self.random.random() < 0.35 else "plain"

    # --- victims -------------------------------------------------------------------------

    def _victims(self, victim: str, act: Act) -> dict[str, Proc | None]:
        program = self.processes.program
        match victim:
            case "flow":
                return {f"run {act.number}": act.proc}
            case "supervisor":
                return {"supervisord": self.processes.supervisord()}
            case "supervisor and watcher":
                return {"phoenix": program("phoenix"), "supervisord": self.processes.supervisord()}
            case "worker" | "prefect server":
                name = f"prefect-{victim.rsplit(maxsplit=1)[-1]}"
                return {name: program(name)}
            case _:
                names = self.processes.gateways() if victim == "gateway" else self.processes.model_servers()
                running = {name: program(name) for name in names if program(name)}
                return dict([self.random.choice(sorted(running.items()))]) if running else {}

    def _kill(self, this: Round, act: Act) -> bool:
        found = self._victims(this.victim, act)
        self._killed_ns = time.monotonic_ns()
        for name, proc in found.items():
            if proc is not None and proc.kill(signal.SIGKILL):
                this.victims.append(f"{name} {proc.pid}")
        return bool(this.victims)

    # --- a round -------------------------------------------------------------------------

    def round(self, victim: str, kind: str, next_kind: str) -> Round:
        """Kill `victim` at a random moment of a run, and look at everything."""
        this = Round(len(self.rounds), kind, victim, next_kind)
        self.checks.wrong = this.wrong
        if kind == "reconcile":
            self._leave_open()
        since = len(self.clients.read())
        act = self._struck(this)
        killed = time.monotonic()
        this.killed_at_seconds = round(killed - act.began, 3)
        this.phase = self._phase()
        if victim == "flow":
            wait_for(lambda: not act.proc.alive, 10, pause=0.001)  # a signal was sent, which takes its time under load
        self.checks.truth(dead=victim == "flow")
        this.outcome = self._outcome(this, act)
        this.next_outcome = self._next(next_kind)
        this.converged_seconds = round(time.monotonic() - killed, 3)
        self.checks.converged()
        self._whole(this, killed)
        self._proved()
        self._counted(this, since)
        self._leaks(this)
        this.split = str(self.checks.log.state().service(SERVICE).split)
        self.rounds.append(this)
        return this

    def _struck(self, this: Round) -> Act:
        """Start a run and kill the victim at a random moment of it; once more where the run was over by then."""
        for _ in range(TRIES):
            this.runner = self._runner_for(this.victim, this.kind)
            act = self._start(this.runner, this.kind)
            if act is None:
                this.wrong.append(f"the worker did not start a {this.kind} in time")
                continue
            moment = self.moments.draw((this.runner, this.kind))
            time.sleep(max(0.0, act.began + moment - time.monotonic()))
            if self._kill(this, act):
                return act
            wait(act, ACT_SECONDS)
        raise RuntimeError(f"no {this.victim} was there to be killed, {TRIES} times")

    def _phase(self) -> str:
        """The last word of the log when the kill landed."""
        state = self.checks.log.state()
        head, asked = state.head, state.service(SERVICE).asked
        return f"{head.seq if head else 0} {head.kind if head else ''}, {'open' if asked else 'closed'}"

    def _leave_open(self) -> None:
        """Kill a run in the middle of a change, so that there is something to reconcile."""
        for _ in range(20):
            act = self._start("plain", self.random.choice(("release", "rollback")))
            assert act is not None

            def asked(act: Act = act) -> bool:
                return self._open() or not act.proc.alive

            wait_for(asked, ACT_SECONDS, pause=0.002)
            time.sleep(self.random.uniform(0, 0.2))
            act.proc.kill(signal.SIGKILL)
            if self._open():
                return

    def _open(self) -> bool:
        return self.checks.log.state().service(SERVICE).asked is not None

    def _outcome(self, this: Round, act: Act) -> str:
        """How the run ended whose surroundings were killed; it should not even have noticed."""
        report = wait(act, 5.0 if this.victim == "flow" else ACT_SECONDS)
        if this.victim == "flow":
            return "killed" if this.runner == "worker" or report is None else "done"
        if not self.checks.need(not act.proc.alive, f"the {act.kind} still runs after {ACT_SECONDS:.0f} s"):
            act.proc.kill(signal.SIGKILL)
        if report is None:
            excused = this.runner == "worker" and this.victim in PREFECT
            self.checks.need(excused, f"the {act.kind} ended without a word")
            return "nobody knows"
        if report["error"] is None:
            self.moments.learn((this.runner, act.kind), report["seconds"])
            return "done"
        return f"{report['error']}: {report['said']}"

    def _next(self, kind: str) -> str:
        """The next run brings one state about; one that is told that another run is at it may ask again."""
        tries = 0
        deadline = time.monotonic() + ACT_SECONDS
        while True:
            tries += 1
            runner = (
                "script" if self.prefect and self.random.random() < 0.35 and self.place.prefect.is_up() else "plain"
            )
            act = self._start(runner, kind)
            assert act is not None
            report = wait(act, ACT_SECONDS)
            if not self.checks.need(report is not None, f"the next {kind} ({runner} {act.number}) does not end"):
                act.proc.kill(signal.SIGKILL)
                return "never"
            assert report is not None
            if report["error"] in BUSY and self.prefect and time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            said = f"the next {kind} ({runner} {act.number}) ended with {report['error']}: {report['said']}"
            self.checks.need(report["error"] is None, said)
            return f"{runner}, {report['error'] or 'done'}" + (f", at the {tries}. try" if tries > 1 else "")

    def _whole(self, this: Round, killed: float) -> None:
        """Wait until everything that died is back, so that the next round's failures are its own."""
        missing: list[str] = []

        def whole() -> bool:
            missing[:] = self._missing()
            return not missing

        self.checks.need(wait_for(whole, WHOLE_SECONDS, pause=0.1) is not None, f"did not come back: {missing}")
        this.whole_seconds = round(time.monotonic() - killed, 3)

    def _missing(self) -> list[str]:
        now = look(self.environment, self.checks.log)
        replicas = self.place.serving.replicas
        if now.observed is None:
            return [now.trouble]
        missing = [f"{release[:15]}: {count}" for release, count in now.observed.ready.items() if count < replicas]
        missing += self.processes.missing()
        missing += sorted(self._unwatched(now.observed.routes.releases))
        if not missing and not self._healthy():
            missing.append("a model server, for a gateway")
        if self.prefect and not self.place.prefect.is_up(2.0):
            missing.append("an answer of the Prefect server")
        return missing

    def _unwatched(self, releases: tuple[str, ...]) -> set[str]:
        """The model servers that the supervisor would not start again."""
        servers = self.place.serving._servers(SERVICE)
        wanted = {servers.name(release, number) for release in releases for number in range(servers.replicas)}
        return wanted - self.processes.supervisor.names()

    def _healthy(self) -> bool:
        """Whether both gateways send requests to every model server again."""
        for name in self.processes.gateways():
            try:
                found = _unix.get_json(self.processes.supervisor.sockets / f"{name}.sock", _MEMBERS)["stats"]
            except OSError:
                return False
            counts = {one["name"]: one["value"] for one in found if "name" in one}
            if any(value != counts[key.replace("_total", "_healthy")] for key, value in counts.items()):
                return False
        return True

    def _proved(self) -> None:
        report = verify(self.checks.log)
        self.checks.need(report.verified, f"the log does not verify: {[fault.what for fault in report.faults[:3]]}")

    def _counted(self, this: Round, since: int) -> None:
        answers = self.clients.since(since)
        this.requests = len(answers)
        this.failed = [self._failure(answer) for answer in answers if answer.status != 200]

    def _failure(self, answer: Answer) -> str:
        asked, answered = ((ns - self._killed_ns) / 1e6 for ns in (answer.asked_ns, answer.answered_ns))
        return f"{answer.status} {answer.error} asked {asked:+.1f} ms, answered {answered:+.1f} ms"

    def _leaks(self, this: Round) -> None:
        this.processes = len(self.processes.all())
        run = self.processes.supervisor.root
        this.files = sum(1 for _ in run.rglob("*")) + sum(1 for _ in self.processes.supervisor.sockets.iterdir())
        folders = (run, *(self.home / "serving" / name for name in ("gateway", "models", "servers")))
        every = (path for folder in folders for path in folder.rglob("*"))
        this.kilobytes = sum(_size(path) for path in every) // 1024

    # --- the end -------------------------------------------------------------------------

    def unrecorded(self) -> int:
        """Answers that a client got, and of which no model server kept a record."""
        kept = recorded(self.home / "serving" / "records")
        got = {(answer.request_id, answer.release) for answer in self.clients.answers if answer.status == 200}
        return len(got - kept)

    def rest(self) -> list[str]:
        """What is left after `stop`: processes, ports, sockets."""
        ports = [json.loads((self.home / "serving" / "state.json").read_bytes())["port"]]
        ports += [self.place.paths.prefect_port] if self.place.paths.prefect_port else []
        mine, there = {os.getpid()}, self.processes.all(deep=True)
        left = [f"{proc.pid}: {words}" for proc, words in there.items() if proc.pid not in mine]
        left += [f"process {proc.pid} still runs" for proc in self.processes.seen - set(there) if proc.alive]
        left += [f"port {port} is taken" for port in ports if is_taken(port)]
        sockets, claim = self.processes.supervisor.sockets, _claims() / f"port-{ports[0]}"
        left += [f"{path} is left" for path in (sockets, claim) if path.exists()]
        return left


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def weather(kills: int, victims: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """What dies in which kind of run, and what comes next: every victim in every kind, in turn."""
    every = itertools.cycle((victim, kind) for kind in KINDS for victim in victims)
    after = itertools.cycle(("reconcile", "release", "rollback", "reconcile"))
    for (victim, kind), next_kind in itertools.islice(zip(every, after, strict=False), kills):
        deployed = victim == "worker" and kind == "release"
        yield victim, "rollback" if deployed else kind, next_kind


def rage(
    storm: Storm, kills: int, victims: tuple[str, ...] | None = None, tell: Callable[[Round], None] = lambda _: None
) -> dict[str, Any]:
    """Kill `kills` times, and return the figures."""
    began = time.monotonic()
    with storm.raging():
        for each in weather(kills, victims or (SERVING + PREFECT * storm.prefect)):
            tell(storm.round(*each))
    return summary(storm, time.monotonic() - began)


def summary(storm: Storm, seconds: float) -> dict[str, Any]:
    """The figures of a storm."""
    by: dict[str, Any] = {}
    for victim in dict.fromkeys(one.victim for one in storm.rounds):
        mine = [one for one in storm.rounds if one.victim == victim]
        by[victim] = {
            "kills": sum(len(one.victims) for one in mine),
            "rounds": len(mine),
            "requests": sum(one.requests for one in mine),
            "failed": sum(len(one.failed) for one in mine),
            "run_ended_well": sum(one.outcome == "done" for one in mine),
            "converged_seconds": _spread([one.converged_seconds for one in mine if one.converged_seconds]),
            "whole_seconds": _spread([one.whole_seconds for one in mine if one.whole_seconds]),
            "wrong": sum(bool(one.wrong) for one in mine),
        }
    return {
        "kills": sum(each["kills"] for each in by.values()),
        "requests": len(storm.clients.answers),
        "failed": sum(answer.status != 200 for answer in storm.clients.answers),
        "wrong": sum(bool(one.wrong) for one in storm.rounds),
        "unrecorded": storm.unrecorded(),
        "left": storm.rest(),
        "grown": {name: _grown(storm.rounds, name) for name in ("processes", "files", "kilobytes")},
        "victims": by,
        "seconds": round(seconds, 1),
    }


def _grown(rounds: list[Round], name: str) -> dict[str, float]:
    """The median of a figure over the first and the last ten rounds, and its highest value."""
    values: list[int] = [getattr(one, name) for one in rounds]
    first, last = statistics.median(values[:10]), statistics.median(values[-10:])
    return {"first": first, "last": last, "max": max(values)}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 2), "max": round(max(values), 2)} if values else {}


def line(this: Round) -> str:
    """A round as one line of JSON."""
    return json.dumps(asdict(this))
