"""The first process of a node's own namespaces: brings the node up, runs a command beside it, and ends with it.

Started by `tests.cluster` as `python -m tests.cluster.inside HOME COMMAND...`. When this process ends, in whatever
way, the kernel ends every other of its process namespace: the node, its containers, and what the command left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from tests.cluster import seldon, settings
from tests.cluster.api import Cluster, Manifest, wait_for
from tests.cluster.commands import run
from tests.cluster.daemons import daemons
from tests.cluster.node import Node
from tests.cluster.unpacked import borrow

HIDDEN = ("/run/containerd", "/run/netns", "/var/lib/cni", "/var/log/containers")
"""Where the node's programs write outside its home, whatever they are told."""


def main() -> int:
    """Bring up the node in a home folder, run a command, and give its exit code."""
    began = time.monotonic()
    home, command = Path(sys.argv[1]), sys.argv[2:]
    node = Node(home)
    try:
        _bring_up(node)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as why:
        print(f"the node did not come up: {why}\n{_last_lines(node)}", file=sys.stderr)
        return 1
    print(f"node up in {time.monotonic() - began:.1f} s, in {home}", file=sys.stderr, flush=True)
    return _beside(node, command)


def _bring_up(node: Node) -> None:
    _shield()
    borrow(node.home)
    _network()
    settings.write(node.home)
    run("mount", "--bind", node.home / "resolv.conf", Path("/etc/resolv.conf").resolve())
    for name in ("etcd", "apiserver", "containerd"):
        node.start(name)
    node.wait_for_api()
    node.wait_for_containerd()
    with contextlib.closing(node.cluster()) as cluster:
        for name in ("controllers", "scheduler", "kubelet", "proxy", "names"):
            node.start(name)
        _define(cluster, seldon.definitions(node.home))
        path = f"/api/v1/nodes/{settings.NODE}"
        wait_for(lambda: _is(cluster.get(path), "Ready"), "the node to be ready", seconds=60)
        _start_operator(node, cluster)


def _start_operator(node: Node, cluster: Cluster) -> None:
    if "operator" in daemons(node.home):
        seldon.prepare(cluster)
        node.start("operator")
        seldon.wait_until_up(cluster, node.home)


def _shield() -> None:
    for folder in map(Path, HIDDEN):
        folder.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "node", folder)


def _network() -> None:
    """All that the node reaches are itself and its pods; anything else fails at once."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{settings.NODE_IP}/32", "dev", "lo")
    run("ip", "route", "add", settings.SERVICES, "dev", "lo", "src", settings.NODE_IP)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _define(cluster: Cluster, definitions: list[Manifest]) -> None:
    for definition in definitions:
        cluster.apply(definition)
    for definition in definitions:
        name = definition["metadata"]["name"]
        wait_for(lambda one=definition: _is(cluster.read(one), "Established"), f"the definition of {name}")


def _is(thing: Manifest, condition: str) -> bool:
    conditions = (thing.get("status") or {}).get("conditions") or []
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)


def _beside(node: Node, command: list[str]) -> int:
    """Run the command, and meanwhile bury whatever dies: a process namespace's first process must."""
    told = {"CLUSTER_NODE": str(node.home), "KUBECONFIG": str(node.kubeconfig)}
    process = subprocess.Popen(command, env={**os.environ, **told})
    signal.signal(signal.SIGINT, _leave_it_to_the_command)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode if process.returncode >= 0 else 128 - process.returncode
        _notice(node, pid, status)


def _leave_it_to_the_command(_number: int, _frame: FrameType | None) -> None: ...


def _notice(node: Node, pid: int, status: int) -> None:
    """Say so where a part of the node ended that nobody stopped."""
    for file in node.home.glob("*.pid"):
        if file.read_text() == str(pid):
            code = os.waitstatus_to_exitcode(status)
            print(f"the node's {file.stem} ended with {code}:\n{_tail(node, file.stem)}", file=sys.stderr)


def _last_lines(node: Node) -> str:
    return "\n".join(f"{name}:\n{_tail(node, name)}" for name in daemons(node.home) if node.log(name).exists())


def _tail(node: Node, name: str) -> str:
    return "\n".join(node.log(name).read_text(errors="replace").splitlines()[-5:])


if __name__ == "__main__":
    sys.exit(main())
