"""Figures that need no editing: vector PDF and PNG, column widths, colour-blind-safe.

Accuracy measured here and accuracy published for ImageNet stand in panels of their own: they are
other data and other training, and no axis is shared between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..analysis.front import pareto_front
from ..published import published
from ..results.selection import chosen_by
from ..results.tables import meeting_constraints
from ..schema import goal
from ..spec.models import FigureSpec, Spec
from .labels import caption, label_axes, point_label, scale_axis, write_labels
from .style import BLUE, GREY, ORANGE, own_axes, panels
from .writer import Figures


def tradeoff(
    frame: pd.DataFrame,
    x: str,
    y: str,
    label: str | None = None,
    axes: Axes | None = None,
    objectives: Mapping[str, str] | None = None,
) -> Axes:
    """Column `y` against column `x`: a point a trial, its 95% interval, the Pareto front.

    Args:
        frame: rows of `trials`; those without a value are left out.
        x: column of the horizontal axis; on a log axis where it spans more than a decade.
        y: column of the vertical axis.
        label: column written beside each point.
        axes: where to draw; new ones if None.
        objectives: `minimize` or `maximize` by column; of others the registry says what is better.
    """
    axes = own_axes(axes)
    rows = frame.dropna(subset=[x, y]).sort_values([x, y])
    if rows.empty:
        axes.text(0.5, 0.5, "no trial has both values yet", ha="center", transform=axes.transAxes)
        return label_axes(axes, frame, x, y)
    xs, ys = rows[x].astype(float).to_numpy(), rows[y].astype(float).to_numpy()
    goals: dict[str, list[str]] = {"maximize": [], "minimize": []}
    for column in (x, y):
        goals[direction(column, objectives)].append(chosen_by(column))
    met = meeting_constraints(rows)
    front = pareto_front(met, **goals).sort_values(x)
    label_ = "Pareto front" if len(met) == len(rows) else "Pareto front of the feasible"
    by_validation = {chosen_by(x), chosen_by(y)} != {x, y}
    axes.plot(
        front[x].astype(float),
        front[y].astype(float),
        color=ORANGE,
        linewidth=1.2,
        # What validation chose need not be a staircase on the test split.
        drawstyle="default" if by_validation else staircase(x, objectives),
        zorder=2,
        marker="o" if len(front) == 1 else None,  # which no line would show
        markersize=9,
        markerfacecolor="none",
        label=f"{label_}, chosen on validation" if by_validation else label_,
    )
    errors = _interval(rows, y, ys)
    axes.errorbar(
        xs,
        ys,
        yerr=errors,
        fmt="o",
        color=BLUE,
        ecolor=GREY,
        elinewidth=0.8,
        capsize=2,
        zorder=3,
        label="mean, 95% interval" if errors is not None else "measured",
    )
    scale_axis(axes, xs)
    label_axes(axes, frame, x, y)
    if label and label in rows:
        texts = [point_label(label, value) for value in rows[label]]
        write_labels(axes, xs, ys, texts, errors)
    axes.legend(loc="best")
    return axes


def direction(column: str, objectives: Mapping[str, str] | None = None) -> str:
    """Whether `minimize` or `maximize` a column on an axis: as the objectives say, else as the
    registry does, and the least where neither speaks of it."""
    return (objectives or {}).get(column) or goal(column) or "minimize"


def staircase(x: str, objectives: Mapping[str, str] | None = None) -> str:
    """How the line through a front is drawn, so that it ends what the front dominates: a point
    holds for all that is worse in `x`."""
    return "steps-pre" if direction(x, objectives) == "maximize" else "steps-post"


def paper_panel(reference: str, axes: Axes | None = None) -> Axes:
    """The paper's published ImageNet points of one figure or table, top-5 against size.

    Args:
        reference: "figure 3a", "figure 3b", "table 2" or "table 3".
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    rows = published(reference).dropna(subset=["size_mb", "top5"]).sort_values("size_mb")
    xs, ys = rows["size_mb"].to_numpy(), rows["top5"].to_numpy()
    axes.plot(xs, ys, "s", color=GREY, markerfacecolor="white", label="published")
    scale_axis(axes, xs)
    axes.set_xlabel("published size (MB)")
    axes.set_ylabel("ImageNet top-5 accuracy (%)")
    axes.set_title(f"The paper's {reference} (arXiv:1602.07360)", fontsize=8)
    write_labels(axes, xs, ys, list(rows["label"]))
    return axes


def draw(spec: Spec, trials: pd.DataFrame, figure: FigureSpec) -> Figure:
    """One figure of a spec: the trade-off, and beside it the paper's points where asked for."""
    drawn, axes = panels(2 if figure.reference else 1)
    varied = spec.design_space.axis_names
    label = figure.label or (varied[0] if len(varied) == 1 and len(trials) <= 30 else None)
    tradeoff(trials, figure.x, figure.y, label, axes[0], spec.objectives)
    axes[0].set_title(caption(spec, trials, figure.x, figure.y), fontsize=7)
    if figure.reference:
        paper_panel(figure.reference, axes[1])
    return drawn


def tradeoff_figures(spec: Spec, trials: pd.DataFrame) -> Figures:
    """Every figure of the spec."""
    return {
        f"{figure.y}-{figure.x}": partial(draw, spec, trials, figure)
        for figure in default_figures(spec)
    }


def default_figures(spec: Spec) -> list[FigureSpec]:
    """The figures that a spec asks for, or those that suit what it measures."""
    if spec.figures is not None:
        return list(spec.figures)
    chosen = []
    if spec.measure.accuracy:
        chosen += [FigureSpec(x=x, y="top1") for x in ("train_size_mb", "train_macs")]
    if spec.measure.throughput:
        chosen.append(FigureSpec(x="macs", y="images_per_s"))
    return chosen or [FigureSpec(x="params", y="macs")]


def _interval(rows: pd.DataFrame, y: str, ys: np.ndarray) -> np.ndarray | None:
    if y != "top1" or rows["top1_ci_low"].isna().all():
        return None
    low = ys - rows["top1_ci_low"].astype(float).to_numpy()
    high = rows["top1_ci_high"].astype(float).to_numpy() - ys
    # Of a share of 1 older tables hold an end that is rounded to below it.
    return np.nan_to_num(np.maximum(np.stack([low, high]), 0.0))
