"""Taking the head of a branch to train on it: each head once, whoever dies, stalls or comes twice.

Free of Prefect. A run may work on a head only if its append of `taken` succeeded, and what came of it counts only
if the append that closes this succeeds; whether the run before is dead is a guess on which nothing rests.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.entry import Entry, Outcome, Released, Run, Settled, Taken
from prefect_mlops.blocks.errors import TakenOver
from prefect_mlops.blocks.log import Draft, ReleaseLog
from prefect_mlops.blocks.state import Claim, Service, State
from prefect_mlops.blocks.writer import is_gone, moment
from prefect_mlops.tasks._moving import who

Fate = Literal["unknown", "ended", "cancelled"]
MOST_TRIES = 3
"""How many runs may end in the midst of training on one head before it is given up."""


def take(
    log: ReleaseLog,
    service: str,
    branch: Branch,
    *,
    lease: timedelta,
    fate: Callable[[Run], Fate] = lambda _: "unknown",
    reason: str = "",
) -> Entry | None:
    """Take the head of a branch for the run on whose behalf `log` is written, if nobody has it.

    A run that holds it and is gone is taken over. The head is given up after so many of them, or if a person
    cancelled the last one.

    Args:
        log: Where that is written.
        service: What shall be trained.
        branch: Whose head.
        lease: After how long a silent run may be taken over.
        fate: What is known of another run, a hint.
        reason: Why, in a person's words.

    Returns:
        The entry that says so, or None where there is nothing to take: `standing` says why.

    Raises:
        NotAMove: If the branch is damaged.
        StoreUnreachable: If the store does not answer.
    """
    deadline = moment(log.clock() + lease)

    def decide(state: State) -> Draft | None:
        tip, claim = branch.tip(), state.service(service).claims.get(branch.name)
        if tip is None or (claim is not None and claim.closed is not None and claim.move >= tip.seq):
            return None
        if claim is not None and claim.closed is None:
            ended = _fate(log, claim, fate)
            if ended == "unknown":
                return None
            if claim.move == tip.seq and (ended == "cancelled" or claim.tries >= MOST_TRIES):
                return _given_up(service, claim, ended)
        branch.settle()
        body = Taken(branch=branch.name, move=tip.seq, commit=tip.commit, deadline=deadline)
        return Draft(body, (service,), reason=reason)

    entry = log.append(decide)
    return entry if entry is not None and isinstance(entry.body, Taken) else None


def release(log: ReleaseLog, taken: Entry, digest: str, commit: str) -> Entry:
    """Give a release its number as what came of `taken`; one that has a number keeps it.

    Raises:
        TakenOver: If another run has the head now. Nothing is written.
    """

    def decide(state: State) -> Draft:
        known = _still_held(state, taken)
        if digest in known.numbers:
            body = Settled(outcome="passed", release=digest, detail="it was made of the very same before")
        else:
            body = Released(release=digest, number=len(known.numbers) + 1, commit=commit)
        return Draft(body, taken.services, closes=taken.seq, reason=taken.reason)

    return _written(log.append(decide))


def settle(log: ReleaseLog, taken: Entry, outcome: Outcome, detail: str, evidence: str | None = None) -> Entry:
    """Say why nothing came of `taken`, so that nobody takes that head again.

    Raises:
        TakenOver: If another run has the head now. Nothing is written.
    """
    body = Settled(outcome=outcome, detail=detail[:2000], evidence=evidence)

    def decide(state: State) -> Draft:
        _still_held(state, taken)
        return Draft(body, taken.services, closes=taken.seq)

    return _written(log.append(decide))


def standing(known: Service, branch: Branch) -> str:
    """Why there is nothing to take, in words."""
    claim = known.claims.get(branch.name)
    if claim is None:
        return f"branch {branch.name} has no commit yet"
    move = f"move {claim.move} of {branch.name} (log entry {claim.taken.seq})"
    if claim.closed is None:
        return f"{who(claim.taken)} is training on {move}"
    match claim.closed.body:
        case Released(release=digest) | Settled(release=str(digest)):
            return f"{who(claim.taken)} made {known.named(digest)} of {move}"
        case Settled() as body:
            return f"{who(claim.taken)} made nothing of {move}: {body.outcome}, {body.detail}"
        case _:
            return f"{who(claim.taken)} had {move}"


def _fate(log: ReleaseLog, claim: Claim, fate: Callable[[Run], Fate]) -> Fate:
    run, body = claim.taken.run, claim.taken.body
    assert isinstance(body, Taken)
    if run is not None and (known := fate(run)) != "unknown":
        return known
    return "ended" if is_gone(claim.taken.writer) or body.deadline <= moment(log.clock()) else "unknown"


def _given_up(service: str, claim: Claim, ended: Fate) -> Draft:
    why = "was cancelled" if ended == "cancelled" else f"was the last of {claim.tries} that ended in the midst of it"
    detail = f"{who(claim.taken)} {why}; move the branch once more to have it tried again"
    body = Settled(outcome="could not be measured", detail=detail[:2000])
    return Draft(body, (service,), closes=claim.taken.seq)


def _still_held(state: State, taken: Entry) -> Service:
    assert isinstance(taken.body, Taken)
    known = state.service(taken.service)
    claim = known.claims[taken.body.branch]
    if claim.taken.seq != taken.seq or claim.closed is not None:
        raise TakenOver(taken.service, taken.seq, who(claim.closed or claim.taken))
    return known


def _written(entry: Entry | None) -> Entry:
    assert entry is not None
    return entry
