"""The page of a model's tests: what each one found, beside what is live, and how it does on new rows."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_mlops.blocks import Store
from prefect_mlops.flows._pages.markdown import plain, section, table
from prefect_mlops.flows._pages.plots import side_by_side
from prefect_mlops.tasks import Tested, Verdict
from prefect_mlops.tasks._plots import BAD, GOOD, UNDECIDED, Drawing, drawings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL = 76
"""Characters of a finding; one of the two user interfaces breaks no lines in a table, and cuts off what is too wide."""

_COLOURS = {"passed": GOOD, "failed": BAD}


def verdicts_page(store: Store, tested: Tested, *, brief: bool = False) -> str:
    """The page of the tests of one candidate, in markdown, with its plots in it.

    Args:
        store: Holds the evidence.
        tested: What `test_model` returned.
        brief: Whether to leave out plots, and what has passed.
    """
    evidence = json.loads(store.get(tested.candidate.tests))
    verdicts = sorted(tested.verdicts, key=lambda verdict: verdict.outcome == "passed")
    rows = [(plain(verdict.test), _outcome(verdict), plain(_found(verdict), CELL)) for verdict in verdicts]
    stops = [f"- {plain(verdict.test)} {_outcome(verdict)}: {plain(_found(verdict))}" for verdict in tested.not_passed]
    figures = [(plain(name), f"{value:.4f}") for name, value in tested.candidate.metrics.items()]
    held = evidence["holdout"]
    parts = [
        f"# {_headline(tested)}",
        *section("What stops it", "\n".join(stops)),
        *([] if brief else section("What was tested", table(("test", "outcome", "what was found"), rows))),
        f"## On {held['rows']:,} rows that it never saw",
        table(("figure", "value"), figures),
        "" if brief else _picture(evidence),
        f"Evidence: `{tested.candidate.tests}`",
        f"Model: `{tested.candidate.model}`",
    ]
    return "\n\n".join(filter(None, parts))


def _headline(tested: Tested) -> str:
    count, service = len(tested.verdicts), tested.candidate.service
    if stopped := len(tested.not_passed):
        return f"{service} is stopped by {stopped} of its {count} model tests"
    return f"{service} passed all of its {count} model tests"


def _outcome(verdict: Verdict) -> str:
    return verdict.outcome if verdict.outcome == "passed" else f"**{verdict.outcome}**"


def _found(verdict: Verdict) -> str:
    """The finding, without the name of the test, where it begins with that."""
    return verdict.detail.removeprefix(verdict.test).strip()


def _picture(evidence: dict[str, Any]) -> str:
    """All plots that the evidence has points for, side by side, as one image."""
    compared = [verdict for verdict in evidence["verdicts"] if verdict["difference"]]
    plots: list[Drawing] = [partial(_draw_differences, compared)] if compared else []
    return side_by_side("how it compares", [*plots, *drawings(evidence["curves"]).values()])


def _draw_differences(compared: list[dict[str, Any]], ax: Axes) -> None:
    """The confidence interval of each difference, and how much worse it may be."""
    for place, verdict in enumerate(compared):
        between, margin = verdict["difference"], verdict["threshold"]["margin"]
        colour = _COLOURS.get(verdict["outcome"], UNDECIDED)
        ax.plot([between["low"], between["high"]], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        ax.plot(between["estimate"], place, "o", color=colour)
        ax.plot([-margin, -margin], [place - 0.2, place + 0.2], color="black", linewidth=1)
        ax.annotate(verdict["test"], (between["estimate"], place + 0.2), ha="center", va="bottom")
    ax.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    ax.set_yticks([])
    ax.margins(x=0.15)
    ax.locator_params(axis="x", nbins=5)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-0.6, len(compared) - 0.4)
    ax.set_xlabel("how much better, 95 % interval; bar: worst allowed")
    ax.set_title("Beside other models")
