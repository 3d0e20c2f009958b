"""Figures that need no editing: vector PDF and PNG, column widths, colour-blind-safe.

Accuracy measured here and accuracy published for ImageNet stand in panels of their own: they are
other data and other training, and no axis is shared between them.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter

from .analysis import pareto_front
from .completeness import planned
from .cost import COST_COLUMNS
from .reference import published
from .results import TRIALS, data_name, meeting_constraints
from .spec import FigureSpec, Spec
from .style import BLUE, GREY, ORANGE, STYLE, own_axes, panels, save

_NAMES = {
    "top1": "top-1 accuracy",
    "params": "parameters",
    "live_params": "living parameters",
    "macs": "MACs",
    "flops": "FLOPs",
    "size_mb": "size",
    "activations": "activations",
    "peak_activation_bytes": "peak activation memory",
    "images_per_s": "throughput",
    "latency_ms_p50": "median latency",
    "latency_ms_p99": "99th percentile of latency",
}
_SHORT = {"squeeze_ratio": "SR", "fraction_3x3": "3x3", "pool_after": "pool", "bypass": ""}
_LARGER_IS_BETTER = ("top1", "images_per_s")
#: Keeps a label readable where it crosses a line.
_HALO = withStroke(linewidth=1.5, foreground="white")
#: Arrangements of labels that are tried until none lies on another.
_ATTEMPTS = 8
#: Characters of a title that fit above a panel.
_TITLE_WIDTH = 56


def tradeoff(
    frame: pd.DataFrame, x: str, y: str, label: str | None = None, axes: Axes | None = None
) -> Axes:
    """Column `y` against column `x`: a point a trial, its 95% interval, the Pareto front.

    Args:
        frame: rows of `trials`; those without a value are left out.
        x: column of the horizontal axis; on a log axis where it spans more than a decade.
        y: column of the vertical axis.
        label: column written beside each point.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    rows = frame.dropna(subset=[x, y]).sort_values([x, y])
    if rows.empty:
        axes.text(0.5, 0.5, "no trial has both values yet", ha="center", transform=axes.transAxes)
        return _label(axes, frame, x, y)
    xs, ys = rows[x].astype(float).to_numpy(), rows[y].astype(float).to_numpy()
    goals: dict[str, list[str]] = {"maximize": [], "minimize": []}
    for column in (x, y):
        goals["maximize" if column in _LARGER_IS_BETTER else "minimize"].append(column)
    met = meeting_constraints(rows)
    front = pareto_front(met, **goals).sort_values(x)
    axes.plot(
        front[x].astype(float),
        front[y].astype(float),
        color=ORANGE,
        linewidth=1.2,
        drawstyle="steps-post" if y in _LARGER_IS_BETTER else "default",
        zorder=2,
        label="Pareto front" if len(met) == len(rows) else "Pareto front of the feasible",
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
        label="mean, 95% interval over seeds" if errors is not None else "measured",
    )
    scale_axis(axes, xs)
    _label(axes, frame, x, y)
    if label and label in rows:
        texts = [_point_label(label, value) for value in rows[label]]
        write_labels(axes, xs, ys, texts, errors)
    axes.legend(loc="best")
    return axes


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
    varied = [axis.field for axis in spec.design_space.axes]
    label = figure.label or (varied[0] if len(varied) == 1 and len(trials) <= 30 else None)
    tradeoff(trials, figure.x, figure.y, label, axes[0])
    axes[0].set_title(caption(spec, trials, figure.x, figure.y), fontsize=7)
    if figure.reference:
        paper_panel(figure.reference, axes[1])
    return drawn


def write_figures(spec: Spec, trials: pd.DataFrame, folder: Path) -> list[Path]:
    """Every figure of the spec as PDF and PNG under `folder`/figures; returns the files."""
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    files = []
    for figure in default_figures(spec):
        with plt.rc_context(STYLE):
            files += save(draw(spec, trials, figure), target / f"{figure.y}-{figure.x}")
    return files


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
    return np.nan_to_num(np.stack([low, high]))


def scale_axis(axes: Axes, xs: np.ndarray) -> None:
    """Scale and number the horizontal axis for `xs`: in logarithms over more than a decade."""
    log = xs.min() > 0 and xs.max() / xs.min() > 10
    large = xs.max() >= 1e4
    formatter = EngFormatter(sep="") if large else StrMethodFormatter("{x:g}")
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        # Decades alone are too few numbers to read a narrow axis by.
        axes.xaxis.set_minor_formatter(formatter if xs.max() / xs.min() < 300 else "")
    if log or large:
        axes.xaxis.set_major_formatter(formatter)


def _label(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> Axes:
    axes.set_xlabel(axis_label(frame, x))
    axes.set_ylabel(axis_label(frame, y))
    return axes


def axis_label(frame: pd.DataFrame, column: str) -> str:
    """Name, what it is of, unit: costs say whether the trained or the deployed network's."""
    plain = column.removeprefix("train_")
    name = _NAMES.get(plain, plain)
    unit = TRIALS[column].unit if column in TRIALS else ""
    size = "train_input_size" if column != plain else "input_size"
    if plain in _NAMES and plain != "top1" and size in frame and len(frame):
        pixels = frame[size].iloc[0]
        which = "trained network" if column != plain else "network"
        sized = plain in {*COST_COLUMNS} - {"params", "size_mb"}  # depends on the image's side
        name += f" of the {which}, {pixels}x{pixels}" if sized else ""
        name += " of the trained network" if plain != column and not sized else ""
        name += f", {pixels}x{pixels}" if plain in ("images_per_s",) else ""
    return f"{name} ({unit})" if unit else name


def _point_label(column: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{_SHORT.get(column, column)} {text}".strip()


def write_labels(
    axes: Axes,
    xs: np.ndarray,
    ys: np.ndarray,
    labels: list[str],
    errors: np.ndarray | None = None,
) -> None:
    """A label beside each point, away from the points, their error bars and one another."""
    along = np.linspace(-1, 1, 15)[:, None]  # of a bar, from its lower end to its upper
    reach = np.zeros_like(along * ys)
    if errors is not None:
        reach = np.where(along < 0, along * errors[0], along * errors[1])
    points = np.broadcast_to(xs, reach.shape).ravel(), (ys + reach).ravel()
    state = np.random.get_state()
    for attempt in range(_ATTEMPTS):
        texts = [
            axes.text(x, y, text, fontsize=7, zorder=4, path_effects=[_HALO])
            for x, y, text in zip(xs, ys, labels, strict=True)
        ]
        np.random.seed(attempt)  # adjustText draws from the global state; no figure should vary
        push = 0.1 * (1 + attempt)
        lines = adjust_text(
            texts,
            *points,
            ax=axes,
            expand=(1.3, 1.6),
            force_text=(push, 2 * push),
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5},
        )[1]
        if attempt + 1 == _ATTEMPTS or not _collide(texts):
            break
        for artist in (*texts, *lines):
            artist.remove()
    np.random.set_state(state)


def _collide(texts: list[Text]) -> bool:
    """Whether two labels lie on each other."""
    boxes = [text.get_window_extent() for text in texts]
    return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def caption(spec: Spec, trials: pd.DataFrame, *columns: str) -> str:
    """How the numbers in `columns` were obtained, in a line or two."""
    parts = []
    total = planned(spec)
    if total is not None and len(trials) < total:
        parts.append(f"{len(trials):,} of {total:,} trials are in")
    accuracy = spec.measure.accuracy
    if accuracy and "top1" in columns:
        proxy = ", ".join(f"{name} {value}" for name, value in accuracy.proxy.items())
        parts.append(
            f"proxy accuracy: {data_name(trials, accuracy.data)}, {accuracy.budgets[-1]} epochs, "
            f"{accuracy.seeds} seed{'s' if accuracy.seeds > 1 else ''}"
            + ("\n" + fill(f"trained with {proxy}", _TITLE_WIDTH) if proxy else "")
        )
        if "still_learning" in trials and trials["still_learning"].any():
            learning = trials["still_learning"].dropna()
            parts.append(f"{int(learning.sum())} of {len(learning)} networks were still learning")
    if "images_per_s" in columns and len(trials):
        for _, row in (
            trials[["device_name", "batch", "dtype", "threads"]].drop_duplicates().iterrows()
        ):
            parts.append(
                f"{row['device_name']}, batch {row['batch']}, {row['dtype']}, "
                f"{row['threads']} threads"
            )
    return "\n".join(parts) or spec.name
