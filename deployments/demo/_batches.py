"""The data files of the story: what CreditCo has, and what a vendor sells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.errors import DataRefused, Invalid
from prefect_mlops.flows.creditco import RECIPE, TARGET, census, misspelt, read_census, vendor_batch
from prefect_mlops.tasks import snapshot_data, validate_data
from prefect_mlops.tasks._scratch import scratch_folder

if TYPE_CHECKING:
    import pandas as pd

ROWS = 12_000
FIRST_SHARE = 0.6
"""Share of the rows that there are when the story begins."""


@dataclass(frozen=True)
class Batches:
    """Four data files, in the order in which they arrive."""

    applications: Path
    misspelt: Path
    vendor: Path
    to_date: Path

    @classmethod
    def write(cls, frame: pd.DataFrame, folder: Path) -> Batches:
        """Write them into `folder`, where they stay to be looked at.

        Args:
            frame: All applications to date, with the label; the first batch is a part of them.
            folder: Made where it is not there.
        """
        first = frame.sample(frac=FIRST_SHARE, random_state=0).sort_index()
        vendor = vendor_batch(first, seed=2)
        frames = {"applications": first, "misspelt": misspelt(vendor, seed=4), "vendor": vendor, "to_date": frame}
        names = dict(zip(frames, ("applications", "vendor", "vendor-mended", "applications-to-date"), strict=True))
        folder.mkdir(exist_ok=True)
        paths = {which: folder / f"{name}.csv" for which, name in names.items()}
        for which, rows in frames.items():
            rows.to_csv(paths[which], index=False)
        return cls(**paths)


def all_applications(path: Path | None) -> pd.DataFrame:
    """A census file that was named, or made-up data. Nothing is changed.

    Raises:
        Invalid: If the file is no census file, or does not meet what the recipe expects.
    """
    if path is None:
        return census(ROWS, seed=1)
    frame = read_census(path)
    _expect(frame, path.name)
    return frame


def _expect(frame: pd.DataFrame, name: str) -> None:
    """Hold a file against the recipe's expectations in a store that is thrown away."""
    with scratch_folder() as scratch:
        store, copy = Store(url=str(scratch / "store")), scratch / name
        frame.to_csv(copy, index=False)
        try:
            validate_data.fn(store, snapshot_data.fn(store, copy).id, RECIPE.expectations, missing=RECIPE.missing)
        except DataRefused as refused:
            advice = f"see {RECIPE.expectations.replace(':', '/')}"
            raise Invalid(name, "is as the recipe expects", "; ".join(refused.reasons), advice) from None


def questions(frame: pd.DataFrame) -> pd.DataFrame:
    """Applicants as clients ask about them: no label, nothing where a value is missing."""
    return frame.drop(columns=[TARGET]).replace(dict.fromkeys(RECIPE.missing))
