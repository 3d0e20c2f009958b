"""The picture of replayed searches: regret against what was spent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from ..analysis.searches import By, reached, regret
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, own_axes

#: A sampler looks the same in every picture, whichever stand beside it.
_LINES: dict[str, tuple[str, Any]] = {
    "random": (GREY, ":"),
    "qmc": (PURPLE, (0, (5, 1))),
    "tpe": (BLUE, "-"),
    "gp": (ORANGE, "--"),
    "nsga2": (GREEN, "-."),
    "nsga3": (GREEN, (0, (1, 1))),
}
#: Places along an axis of time.
_PLACES = 200


def regret_curves(searches: pd.DataFrame, by: By = "training", axes: Axes | None = None) -> Axes:
    """The mean regret of each sampler with its 95% band over repetitions (`analysis.regret`),
    against trainings or simulated time, as far as every search has one.

    Args:
        searches: as `simulate` gives them.
        by: training, or spent_s.
        axes: where to draw; new ones if None.

    Raises:
        UserError: as `analysis.regret` does.
    """
    first, last = reached(searches, by)
    places = np.arange(first, last + 1) if by == "training" else np.linspace(first, last, _PLACES)
    rows = regret(searches, places, by)
    rows["place"] = rows[by] / (1 if by == "training" else 3600)
    axes = own_axes(axes)
    for name, own in rows.groupby("sampler", sort=False):
        colour, dashes = _LINES[str(name)]
        axes.fill_between(
            own["place"],
            own["regret_low"],
            own["regret_high"],
            step="post",
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
        axes.step(
            own["place"],
            own["regret"],
            where="post",
            color=colour,
            linestyle=dashes,
            label=f"{name}, n = {own['repetitions'].iloc[0]}",
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=by == "training"))
    axes.set_xlabel("trainings" if by == "training" else "simulated time (h)")
    # What a search starts from and where samplers still differ lie a factor of a hundred apart.
    axes.set_yscale("symlog", linthresh=1)
    axes.set_yticks([0, 0.5, 1, 2, 5, 10, 20], minor=False)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("regret in validation top-1 (points);\nbelow 1 linear, above logarithmic")
    axes.set_ylim(bottom=0)
    axes.legend(title="mean, 95% band")
    return axes
