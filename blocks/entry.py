"""Entries: the sentences of the log, and the bytes they are written in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from prefect_mlops.blocks._canonical import BranchName, Digest, Label, Value
from prefect_mlops.blocks._sealed import Sealed
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.blocks.split import Split

Time = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$")]
"""A moment in UTC with microseconds; its text sorts as the time does."""

Kind = Literal[
    "genesis",
    "taken",
    "released",
    "settled",
    "asked",
    "observed",
    "approval",
    "waiver",
    "verdict",
    "takeover",
    "sweep",
    "erased",
]
Move = Literal["advance", "rollback", "reassert"]
Outcome = Literal["passed", "failed", "could not be measured", "inconclusive"]
Verdict = Literal["applied", "undone", "refused", "unknown"]


class Run(Value):
    """The Prefect flow run in which something was done."""

    id: str = Field(description="Id of the flow run.")
    name: str = Field(description="Name of the flow run.")
    flow: str = Field(description="Name of the flow.")


class Actor(Value):
    """On whose behalf something was done, and how far that can be believed."""

    name: str = Field(min_length=1, max_length=200, description="Name of the person or program.")
    assurance: Literal["claimed", "os-user", "cloud", "signed"] = Field(description="Who vouches for the name.")


class Writer(Value):
    """The process that wrote an entry."""

    nonce: str = Field(description="Drawn once per entry, so that no two writers write the same bytes.")
    host: str = Field(description="Name of the machine.")
    process: str = Field(description="Number and start of the process, so that its end can be noticed.")
    code: str = Field(description="Version of this library.")


class Genesis(Value):
    """The first entry: which store, and the way to everything else without Prefect."""

    kind: Literal["genesis"] = "genesis"
    configuration: dict[str, dict[str, str | int | bool | None]] = Field(
        description="The environment's parts, each with its settings; never a secret."
    )


class Taken(Value):
    """A run takes the head of a branch, to train on it; what it releases, or why nothing, closes this."""

    kind: Literal["taken"] = "taken"
    branch: BranchName
    move: int = Field(ge=0, lt=10**12)
    commit: Digest
    deadline: Time


class Settled(Value):
    """What came of a head that was taken, where no new release did; only `passed` names one, which was there."""

    kind: Literal["settled"] = "settled"
    outcome: Outcome
    release: Digest | None = None
    detail: str = ""
    evidence: Digest | None = None


class Released(Value):
    """A release got its number: `credit-v3` is number 3 of the service `credit`."""

    kind: Literal["released"] = "released"
    release: Digest
    number: int = Field(ge=1)
    commit: Digest | None = None


class Asked(Value):
    """Written before anything moves: what is served, and what shall be."""

    kind: Literal["asked"] = "asked"
    before: Split
    after: Split
    move: Move
    policy: Digest
    evidence: tuple[Digest, ...] = ()
    deadline: Time
    warm_until: Time | None = None


class Seen(Value):
    """Written after looking: what is really served."""

    kind: Literal["observed"] = "observed"
    split: Split | None
    ready: dict[str, int]
    fence: int
    verdict: Verdict
    detail: str = ""


class Approval(Value):
    """A person said yes or no to what was shown."""

    kind: Literal["approval"] = "approval"
    release: Digest
    decision: Literal["approved", "declined"]
    shown: Digest


class Waiver(Value):
    """A person let a failed gate pass, with a reason, having seen the evidence."""

    kind: Literal["waiver"] = "waiver"
    release: Digest
    gate: str
    shown: Digest


class Judged(Value):
    """A gate's outcome; only `passed` promotes."""

    kind: Literal["verdict"] = "verdict"
    release: Digest
    gate: str
    outcome: Outcome
    detail: str = ""
    evidence: Digest | None = None


class Takeover(Value):
    """Someone else carries on with what entry `of` asked for."""

    kind: Literal["takeover"] = "takeover"
    of: int
    deadline: Time


class Sweep(Value):
    """Garbage collection removed objects that nothing named any more."""

    kind: Literal["sweep"] = "sweep"
    removed: tuple[Digest, ...] = ()


class Erased(Value):
    """Personal data was erased on request."""

    kind: Literal["erased"] = "erased"
    removed: tuple[Digest, ...] = ()


Body = Annotated[
    Genesis | Taken | Released | Settled | Asked | Seen | Approval | Waiver | Judged | Takeover | Sweep | Erased,
    Field(discriminator="kind"),
]


class NotAnEntry(MlopsError):
    """Bytes in the log that are no entry."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number, self.reason = number, reason

    def __str__(self) -> str:
        return f"log entry {self.number} is damaged: {self.reason}; run `prefect-mlops verify`"


class Entry(Sealed):
    """One sentence of the log: immutable, numbered, chained to the one before it."""

    v: Literal[1] = 1
    store: str
    environment: Label
    seq: int = Field(ge=0, lt=10**12)
    prev: Digest | None
    services: tuple[Label, ...]
    rollout: int | None
    closes: int | None
    run: Run | None
    writer: Writer
    actor: Actor
    reason: str = Field(max_length=2000)
    time: Time
    raw_time: Time
    clamped: bool
    body: Body
    signature: str | None = None

    @property
    def kind(self) -> Kind:
        """What the entry says."""
        return self.body.kind

    @property
    def service(self) -> str:
        """The one service that it is about."""
        (service,) = self.services
        return service

    @classmethod
    def decode(cls, number: int, data: bytes) -> Entry:
        """Read the bytes stored under `number`.

        Raises:
            NotAnEntry: If they are not exactly the bytes that `encode` writes, or are of another number.
        """
        try:
            entry = cls.unsealed(data)
        except ValueError as error:
            raise NotAnEntry(number, str(error)) from None
        if entry.seq != number:
            raise NotAnEntry(number, f"it says that it is number {entry.seq}")
        return entry
