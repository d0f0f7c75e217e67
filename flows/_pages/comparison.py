"""The page of a shadow: does it answer as the live release does, and where not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.entry import Judged
from prefect_mlops.blocks.state import Service
from prefect_mlops.flows._pages.markdown import plain, table
from prefect_mlops.flows._pages.plots import side_by_side
from prefect_mlops.tasks import Comparison
from prefect_mlops.tasks._agreement import wilson
from prefect_mlops.tasks._plots import BAD, GOOD, UNDECIDED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_SLICES = 10
"""How many slices a page shows, those of the least agreement first; the evidence has all."""

ROLES = ("champion", "challenger")

_HEADLINES = {
    "passed": "agrees with",
    "failed": "does not answer as",
    "inconclusive": "may or may not agree with",
    "could not be measured": "could not be compared with",
}


def comparison_page(store: Store, known: Service, judged: Judged) -> str:
    """What a person wants to know of a shadow before it is promoted, in markdown, with its plots in it.

    Args:
        store: Holds the evidence.
        known: What the log says of the service.
        judged: What `compare_predictions` returned.
    """
    found = Comparison.model_validate_json(store.get(judged.evidence or ""))
    challenger, champion = known.named(found.challenger), known.named(found.champion)
    parts = [f"# {challenger} {_HEADLINES[judged.outcome]} {champion}", f"{plain(judged.detail)}."]
    if found.rows:
        parts += [
            side_by_side("how the answers compare", [partial(_draw_scores, found), partial(_draw_slices, found)]),
            "## Side by side",
            _sides(found, champion, challenger),
            "## Where they differ most",
            _slices(found),
        ]
    return "\n\n".join([*parts, f"Evidence: `{judged.evidence}`"])


def _sides(found: Comparison, champion: str, challenger: str) -> str:
    rows = [
        ("requests answered", f"{found.requests + found.failed:,}", f"{found.requests:,}"),
        ("errors", "0", f"{found.failed:,}"),
        *([("95 % of answers within", *(_milliseconds(found.p95_us[role]) for role in ROLES))] if found.p95_us else []),
    ]
    return table(("", champion, f"{challenger} (shadow)"), rows)


def _milliseconds(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f} ms"


def _slices(found: Comparison) -> str:
    rows = [
        (plain(one.column), plain(one.value), f"{one.rows:,}", f"{100 * one.agreed / one.rows:.1f} %")
        for one in found.slices[:SHOWN_SLICES]
    ]
    return table(("column", "value", "answers", "agree"), rows) if rows else "No column has few enough values."


def _draw_scores(found: Comparison, axes: Axes) -> None:
    for role, colour in zip(ROLES, (UNDECIDED, GOOD), strict=True):
        counts = found.scores[role]
        edges = [bin_ / len(counts) for bin_ in range(len(counts) + 1)]
        axes.stairs(counts, edges, label=role, color=colour, linewidth=1.6)
    axes.legend(frameon=False)
    axes.set_xlabel(f"score of {found.outputs[-1]}" if len(found.outputs) > 1 else "answer, from least to greatest")
    axes.set_ylabel("answers")
    axes.set_title("What was answered")


def _draw_slices(found: Comparison, axes: Axes) -> None:
    """The agreement of the slices that agree least, each with its 95 % interval."""
    shown = found.slices[:SHOWN_SLICES][::-1]
    for place, one in enumerate(shown):
        share = 100 * one.agreed / one.rows
        low, high = (100 * end for end in wilson(one.agreed, one.rows))
        colour = GOOD if low >= found.wanted / 10 else BAD if high < found.wanted / 10 else UNDECIDED
        axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(share, place, "o", color=colour)
    axes.axvline(found.wanted / 10, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(shown)), [f"{one.column}: {one.value}"[:32] for one in shown])
    axes.set_xlabel("% of answers that agree; dotted: wanted")
    axes.set_title("By slice")
