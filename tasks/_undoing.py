"""Where a rollback goes, and whether everything that it needs is whole. Free of Prefect."""

from __future__ import annotations

from prefect_mlops.blocks import Environment, Split
from prefect_mlops.blocks.entry import Asked
from prefect_mlops.blocks.errors import Invalid, NothingBefore, ServingError
from prefect_mlops.blocks.state import Service


def destination(known: Service, to: str) -> Split:
    """What a rollback to `to` shall have answer, live arms only.

    Args:
        known: The service.
        to: `previous`, a release (`credit-v1` or the start of its digest), or a flow run by id or
            name, which means: what that run left live. While a run is changing what answers, `previous`
            is what answered before that run, or what it is rolling back to: to roll back again after a
            rollback that died goes back once, not twice.

    Raises:
        NothingBefore: If nothing answered before.
        Invalid: If there is no such release or run.
    """
    if to == "previous":
        previous = _previous(known)
        if previous is None or not previous.live:
            raise NothingBefore(known.name, _live(known))
        return Split(arms=previous.live)
    left = [
        change.split
        for change in known.changes
        if change.asked.run is not None and to in (change.asked.run.id, change.asked.run.name) and change.split.live
    ]
    if left:
        return Split(arms=left[-1].live)
    try:
        return Split.of(known.digest_of(to))
    except Invalid:
        names = ", ".join(map(known.named, known.numbers)) or "none yet"
        raise Invalid(f"rollback of {known.name}", f"goes to previous, a flow run or a release ({names})", to) from None


def _previous(known: Service) -> Split | None:
    asked = known.asked.body if known.asked else None
    if not isinstance(asked, Asked) or asked.before.live == asked.after.live:
        return known.previous
    return asked.after if asked.move == "rollback" else asked.before


def check_bytes(environment: Environment, split: Split) -> None:
    """Read every byte that the releases of `split` name.

    Raises:
        ObjectMissing, ObjectDamaged: At the first one that is not as it was recorded.
    """
    store = environment.store_block
    for digest in split.releases:
        release = store.release(digest)
        for snapshot in (release.model, release.data, release.code, release.runtime, *release.components):
            store.check(snapshot)
        for document in (release.tests, release.probes):
            store.get(document)


def kept_warm(environment: Environment, service: str, known: Service, live: Split) -> Split:
    """`live`, with what answers now kept warm beside it, as far as it is in order."""
    try:
        ready = environment.target.observe(service).ready
    except ServingError:
        ready = {}
    warm = [arm.release for arm in known.split.live if live.arm(arm.release) is None and ready.get(arm.release)]
    arms = [*live.arms, *({"release": release, "role": "warm", "percent": 0} for release in warm)]
    return Split.model_validate({"arms": arms})


def _live(known: Service) -> str:
    return ", ".join(known.named(arm.release) for arm in known.split.live) or "nothing"
