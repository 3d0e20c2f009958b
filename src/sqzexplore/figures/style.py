"""How every figure looks, at a journal's column width."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Okabe and Ito's palette, told apart with any colour vision and in grey.
BLUE, ORANGE, GREY, GREEN, PURPLE = "#0072B2", "#D55E00", "#6E6E6E", "#009E73", "#CC79A7"
PANEL_WIDTH, HEIGHT = 3.5, 2.9  # inches; a journal's column is 3.5 wide

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


def panels(count: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels beside each other: no window and no pyplot, so that the caller's
    figures stay as they are."""
    figure = Figure(figsize=(PANEL_WIDTH * count, HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def own_axes(axes: Axes | None) -> Axes:
    """`axes`, or those of a new pyplot figure: what a function does that is called by itself."""
    if axes is None:
        _, axes = plt.subplots(figsize=(PANEL_WIDTH, HEIGHT), layout="constrained")
    return axes
