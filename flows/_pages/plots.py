"""Plots inside pages: one image that both of Prefect's UIs draw."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, UNDECIDED = "#2a7d4f", "#b3261e", "#a06a00"
"""Colours that are told apart by who cannot tell red from green, too."""

Drawing = Callable[["Axes"], None]


def side_by_side(title: str, drawings: Sequence[Drawing], *, inches: float = 4.2) -> str:
    """Plots in one image, in markdown; nothing where there is none.

    Args:
        title: What is read out in place of the image.
        drawings: Each draws into axes of its own.
        inches: Width of each.
    """
    if not drawings:
        return ""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(inches * len(drawings), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for draw, axes in zip(drawings, figure.subplots(1, len(drawings), squeeze=False)[0], strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    return f"![{title}](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})"
