"""The picture of an audit: intervals against what was measured, coverage by region, learning."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from ..predict.trained import level_text
from ..predict.verdict import against_baselines, coverage
from .labels import axis_label
from .style import BLUE, GREY, ORANGE, own_axes, panels
from .writer import Figures


def intervals(rows: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Held-out networks: what was measured against what was predicted, with the intervals.

    Args:
        rows: the table `audit` of one target.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    rows = rows[rows["measured"].notna()]
    said, measured, low, high = (
        rows[name].to_numpy(dtype=float) for name in ("predicted", "one_training", "low", "high")
    )
    held = (low <= measured) & (measured <= high)
    for mask, colour, label in ((held, BLUE, "held"), (~held, ORANGE, "missed")):
        axes.errorbar(
            said[mask],
            measured[mask],
            # The interval is the prediction's: it stands across, about the predicted value.
            xerr=[said[mask] - low[mask], high[mask] - said[mask]],
            fmt="o",
            color=colour,
            markersize=2.5,
            elinewidth=0.4,
            label=f"{label}: {mask.sum()}",
        )
    ends = [min(said.min(), measured.min()), max(said.max(), measured.max())]
    axes.plot(ends, ends, color=GREY, linewidth=0.8, zorder=1)
    name = axis_label(rows, str(rows["target"].iloc[0]))
    axes.set_xlabel(f"predicted, {level_text(rows['level'].iloc[0])} interval")
    axes.set_ylabel(name)
    axes.legend(loc="upper left")
    return axes


def coverage_by_region(rows: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """The share of held-out networks in their intervals, in each region, with its 95% interval.

    Args:
        rows: the table `audit` of one target.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    found = coverage(rows).iloc[::-1]
    places = np.arange(len(found))
    share = found["coverage"].to_numpy()
    ends = [share - found["coverage_low"], found["coverage_high"] - share]
    axes.errorbar(share, places, xerr=ends, fmt="o", color=BLUE, elinewidth=1)
    axes.axvline(float(rows["level"].iloc[0]), color=ORANGE, linestyle="--", linewidth=1)
    labels = [
        f"{region.split(' (')[0]}\nn = {n}"
        for region, n in zip(found["region"], found["networks"], strict=True)
    ]
    axes.set_yticks(places, labels)
    axes.margins(y=0.2)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("held by the intervals, 95% interval")
    return axes


def learning_curve(rows: pd.DataFrame, curve: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """The mean error in held-out networks against how many networks were fitted, beside what the
    best of the simpler predictions leaves with all of them.

    Args:
        rows: the table `audit` of one target.
        curve: the table `audit_curve` of the same.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    table = against_baselines(rows)
    fitted = round(0.9 * int(rows["measured"].notna().sum()))
    last = table.iloc[0]
    means = curve.groupby("networks")["error"].mean().astype(float)
    means = pd.concat([means, pd.Series({fitted: float(last["error"])})])
    axes.plot(curve["networks"], curve["error"], ".", color=BLUE, alpha=0.4)
    axes.plot(means.index, means, "o-", color=BLUE, label="prediction")
    axes.errorbar(
        [fitted],
        [last["error"]],
        yerr=[[last["error"] - last["error_low"]], [last["error_high"] - last["error"]]],
        color=BLUE,
    )
    best = table.iloc[1:].sort_values("error").iloc[0]
    axes.axhline(best["error"], color=GREY, linestyle="--", linewidth=1, label=best["predictor"])
    axes.set_xscale("log")
    axes.set_xticks([*means.index], labels=[str(n) for n in means.index])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("networks fitted to")
    axes.set_ylabel("mean error in the others")
    axes.legend()
    return axes


def audit_figures(rows: pd.DataFrame, curve: pd.DataFrame) -> Figures:
    """A picture a target.

    Args:
        rows: the table `audit`.
        curve: the table `audit_curve`.
    """

    def picture(target: str) -> Figure:
        figure, (left, middle, right) = panels(3)
        own = rows[rows["target"] == target]
        intervals(own, left)
        coverage_by_region(own, middle)
        learning_curve(own, curve[curve["target"] == target], right)
        return figure

    targets = sorted(rows["target"].unique())
    return {f"audit_{target}": partial(picture, target) for target in targets}
