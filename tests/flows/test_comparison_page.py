"""The page of a shadow puts each figure under the release that it is of."""

from __future__ import annotations

from pathlib import Path

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.entry import Judged
from prefect_mlops.blocks.state import Service
from prefect_mlops.flows._pages import comparison_page
from prefect_mlops.tasks import Comparison

CHAMPION, CHALLENGER = (f"sha256:{letter * 64}" for letter in "bc")


def test_each_figure_stands_under_its_release(tmp_path: Path) -> None:
    store = Store(url=str(tmp_path / "store"))
    comparison = Comparison(
        service="credit",
        champion=CHAMPION,
        challenger=CHALLENGER,
        since="2026-11-21T10:00:00.000000Z",
        requests=90,
        failed=10,
        rows=90,
        agreed=81,
        wanted=900,
        p95_us={"champion": 1_000, "challenger": 2_000},
        outputs=("no", "yes"),
        scores={"champion": (40, 50), "challenger": (50, 40)},
        outcome="failed",
    )
    evidence = store.put(comparison.canonical())
    judged = Judged(release=CHALLENGER, gate="shadow agreement", outcome="failed", detail="", evidence=evidence)
    known = Service("credit", numbers={CHAMPION: 1, CHALLENGER: 2})
    page = comparison_page(store, known, judged)
    assert "|  | credit-v1 | credit-v2 (shadow) |" in page
    assert "| 95 % of answers within | 1.0 ms | 2.0 ms |" in page
    assert "| errors | 0 | 10 |" in page
