"""Which error leads to which exit code and which sentence."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

NO, USAGE, UNREACHABLE, BUSY, FAULT, INTERRUPTED, NOT_READ = 1, 2, 3, 4, 70, 130, 141


class NoHome(Exception):
    """There is no local place in the folder."""

    def __str__(self) -> str:
        return f"there is no local place in {self.args[0]}; run `prefect-mlops up`, or name its folder with --home"


class Verdict(NamedTuple):
    """What an error comes to."""

    code: int
    kind: str
    sentence: str


def judge(error: BaseException) -> Verdict:
    """The exit code, the kind and the sentence for an error."""
    kind = type(error).__name__
    if isinstance(error, NoHome):
        return Verdict(UNREACHABLE, kind, str(error))
    if isinstance(error, OSError):
        return Verdict(UNREACHABLE, kind, _about_the_system(error))
    return _about_us(error) or Verdict(FAULT, kind, _unexpected(error))


def _about_the_system(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    where = f": {error.filename}" if error.filename else ""
    advice = {
        errno.ENOSPC: "; make room on the disk, then run this again: what was recorded is safe",
        errno.EACCES: "; make it accessible for you, or choose another folder with --home",
        errno.EPERM: "; make it accessible for you, or choose another folder with --home",
        errno.EROFS: "; choose another folder with --home",
    }
    return f"the operating system says {what!r}{where}{advice.get(error.errno or 0, '')}"


def _about_us(error: BaseException) -> Verdict | None:
    """Whatever Prefect or this library raises on purpose. Imported late: where nothing failed, nothing is loaded."""
    import filelock
    import pydantic

    from prefect_mlops.blocks import errors
    from prefect_mlops.blocks.log import NoLog
    from prefect_mlops.tasks.tracing import NotRecorded

    if isinstance(error, filelock.Timeout):
        return Verdict(BUSY, "Busy", f"another process holds {error.lock_file}; wait for it, then run this again")
    if isinstance(error, pydantic.ValidationError):
        return Verdict(USAGE, errors.Invalid.__name__, _about_values(error))
    if not isinstance(error, errors.MlopsError):
        return None
    kinds: tuple[tuple[int, tuple[type[Exception], ...]], ...] = (
        (USAGE, (errors.Invalid, errors.NothingBefore, NotRecorded)),
        (BUSY, (errors.ServiceBusy, errors.Superseded, errors.TakenOver, errors.FenceTooLow)),
        (UNREACHABLE, (NoLog, errors.StoreUnreachable, errors.StoreRefused, errors.TargetUnreachable)),
    )
    code = next((code for code, classes in kinds if isinstance(error, classes)), NO)
    return Verdict(code, type(error).__name__, str(error))


def _about_values(error: Any) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or error.title
    return f"{where}: {first['msg']}, got {first.get('input')!r}"


def _unexpected(error: BaseException) -> str:
    words = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
    return f"this should not happen: {what}; run it again with --debug, and report what that prints"
