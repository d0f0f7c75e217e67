"""Plots inside pages: one image that both of Prefect's UIs draw."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from prefect_mlops.tasks._plots import Drawing, image


def side_by_side(title: str, drawings: Sequence[Drawing], *, inches: float = 4.2) -> str:
    """Plots in one image, in markdown; nothing where there is none.

    Args:
        title: What is read out in place of the image.
        drawings: Each draws into axes of its own.
        inches: Width of each.
    """
    if not drawings:
        return ""
    return f"![{title}](data:image/png;base64,{base64.b64encode(image(drawings, inches=inches)).decode()})"
