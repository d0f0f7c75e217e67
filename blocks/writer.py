"""Who writes: the process, the person or program on whose behalf, and when."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import socket
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

from prefect_mlops.blocks.entry import Actor, Time, Writer


def moment(when: datetime) -> Time:
    """A time as the log writes it: UTC, with microseconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def os_user() -> Actor:
    """Whoever the operating system says is running this process."""
    try:
        return Actor(name=getpass.getuser(), assurance="os-user")
    except (KeyError, OSError):
        return Actor(name=f"uid {os.getuid()}", assurance="os-user")


def this_writer() -> Writer:
    """This process, as an entry names it."""
    return Writer(nonce=uuid.uuid4().hex, host=socket.gethostname(), process=own_mark(), code=_code_version())


def process_mark(pid: int) -> str:
    """Number and start of a running process, which no later process shares; empty if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else f"{pid}@{fields[19]}"  # ticks since the machine started, on no clock
    except (OSError, IndexError):
        pass
    try:
        return f"{pid}@{psutil.Process(pid).create_time():.2f}"
    except (psutil.Error, ValueError, OverflowError):
        return ""


def own_mark() -> str:
    """Number and start of this process."""
    return _own_mark(os.getpid())


@cache
def _own_mark(pid: int) -> str:
    return process_mark(pid)


def is_gone(writer: Writer) -> bool:
    """Whether the process that wrote is known to have ended: a hint when to look, never a proof of safety."""
    pid, _, _ = writer.process.partition("@")
    return writer.host == socket.gethostname() and pid.isdecimal() and process_mark(int(pid)) != writer.process


@cache
def _code_version() -> str:
    """The version of this library."""
    return importlib.metadata.version("prefect-mlops")
