"""What can go wrong, one class per fact.

Every message names the thing, the rule and the value, then what to do next. Facts are
positional `args`, because Prefect pickles errors into states.
"""

from __future__ import annotations

from typing import ClassVar


class MlopsError(Exception):
    """The root of every error that this library raises on purpose."""

    transient: ClassVar[bool] = False


def is_transient(task: object, task_run: object, state: object) -> bool:
    """Whether a failed Prefect task is worth another try; serves every `retry_condition_fn`."""
    result = getattr(state, "result", None)
    error = result(raise_on_failure=False) if callable(result) else None
    return isinstance(error, MlopsError) and error.transient


class Invalid(MlopsError, ValueError):
    """A value that breaks a rule: names the thing, the rule, the value and what to do."""

    def __init__(self, thing: str, rule: str, value: object, advice: str = "") -> None:
        super().__init__(thing, rule, value, advice)
        self.thing, self.rule, self.value, self.advice = thing, rule, value, advice

    def __str__(self) -> str:
        return f"{self.thing} {self.rule}, got {self.value!r}" + (f"; {self.advice}" if self.advice else "")


# --- the store -----------------------------------------------------------------------------


class StoreError(MlopsError):
    """The root of what a store raises."""


class StoreUnreachable(StoreError):
    """The store does not answer; whether the last write happened is unknown."""

    transient = True

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store, self.reason = store, reason

    def __str__(self) -> str:
        return f"store {self.store} does not answer: {self.reason}; check that it is up, then run this again"


class StoreRefused(StoreError):
    """The store cannot keep the promise that everything rests on."""

    def __init__(self, store: str, reason: str, advice: str) -> None:
        super().__init__(store, reason, advice)
        self.store, self.reason, self.advice = store, reason, advice

    def __str__(self) -> str:
        return f"store {self.store} is refused: {self.reason}; {self.advice}"


class ObjectMissing(StoreError):
    """Something that was recorded is not in the store."""

    def __init__(self, store: str, key: str) -> None:
        super().__init__(store, key)
        self.store, self.key = store, key

    def __str__(self) -> str:
        return f"{self.key} is missing from {self.store}; restore it from a copy, then run `prefect-mlops verify`"


class ObjectDamaged(StoreError):
    """Bytes that do not have the digest under which they are stored."""

    def __init__(self, store: str, key: str, found: str) -> None:
        super().__init__(store, key, found)
        self.store, self.key, self.found = store, key, found

    def __str__(self) -> str:
        return (
            f"{self.key} in {self.store} is damaged: its bytes have digest {self.found}; "
            "restore it from a copy, then run `prefect-mlops verify`"
        )


# --- data ----------------------------------------------------------------------------------


class DataRefused(MlopsError):
    """Data that does not meet what is expected of it; nothing may be made of it."""

    def __init__(
        self, path: str, commit: str, reasons: tuple[str, ...], bad_rows: int, quarantine: str | None, evidence: str
    ) -> None:
        super().__init__(path, commit, reasons, bad_rows, quarantine, evidence)
        self.path, self.commit, self.reasons = path, commit, reasons
        self.bad_rows, self.quarantine, self.evidence = bad_rows, quarantine, evidence

    def __str__(self) -> str:
        kept = f"; {self.bad_rows:,} rows quarantined as {self.quarantine}" if self.quarantine else ""
        return (
            f"{self.path} is refused: {'; and '.join(self.reasons)}{kept}; "
            f"mend it at its source, then commit it again (commit {self.commit}, evidence {self.evidence})"
        )


# --- the serving target --------------------------------------------------------------------


class ServingError(MlopsError):
    """The root of what a serving target raises."""


class TargetUnreachable(ServingError):
    """The target does not answer; what it serves is unknown."""

    transient = True

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target, self.reason = target, reason

    def __str__(self) -> str:
        return f"{self.target} does not answer: {self.reason}; what it serves is unknown, run `prefect-mlops status`"


class TargetRefused(ServingError):
    """The target cannot do what was asked; nothing was changed."""

    def __init__(self, target: str, service: str, reasons: tuple[str, ...]) -> None:
        super().__init__(target, service, reasons)
        self.target, self.service, self.reasons = target, service, reasons

    def __str__(self) -> str:
        return f"{self.target} refuses the split for {self.service}, nothing was changed: {'; '.join(self.reasons)}"


class FenceTooLow(ServingError):
    """Someone with a later log entry drives this service now; nothing was changed."""

    def __init__(self, service: str, fence: int, highest: int) -> None:
        super().__init__(service, fence, highest)
        self.service, self.fence, self.highest = service, fence, highest

    def __str__(self) -> str:
        return (
            f"{self.service} is driven by log entry {self.highest}, entry {self.fence} may not change it any more; "
            "this run was taken over: see `prefect-mlops status`"
        )


class TargetConflict(ServingError):
    """Somebody else changed, by other means, what this drives; nothing was changed, and theirs was not overwritten."""

    def __init__(self, target: str, service: str, by: tuple[str, ...], what: str) -> None:
        super().__init__(target, service, by, what)
        self.target, self.service, self.by, self.what = target, service, by, what

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.service} was also changed by {', '.join(self.by)} ({self.what}), nothing was "
            "overwritten; undo that change by the same means or as docs/kubernetes.md says, then start this again"
        )


class RoutesNotMoved(ServingError):
    """The target took what it was told, and its routes did not follow in time."""

    def __init__(self, target: str, service: str, waited_seconds: float, served: str, why: str) -> None:
        super().__init__(target, service, waited_seconds, served, why)
        self.target, self.service, self.waited_seconds, self.served = target, service, waited_seconds, served
        self.why = why

    def __str__(self) -> str:
        return (
            f"{self.target}: after {self.waited_seconds:.0f} s the routes of {self.service} are still {self.served}: "
            f"{self.why or 'nothing says why'}; see `prefect-mlops status`"
        )


class ArmNotReady(ServingError):
    """A model server of an arm did not come up in time; traffic was not moved to it."""

    def __init__(self, service: str, release: str, waited_seconds: float, last_words: str) -> None:
        super().__init__(service, release, waited_seconds, last_words)
        self.service, self.release, self.waited_seconds, self.last_words = service, release, waited_seconds, last_words

    def __str__(self) -> str:
        return (
            f"release {self.release} of {self.service} was not ready after {self.waited_seconds:.0f} s, "
            f"traffic was not moved to it; its server's last words: {self.last_words or '(none)'}"
        )


# --- a model -------------------------------------------------------------------------------


class TestsNotPassed(MlopsError):
    """A model was stopped by its tests; nothing was released."""

    __test__: ClassVar[bool] = False  # pytest shall not take it for a test

    def __init__(self, service: str, verdicts: tuple[tuple[str, str, str], ...], evidence: str) -> None:
        super().__init__(service, verdicts, evidence)
        self.service, self.verdicts, self.evidence = service, verdicts, evidence

    def __str__(self) -> str:
        found = "; ".join(
            f"{test} {outcome}: {detail.removeprefix(test).strip()}" for test, outcome, detail in self.verdicts
        )
        return (
            f"{self.service} is stopped by {len(self.verdicts)} of its model tests, nothing was released: {found}; "
            f"mend the model, or let a person waive these tests, having seen the evidence {self.evidence}"
        )


class StepFailed(MlopsError):
    """A step that was started as a run of its own did not end well; what it should have made is not there."""

    def __init__(self, step: str, run: str, ended: str, reason: str) -> None:
        super().__init__(step, run, ended, reason)
        self.step, self.run, self.ended, self.reason = step, run, ended, reason

    def __str__(self) -> str:
        return (
            f"{self.step} as run {self.run} ended {self.ended}: {self.reason or 'it says nothing'}; mend that, "
            "or ask for other resources in the recipe, then start this again"
        )


# --- a rollout -----------------------------------------------------------------------------


class RolloutError(MlopsError):
    """The root of what moving traffic raises."""


class ServiceBusy(RolloutError):
    """Another run is moving this service right now; nothing was changed."""

    def __init__(self, service: str, entry: int, by: str, until: str) -> None:
        super().__init__(service, entry, by, until)
        self.service, self.entry, self.by, self.until = service, entry, by, until

    def __str__(self) -> str:
        return (
            f"{self.service} is being moved by {self.by} (log entry {self.entry}, until {self.until} at most), nothing "
            "was changed; wait for it, or run `prefect-mlops reconcile` if that run is dead"
        )


class Superseded(RolloutError):
    """Somebody moved the service since this change was decided; nothing was changed."""

    def __init__(self, service: str, wanted: str, served: str, by: str) -> None:
        super().__init__(service, wanted, served, by)
        self.service, self.wanted, self.served, self.by = service, wanted, served, by

    def __str__(self) -> str:
        return (
            f"{self.service} was moved meanwhile, last by {self.by}: it serves {self.served}; the change to "
            f"{self.wanted} is superseded, nothing was changed; start it again if it is still wanted"
        )


class TakenOver(RolloutError):
    """Someone else finished what this run began; this run changes nothing any more."""

    def __init__(self, service: str, asked: int, by: str) -> None:
        super().__init__(service, asked, by)
        self.service, self.asked, self.by = service, asked, by

    def __str__(self) -> str:
        return (
            f"log entry {self.asked} of {self.service} was taken over by {self.by}; this run changed nothing since: "
            "see `prefect-mlops status`"
        )


class SplitNotApplied(RolloutError):
    """What was asked for is not what is served."""

    def __init__(self, service: str, wanted: str, served: str, why: str) -> None:
        super().__init__(service, wanted, served, why)
        self.service, self.wanted, self.served, self.why = service, wanted, served, why

    def __str__(self) -> str:
        return f"{self.service}: asked for {self.wanted}, {self.served} is served ({self.why})"


class GateNotPassed(RolloutError):
    """A release was stopped by a gate; only `passed` promotes."""

    def __init__(self, release: str, gate: str, outcome: str, detail: str) -> None:
        super().__init__(release, gate, outcome, detail)
        self.release, self.gate, self.outcome, self.detail = release, gate, outcome, detail

    def __str__(self) -> str:
        return f"{self.release} stopped by gate {self.gate!r}: {self.outcome}; {self.detail}"


class NothingBefore(RolloutError):
    """There is nothing to go back to."""

    def __init__(self, service: str, live: str) -> None:
        super().__init__(service, live)
        self.service, self.live = service, live

    def __str__(self) -> str:
        return (
            f"{self.service} has nothing before {self.live} to go back to; "
            "name a release: `prefect-mlops releases` lists them"
        )
