"""Plots as images, drawn from recorded points alone: the same points give the same image. Free of Prefect."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from prefect_mlops.tasks._curves import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, UNDECIDED = "#2a7d4f", "#b3261e", "#a06a00"
"""Colours that are told apart by who cannot tell red from green, too."""

Drawing = Callable[["Axes"], None]


def image(drawings: Sequence[Drawing], *, inches: float = 4.2) -> bytes:
    """Plots side by side, as PNG.

    Args:
        drawings: Each draws into axes of its own.
        inches: Width of each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(inches * len(drawings), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for draw, axes in zip(drawings, figure.subplots(1, len(drawings), squeeze=False)[0], strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90, metadata={"Software": None})
    return file.getvalue()


def drawings(curves: Mapping[str, Points]) -> dict[str, Drawing]:
    """How each of the recorded curves is drawn, by its name."""
    known = {"roc": _draw_roc, "calibration": _draw_calibration, "residuals": _draw_residuals}
    return {name: partial(draw, curves[name]) for name, draw in known.items() if name in curves}


def _draw_roc(points: Points, ax: Axes) -> None:
    ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    ax.plot(*zip(*points, strict=True), color=GOOD)
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate")
    ax.set_title("ROC curve")


def _draw_calibration(points: Points, ax: Axes) -> None:
    ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    ax.plot(*list(zip(*points, strict=True))[:2], "o-", color=GOOD)
    ax.set_xlabel("mean score of a tenth")
    ax.set_ylabel("share that is positive")
    ax.set_title("Calibration")


def _draw_residuals(points: Points, ax: Axes) -> None:
    predicted, low, middle, high = zip(*points, strict=True)
    ax.axhline(0, color="grey", linewidth=0.8, linestyle=":")
    ax.fill_between(predicted, low, high, color=GOOD, alpha=0.2, linewidth=0)
    ax.plot(predicted, middle, "o-", color=GOOD)
    ax.set_xlabel("mean prediction of a tenth")
    ax.set_ylabel("truth minus prediction; band: 80 %")
    ax.set_title("Residuals")
