"""Pictures of compressed and quantised networks: accuracy against size, and what each lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..network.frames import architecture_name
from ..results.folder import ResultFolder
from ..results.smaller import drops_of, setting_text
from ..spec.models import Spec
from .labels import caption, scale_axis
from .style import BLUE, GREEN, GREY, HEIGHT, ORANGE, PANEL_WIDTH, PURPLE, panels
from .tradeoff import paper_panel
from .writer import Figures

_MARKS = tuple(zip((ORANGE, GREEN, PURPLE, BLUE, "black"), "sD^v<", strict=True))
#: Architectures whose losses a figure lists by name.
_MOST_LINES = 30


def sizes(trials: pd.DataFrame, drops: Mapping[str, pd.DataFrame], axes: Axes) -> Axes:
    """Test accuracy against the size of the file, a point an architecture and setting with its 95%
    interval: the float32 networks, compressed ones, quantised ones.

    Args:
        trials: rows of one sweep.
        drops: `analysis.drops` of each form.
        axes: where to draw.
    """
    plain = trials.dropna(subset=["top1"])
    groups = [("float32", plain["train_size_mb"], plain["top1"], _errors(plain, "top1"))]
    for form, rows in drops.items():
        for name, group in _by_setting(form, rows).items():
            errors = _errors(group, f"{form}_top1")
            groups.append((name, group[f"{form}_mb"], group[f"{form}_top1"], errors))
    marks = [(GREY, "o"), *_MARKS * (1 + len(groups) // len(_MARKS))]
    for (name, x, y, errors), (colour, mark) in zip(groups, marks, strict=False):
        axes.errorbar(
            x.to_numpy(dtype=float),
            y.to_numpy(dtype=float),
            yerr=errors,
            fmt=mark,
            color=colour,
            ecolor=colour,
            elinewidth=0.6,
            markersize=4,
            markerfacecolor="white" if mark in "v<" else colour,
            label=name,
        )
    scale_axis(axes, np.concatenate([group[1].to_numpy(dtype=float) for group in groups]))
    axes.set_xlabel("size of the file, trained network (MB)")
    axes.set_ylabel("top-1 accuracy (%)")
    # An interval from two seeds may be wider than the picture: the means decide what it shows.
    means = pd.concat([group[2] for group in groups]).astype(float)
    margin = 0.25 * (means.max() - means.min() or 1.0)
    axes.set_ylim(means.min() - margin, means.max() + margin)
    return axes


def losses(trials: pd.DataFrame, drops: Mapping[str, pd.DataFrame], names: list[str]) -> Figure:
    """Points of test accuracy that each architecture lost, a panel a form, a mark a setting with
    its 95% interval.

    Args:
        trials: rows of one sweep.
        drops: `analysis.drops` of each form.
        names: of what varies among the architectures.
    """
    figure, drawn = panels(len(drops))
    every = trials[trials["trial"].isin({t for rows in drops.values() for t in rows["trial"]})]
    shown = every.head(_MOST_LINES)
    figure.set_size_inches(PANEL_WIDTH * len(drops) + 1.5, max(HEIGHT, 0.26 * len(shown) + 1.2))
    places = {trial: -place for place, trial in enumerate(shown["trial"])}
    for axes, (form, rows) in zip(drawn, drops.items(), strict=True):
        groups = _by_setting(form, rows[rows["trial"].isin(places)])
        for number, ((name, group), (colour, mark)) in enumerate(
            zip(groups.items(), _MARKS * len(groups), strict=False)
        ):
            shift = 0.5 * (number + 1) / (len(groups) + 1) - 0.25
            axes.errorbar(
                group[f"{form}_drop"].to_numpy(dtype=float),
                group["trial"].map(places).to_numpy(dtype=float) - shift,
                xerr=_errors(group, f"{form}_drop"),
                fmt=mark,
                color=colour,
                markersize=4,
                elinewidth=0.7,
                label=name,
            )
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_xlabel(f"points of top-1 lost, {form}")
        axes.set_yticks([*places.values()], [""] * len(places))
        axes.set_ylim(-len(places) + 0.5, 0.5)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), borderaxespad=0.2)
    labels = [architecture_name(row, names) for _, row in shown.iterrows()]
    drawn[0].set_yticks([*places.values()], labels, fontsize=6)
    if len(every) > len(shown):
        drawn[0].set_ylabel(f"first {len(shown)} of {len(every)} architectures")
    return figure


def smaller_figures(spec: Spec, trials: pd.DataFrame, folder: Path) -> Figures:
    """Both pictures, where networks of the sweep in `folder` were compressed or quantised."""
    drops = drops_of(ResultFolder(folder))

    def draw_sizes() -> Figure:
        figure, drawn = panels(2)
        sizes(trials, drops, drawn[0])
        figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        drawn[0].set_title(caption(spec, trials, "top1"), fontsize=7)
        paper_panel("table 2", drawn[1])
        return figure

    def draw_losses() -> Figure:
        figure = losses(trials, drops, spec.design_space.axis_names)
        figure.suptitle(caption(spec, trials, "top1"), fontsize=7)
        return figure

    return {"smaller": draw_sizes, "smaller-losses": draw_losses} if drops else {}


def _by_setting(form: str, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each setting, by its name."""
    names = rows.apply(lambda row: setting_text(form, row), axis=1)
    if form == "int8":
        names = "int8, " + names
    return {str(name): rows[names == name] for name in names.unique()}


def _errors(rows: pd.DataFrame, name: str) -> np.ndarray | None:
    low, high = rows[f"{name}_ci_low"], rows[f"{name}_ci_high"]
    if low.isna().all():
        return None
    middle = rows[name]
    # Of a share of 1 older tables hold an end that is rounded to below it.
    return np.nan_to_num(np.maximum(np.stack([middle - low, high - middle]).astype(float), 0.0))
