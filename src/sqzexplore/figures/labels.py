"""The words of a figure, and where they go."""

from __future__ import annotations

import itertools
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter

from ..network.cost import COST_COLUMNS
from ..results.completeness import planned
from ..results.shown import threads_text
from ..results.tables import TRIALS, data_name
from ..schema import MEASURED_COLUMNS, SIZELESS, measured
from ..spec.models import Spec
from .style import GREY

_SHORT = {"squeeze_ratio": "SR", "fraction_3x3": "3x3", "pool_after": "pool", "bypass": ""}


#: Keeps a label readable where it crosses a line.
_HALO = withStroke(linewidth=1.5, foreground="white")
#: Arrangements of labels that are tried until none lies on another, and the steps of each: most
#: are done within twenty, the others go round in a circle until a clock, or this, ends it.
_ATTEMPTS, _STEPS = 8, 100
#: Characters of a title that fit above a panel.
_TITLE_WIDTH = 56


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


def label_axes(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> Axes:
    """Label both axes by their columns."""
    axes.set_xlabel(axis_label(frame, x))
    axes.set_ylabel(axis_label(frame, y))
    return axes


def axis_label(frame: pd.DataFrame, column: str) -> str:
    """Name, what it is of, unit: costs say whether the trained or the deployed network's."""
    plain = column.removeprefix("train_")
    known = MEASURED_COLUMNS.get(plain)
    name = known.label if known and known.label else plain
    unit = TRIALS[column].unit if column in TRIALS else ""
    size = "train_input_size" if column != plain else "input_size"
    if known and known.measured_by in ("cost", "throughput") and size in frame and len(frame):
        pixels = frame[size].iloc[0]
        which = "trained network" if column != plain else "network"
        sized = plain in COST_COLUMNS and plain not in SIZELESS
        name += f" of the {which}, {pixels}x{pixels}" if sized else ""
        name += " of the trained network" if plain != column and not sized else ""
        name += f", {pixels}x{pixels}" if plain in ("images_per_s",) else ""
    return f"{name} ({unit})" if unit else name


def point_label(column: str, value: Any) -> str:
    """What stands beside a point."""
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
            iter_lim=_STEPS,
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
    if accuracy and any(name.endswith("top1") for name in columns):
        proxy = ", ".join(f"{name} {value}" for name, value in accuracy.proxy.items())
        parts.append(
            f"proxy accuracy: {data_name(trials, accuracy.data)}, {accuracy.budgets[-1]} epochs, "
            f"{accuracy.seeds} seed{'s' if accuracy.seeds > 1 else ''}"
            + ("\n" + fill(f"trained with {proxy}", _TITLE_WIDTH) if proxy else "")
        )
        if "still_learning" in trials and trials["still_learning"].any():
            learning = trials["still_learning"].dropna()
            parts.append(f"{int(learning.sum())} of {len(learning)} networks were still learning")
    if "throughput" in map(measured().get, columns) and len(trials):
        settings = ["throughput_device_name", "batch", "dtype", "threads"]
        known = trials.dropna(subset=["images_per_s"])
        for _, row in known[settings].drop_duplicates().iterrows():
            parts.append(
                f"{row['throughput_device_name']}, batch {row['batch']}, {row['dtype']}, "
                f"{threads_text(row['threads'])}"
            )
    return "\n".join(parts) or spec.name
