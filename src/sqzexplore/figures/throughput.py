"""The pictures of throughput: how well MACs predict it, how it grows, and how near it is to the
machine's limit. All are drawn from the long table, so that they show every batch and mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from ..analysis.ranking import distinct, rank_correlation
from ..results.shown import threads_text
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, own_axes, panels
from .writer import Figures

#: What tells two series apart; what all rows share is said once, in the title.
_SETTINGS = (
    *("device_name", "runtime", "threads", "input_size", "dtype", "memory_format", "form", "mode"),
)
_COLOURS = (BLUE, ORANGE, GREEN, GREY, PURPLE, "black")
_MARKERS, _DASHES = "os^Dvp", ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))
_MOST_SERIES = len(_COLOURS)
#: From the axes to the legend, past the numbers and the label of x, points.
_LEGEND_BELOW = 26


def speed_against_macs(rows: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Images a second against MACs at the largest batch, with Spearman's rank correlation over the
    distinct networks and its 95% bootstrap interval; MACs that predict speed would give -1.

    Args:
        rows: of `throughput`; those without a value are left out.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    rows = _measured(rows)
    rows = rows[rows["batch"] == rows["batch"].max()]
    for number, (name, group) in enumerate(_series(rows)):
        macs, speeds = _floats(group, "macs"), _floats(group, "images_per_s")
        networks = distinct(pd.DataFrame({"macs": macs, "speeds": speeds}), group)
        found = rank_correlation(networks["macs"].to_numpy(), networks["speeds"].to_numpy())
        text = "" if found is None else f"rank corr. {found}"
        axes.plot(
            *(macs, speeds, _MARKERS[number]),
            color=_COLOURS[number],
            markerfacecolor="white" if number % 2 else None,
            label=": ".join(part for part in (name, text) if part),
        )
    _log(axes, "MACs of an image", f"images/s at batch {rows['batch'].max()}")
    return _finish(axes, rows)


def latency_against_batch(rows: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Median latency of a pass against the batch: a line an architecture, its 95% interval.

    Args:
        rows: of `throughput`; those without a value are left out.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    rows = _measured(rows)
    for number, (name, group) in enumerate(_series(rows)):
        for line, (_, one) in enumerate(group.groupby("arch_id", sort=False)):
            one = one.sort_values("batch")
            latency = _floats(one, "latency_ms_p50")
            ends = np.stack([_floats(one, f"latency_ms_p50_{end}") for end in ("low", "high")])
            axes.errorbar(
                _floats(one, "batch"),
                latency,
                yerr=np.nan_to_num(np.abs(ends - latency)),
                color=_COLOURS[number],
                linestyle=_DASHES[number],
                marker=_MARKERS[number],
                markerfacecolor="white" if number % 2 else None,
                markersize=3.5,
                linewidth=0.9,
                capsize=1.5,
                label=(name or "one architecture") if line == 0 else None,
            )
    _log(axes, "batch (images)", "median latency (ms)")
    batches = sorted(set(_floats(rows, "batch")))
    if len(batches) <= 10:
        axes.set_xticks(batches, [f"{batch:g}" for batch in batches])
        axes.xaxis.set_minor_formatter(NullFormatter())
    return _finish(axes, rows)


def roofline_picture(rows: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Achieved MACs a second against MACs a byte, below the roof measured on the same device.

    Args:
        rows: of `throughput`; those without a value are left out.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    rows = _measured(rows).dropna(subset=["matrix_macs_per_s", "bytes"])
    roofs = rows.drop_duplicates(["device_name", "threads", "dtype"])
    intensity = _floats(rows, "macs") * _floats(rows, "batch") / _floats(rows, "bytes")
    for number, (name, group) in enumerate(_series(rows)):
        work = _floats(group, "macs")
        axes.plot(
            work * _floats(group, "batch") / _floats(group, "bytes"),
            work * _floats(group, "images_per_s"),
            _MARKERS[number],
            color=_COLOURS[number],
            markerfacecolor="white" if number % 2 else None,
            label=name or "measured",
        )
    if len(rows):
        ridge = (roofs["matrix_macs_per_s"] / roofs["copy_bytes_per_s"]).min()
        ends = min(intensity.min(), float(ridge)) / 3, intensity.max() * 3
        span = np.geomspace(*ends, 500)
        for number, (_, roof) in enumerate(roofs.iterrows()):
            rate, bandwidth = float(roof["matrix_macs_per_s"]), float(roof["copy_bytes_per_s"])
            axes.plot(
                *(span, np.minimum(rate, span * bandwidth)),
                linestyle=_DASHES[number % len(_DASHES)],
                color="black",
                linewidth=1,
                label=f"roof in {roof['dtype']}",
            )
    _log(axes, "MACs a byte of least memory traffic", "MAC/s")
    return _finish(axes, rows)


def throughput_figures(rows: pd.DataFrame) -> Figures:
    """Every picture that the table has the data for."""
    measured = _measured(rows).dropna(subset=["macs"])  # an older version did not record them
    wanted: dict[str, Callable[[pd.DataFrame, Axes], Axes]] = {}
    if measured["macs"].nunique() > 1:
        wanted["throughput-macs"] = speed_against_macs
    if measured["batch"].nunique() > 1:
        wanted["latency-batch"] = latency_against_batch
    if measured["matrix_macs_per_s"].notna().any():  # it is torch's
        wanted["roofline"] = roofline_picture

    def picture(draw: Callable[[pd.DataFrame, Axes], Axes]) -> Figure:
        figure, (axes,) = panels()
        draw(measured, axes)
        return figure

    return {name: partial(picture, draw) for name, draw in wanted.items()}


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.dropna(subset=["images_per_s"])


def _series(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows by their settings, each with a name of what it does not share; at most a few."""
    differing: list[str] = []
    for name in _SETTINGS:  # not what others decide, as a runtime does of its memory format
        if len(rows.drop_duplicates([*differing, name])) > max(1, _distinct(rows, differing)):
            differing.append(name)
    if not differing:
        yield "", rows
        return
    for number, (values, group) in enumerate(rows.groupby(differing, sort=False, dropna=False)):
        if number == _MOST_SERIES:
            return
        yield ", ".join(str(value) for value in values), group


def _distinct(rows: pd.DataFrame, names: list[str]) -> int:
    """How many combinations of values some columns have."""
    return len(rows.drop_duplicates(names)) if names else 0


def _floats(rows: pd.DataFrame, column: str) -> np.ndarray:
    return rows[column].astype("Float64").to_numpy(dtype=float, na_value=np.nan)


def _log(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_formatter(NullFormatter())


def _finish(axes: Axes, rows: pd.DataFrame) -> Axes:
    """What all rows share, as the title; the series."""
    if rows.empty:
        axes.text(0.5, 0.5, "nothing was measured", ha="center", transform=axes.transAxes)
        return axes
    shared = {name: rows[name].iloc[0] for name in _SETTINGS if rows[name].nunique() == 1}
    words = {"threads": threads_text, "input_size": "{0}x{0}".format}
    text = [words.get(name, str)(value) for name, value in shared.items()]
    text = [", ".join(text[:2]), ", ".join(text[2:])] if len(text) > 3 else [", ".join(text)]
    combinations = len(rows.drop_duplicates([*_SETTINGS]))
    if combinations > _MOST_SERIES:
        text.append(f"the first {_MOST_SERIES} of {combinations} combinations")
    axes.set_title("\n".join(text), fontsize=7)
    if axes.get_legend_handles_labels()[0]:
        # Below the axes: a dot of the legend among the points would look like a measurement.
        below = ScaledTranslation(0, -_LEGEND_BELOW / 72, axes.figure.dpi_scale_trans)
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=axes.transAxes + below,
            fontsize=6,
        )
    return axes
