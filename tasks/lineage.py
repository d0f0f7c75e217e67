"""From a release back to where its data came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prefect_mlops.blocks import Entry, Store
from prefect_mlops.blocks.commit import Commit
from prefect_mlops.blocks.entry import Released
from prefect_mlops.tasks.validation import EXTRACTOR


@dataclass(frozen=True)
class Lineage:
    """How a release came to be, as far as the log and the commits say.

    Attributes:
        released: The entry that gave it its number, written by the run that trained it; None if there is none.
        commit: The id of the commit that it was trained on; None where the log does not say.
        data: That commit.
        raw_commit: The one before its bad rows were set aside; None where none were.
        raw: That commit.
    """

    released: Entry | None = None
    commit: str | None = None
    data: Commit | None = None
    raw_commit: str | None = None
    raw: Commit | None = None


def lineage_of(store: Store, entries: Iterable[Entry], release: str) -> Lineage:
    """What led to a release.

    Args:
        store: Holds the commits.
        entries: The log.
        release: Digest of the release.

    Raises:
        ObjectMissing, ObjectDamaged: If a commit is not whole.
    """
    released = next((one for one in entries if isinstance(one.body, Released) and one.body.release == release), None)
    if released is None or not isinstance(released.body, Released) or released.body.commit is None:
        return Lineage(released)
    data = store.commit_at(released.body.commit)
    if data.extractor is None or data.extractor.name != EXTRACTOR:
        return Lineage(released, released.body.commit, data)
    return Lineage(released, released.body.commit, data, data.parents[0], store.commit_at(data.parents[0]))
