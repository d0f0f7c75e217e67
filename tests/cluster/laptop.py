"""A machine that reaches the node's own address, so the API server and the bucket, and none of its pods."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.api import wait_for
from tests.cluster.commands import run
from tests.cluster.settings import NODE_IP

_OURS, _THEIRS = "10.98.0.1", "10.98.0.2"


@contextmanager
def a_laptop() -> Generator[tuple[str, ...]]:
    """The words before a command that let it run there."""
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
    try:
        there = Path(f"/proc/{process.pid}/ns/net")
        wait_for(lambda: os.readlink(there) != os.readlink("/proc/self/ns/net"), "a network of its own")
        inside = ("nsenter", "--net", "--target", str(process.pid))
        run("ip", "link", "add", "laptop", "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        for words, link, address in (((), "laptop", _OURS), (inside, "eth0", _THEIRS)):
            run(*words, "ip", "addr", "add", f"{address}/30", "dev", link)
            run(*words, "ip", "link", "set", link, "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        run(*inside, "ip", "route", "add", f"{NODE_IP}/32", "via", _OURS)
        yield inside
    finally:
        process.kill()
        process.wait()
