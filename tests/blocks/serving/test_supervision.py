"""The supervisor of a home: one only, succeeded when killed, and gone when stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from prefect_mlops.blocks import Split
from prefect_mlops.blocks._supervisor import Program, Supervisor
from prefect_mlops.blocks._wait import wait_until
from prefect_mlops.blocks.errors import Invalid, TargetRefused, TargetUnreachable
from tests.blocks.serving.conftest import Place, listens, make_place

SLEEP = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); "


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "h")
    yield made
    made.stop()
    assert not left_of(made.home)


def left_of(home: Path) -> list[list[str]]:
    return [one.info["cmdline"] for one in psutil.process_iter(["cmdline"]) if str(home) in str(one.info["cmdline"])]


def sleeper(
    supervisor: Supervisor, name: str = "sleeper", code: str = SLEEP + "time.sleep(600)", **more: object
) -> Program:
    mark = str(supervisor.home)  # so that a stray process is found by its arguments
    return Program(name, (sys.executable, "-c", code, mark), supervisor.home / "logs" / f"{name}.log", **more)  # type: ignore[arg-type]


def daemon(supervisor: Supervisor) -> int:
    return int(json.loads((supervisor.root / "lock").read_bytes())["pid"])


def running(supervisor: Supervisor, name: str = "sleeper") -> int | None:
    """The process of a program, once the keeper has become it."""
    pid = supervisor.recorded_pid(name)
    with contextlib.suppress(psutil.Error):
        return pid if pid and is_alive(pid) and "-c" in psutil.Process(pid).cmdline() else None
    return None


def is_alive(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start(supervisor: Supervisor, program: Program) -> int:
    log = program.log
    log.unlink(missing_ok=True)
    supervisor.ensure()
    supervisor.put(program)
    assert wait_until(lambda: log.exists() and "up" in log.read_text(), seconds=5)
    pid = running(supervisor, program.name)
    assert pid
    return pid


def test_a_program_outlives_its_supervisor_and_is_adopted_by_the_next(supervisor: Supervisor) -> None:
    pid = start(supervisor, sleeper(supervisor))
    old = daemon(supervisor)
    os.kill(old, signal.SIGKILL)
    assert wait_until(lambda: supervisor.is_up() and daemon(supervisor) != old, seconds=5)
    assert running(supervisor) == pid
    assert wait_until(lambda: supervisor.processes()["sleeper"].pid == pid, seconds=5)

    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: running(supervisor) not in (None, pid), seconds=5)

    adopted = running(supervisor)
    supervisor.remove("sleeper")
    assert wait_until(lambda: not is_alive(adopted), seconds=5)
    assert wait_until(lambda: "sleeper" not in supervisor.processes(), seconds=5)


def test_an_adopted_program_that_ignores_sigterm_is_killed_in_time(supervisor: Supervisor) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    pid = start(supervisor, sleeper(supervisor, code=stubborn, stop_seconds=1))
    os.kill(daemon(supervisor), signal.SIGKILL)
    assert wait_until(supervisor.is_up, seconds=5)
    supervisor.remove("sleeper")
    assert wait_until(lambda: not is_alive(pid), seconds=6)


def test_what_was_removed_is_ended_by_the_next_supervisor_and_started_anew_if_wanted_again(
    supervisor: Supervisor,
) -> None:
    code = "import time; print('up', flush=True); time.sleep(600)"
    pid = start(supervisor, sleeper(supervisor, code=code))
    assert wait_until(lambda: is_alive(supervisor.recorded_pid("phoenix")), seconds=5)
    for victim in (supervisor.recorded_pid("phoenix"), daemon(supervisor)):
        os.kill(victim or 0, signal.SIGKILL)
    for suffix in (".ini", ".json"):  # as `remove` does, before anybody could act on it
        (supervisor.root / "programs" / f"sleeper{suffix}").unlink()
    assert is_alive(pid)

    again = start(supervisor, sleeper(supervisor, code=code))
    assert again != pid
    assert not is_alive(pid)
    assert running(supervisor) == again

    supervisor.remove("sleeper")
    assert wait_until(lambda: not is_alive(again), seconds=5)


def test_children_that_hold_on_after_their_parent_died_do_not_stop_its_restart(supervisor: Supervisor) -> None:
    forks = "import os, time; print('up', flush=True); os.fork(); time.sleep(600)"
    pid = start(supervisor, sleeper(supervisor, code=forks))
    assert wait_until(lambda: len(psutil.Process(pid).children()) == 1, seconds=5)
    child = psutil.Process(pid).children()[0]
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: running(supervisor) not in (None, pid), seconds=5)
    assert wait_until(lambda: not is_alive(child.pid), seconds=5)


@pytest.mark.parametrize("orphans", [False, True])
def test_stop_leaves_nothing_even_of_a_killed_supervisor(supervisor: Supervisor, orphans: bool) -> None:
    start(supervisor, sleeper(supervisor))
    if orphans:
        assert wait_until(lambda: is_alive(supervisor.recorded_pid("phoenix")), seconds=5)
        for pid in (supervisor.recorded_pid("phoenix"), daemon(supervisor)):
            os.kill(pid or 0, signal.SIGKILL)
    assert not supervisor.is_down
    supervisor.stop()
    assert supervisor.is_down
    assert not left_of(supervisor.home)
    assert not list(supervisor.root.rglob("*.sock"))
    assert not list((supervisor.root / "programs").iterdir())
    supervisor.stop()

    assert start(supervisor, sleeper(supervisor))


def test_five_at_once_get_one_supervisor(supervisor: Supervisor) -> None:
    code = f"import sys, pathlib; from {Supervisor.__module__} import *; Supervisor(pathlib.Path(sys.argv[1])).ensure()"
    several = [subprocess.Popen([sys.executable, "-c", code, supervisor.home]) for _ in range(5)]
    assert [one.wait(30) for one in several] == [0] * 5
    home = str(supervisor.home)
    found = {one.pid: one.info for one in psutil.process_iter(["cmdline", "ppid"]) if home in str(one.info["cmdline"])}
    daemons = {pid: info["ppid"] for pid, info in found.items() if "local.daemon" in str(info["cmdline"])}
    # What a daemon starts looks like it between its fork and its exec.
    assert len([pid for pid, parent in daemons.items() if parent not in daemons]) == 1


def test_when_supervisor_and_successor_are_both_killed_the_next_caller_brings_them_back(supervisor: Supervisor) -> None:
    pid = start(supervisor, sleeper(supervisor))
    assert wait_until(lambda: is_alive(supervisor.recorded_pid("phoenix")), seconds=5)
    successor = supervisor.recorded_pid("phoenix") or 0
    os.kill(successor, signal.SIGKILL)
    os.kill(daemon(supervisor), signal.SIGKILL)
    supervisor.ensure()
    assert running(supervisor) == pid
    assert wait_until(lambda: supervisor.recorded_pid("phoenix") not in (None, successor), seconds=5)
    old = daemon(supervisor)
    os.kill(old, signal.SIGKILL)
    assert wait_until(lambda: supervisor.is_up() and daemon(supervisor) != old, seconds=5)


def test_a_changed_description_replaces_the_program_and_the_same_one_does_not(supervisor: Supervisor) -> None:
    pid = start(supervisor, sleeper(supervisor))
    supervisor.put(sleeper(supervisor))
    assert running(supervisor) == pid
    supervisor.put(sleeper(supervisor, code=SLEEP + "time.sleep(601)"))
    assert wait_until(lambda: running(supervisor) not in (None, pid), seconds=5)
    assert not is_alive(pid)


def test_a_program_that_ends_is_reported_with_its_status(supervisor: Supervisor) -> None:
    supervisor.ensure()
    supervisor.put(sleeper(supervisor, code="import sys; sys.exit(78)"))
    assert wait_until(lambda: supervisor.exit_code("sleeper") == 78, seconds=5)
    assert wait_until(lambda: supervisor.processes()["sleeper"].state == "BACKOFF", seconds=5)


def test_programs_do_not_inherit_settings_of_prefect_nor_secrets(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    pid = start(supervisor, sleeper(supervisor))
    for process in (pid, daemon(supervisor)):
        environment = psutil.Process(process).environ()
        assert not [name for name in environment if name.startswith(("PREFECT_API", "AWS_"))]
        assert psutil.Process(process).cwd() in ("/", str(supervisor.root))


def test_a_home_whose_machine_was_reset_starts_cleanly(supervisor: Supervisor) -> None:
    start(supervisor, sleeper(supervisor))
    for process in psutil.process_iter(["cmdline"]):
        if str(supervisor.home) in str(process.info["cmdline"]) and process.pid != os.getpid():
            process.kill()
    # Process ids in the records now name processes that are not ours.
    record = supervisor.root / "programs" / "sleeper.lock"
    record.write_text(json.dumps({"pid": os.getppid(), "started": "0"}))
    assert start(supervisor, sleeper(supervisor))
    assert psutil.pid_exists(os.getppid())


def test_a_folder_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h" / "run").mkdir(parents=True, mode=0o755)
    (tmp_path / "h" / "run").chmod(0o777)
    with pytest.raises(Invalid, match="belongs to you alone"):
        Supervisor(tmp_path / "h").ensure()


def test_stop_of_a_place_leaves_no_process_port_socket_or_shared_memory(place: Place) -> None:
    shared_memory = set(Path("/dev/shm").glob("envoy*"))
    place.apply(Split.of(place.release("a")))
    port = int(place.serving().address("credit").url.split(":")[2].split("/")[0])
    assert listens(port)
    os.kill(place.supervisor(), signal.SIGKILL)
    place.serving().stop()
    assert not place.processes()
    assert not listens(port)
    assert not list((place.home / "run").rglob("*.sock"))
    assert set(Path("/dev/shm").glob("envoy*")) == shared_memory
    assert not (Path(tempfile.gettempdir()) / f"mlops-ports-{os.getuid()}" / f"port-{port}").exists()

    stopped = place.serving().observe("credit")
    assert (stopped.routes, stopped.fence) == (Split(), 1)
    place.apply(Split.of(place.release("a")))
    assert place.serving().address("credit").url.split(":")[2].startswith(f"{port}/")
    assert place.ask().status == 200


def test_a_home_with_a_long_path_works(tmp_path: Path) -> None:
    deep = tmp_path / ("deep " * 20 + "#;%") / "é"
    deep.mkdir(parents=True)
    place = make_place(deep)
    place.apply(Split.of(place.release("a")))
    assert place.ask().status == 200
    sockets = place.serving()._supervisor.sockets
    assert sockets.is_relative_to(tempfile.gettempdir())
    place.serving().stop()
    assert not place.processes()
    assert not sockets.exists()


def test_a_port_that_another_program_has_is_refused_before_anything_starts(place: Place) -> None:
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        serving = place.serving(port=port)
        assert any(f"port {port}" in reason for reason in serving.refusals("credit", Split(), place.store))
        with pytest.raises(TargetRefused, match="taken by another program"):
            serving.apply("credit", Split.of(place.release("a")), fence=1, store=place.store)
        assert not place.processes()
        assert serving.services() == ()
    serving.apply("credit", Split.of(place.release("a")), fence=1, store=place.store)
    assert serving.address("credit").url.startswith(f"http://127.0.0.1:{port}/")
    assert place.serving(port=port + 1).refusals("credit", Split(), place.store)


def test_two_homes_never_share_a_port(place: Place, tmp_path: Path) -> None:
    place.apply(Split.of(place.release("a")))
    port = int(place.serving().address("credit").url.split(":")[2].split("/")[0])
    (tmp_path / "other").mkdir()
    other = make_place(tmp_path / "other")
    release = other.release("b")
    with pytest.raises(TargetRefused, match="taken by another program"):
        other.apply(Split.of(release), port=port)

    # Nor when a home that was down comes back and finds its port in another's hands.
    place.serving().stop()
    other.apply(Split.of(release), port=port)
    with pytest.raises((TargetRefused, TargetUnreachable)):
        place.apply(Split.of(place.release("a")))
    assert {other.ask().body["answer"] for _ in range(20)} == {"b"}
    other.serving().stop()


def test_a_damaged_copy_of_a_model_is_replaced_before_it_is_served(place: Place) -> None:
    a = place.release("a")
    place.apply(Split.of(a))
    copy = next((place.home / "serving" / "models").rglob("behaviour.json"))
    copy.chmod(0o600)
    copy.write_text('{"answer": "x"}')
    for number in range(2):
        os.kill(place.pid(a, number), signal.SIGKILL)
    assert wait_until(lambda: place.serving().observe("credit").ready == {a: 0}, seconds=5)
    place.apply(Split.of(a))
    assert place.ask().body["answer"] == "a"
