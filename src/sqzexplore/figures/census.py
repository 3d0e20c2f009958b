"""The pictures of a census: the density of the whole space, and what late downsampling costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..census.accumulators import CELLS_PER_DECADE
from ..census.query import Census
from ..network.architecture import Architecture
from ..network.cost import cost
from ..network.presets import PRESETS
from ..published import published
from .labels import axis_label
from .style import BLUE, GREEN, GREY, HEIGHT, ORANGE, PURPLE, own_axes, panels
from .writer import Figures

_MOST_CELLS = 110  # along an axis of the density: finer ones cannot be told apart in print


def density(census: Census, axes: Axes | None = None) -> Axes:
    """How many architectures have these params and MACs: the whole space, its Pareto front, the
    presets, and the architectures of the paper's figures 3a, 3b and table 3 as counted here.

    Args:
        census: what `take_census` gives.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    (counts,), params, macs = _cropped(census.density)
    mesh = axes.pcolormesh(params, macs, counts.T, norm=LogNorm(), cmap="Blues", rasterized=True)
    axes.figure.colorbar(mesh, ax=axes, label=f"{census.query.counts} a cell", pad=0.02)
    _front(census, axes)
    data = {name: getattr(census.space.base, name) for name in ("in_channels", "num_classes")}
    papers = [a.replace(**data) for a in _papers()]
    _mark(axes, papers, census.input_size, "s", "the paper's figures 3a, 3b and table 3, our count")
    named = {name: a for name, a in PRESETS.items() if a == a.replace(**data)}
    if named:
        _mark(axes, list(named.values()), census.input_size, "*", ", ".join(named))
    return _labelled(census, axes)


def predicted_density(census: Census, axes: Axes | None = None) -> Axes:
    """What the first prediction of the census says of the architectures with these params and MACs,
    in the mean of a cell, and the front.

    Args:
        census: what `take_census` gives, with a prediction.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    assert census.predicted_density is not None
    (counts, sums), params, macs = _cropped(census.density, census.predicted_density)
    mesh = axes.pcolormesh(params, macs, (sums / counts).T, cmap="viridis", rasterized=True)
    target = census.query.predictions[0].target
    label = f"predicted {axis_label(census.top, target)}, mean of a cell"
    axes.figure.colorbar(mesh, ax=axes, label=label, pad=0.02)
    _front(census, axes)
    return _labelled(census, axes)


def _front(census: Census, axes: Axes) -> None:
    """The Pareto front, on a density."""
    axes.plot(
        census.front["params"],
        census.front["macs"],
        ".",
        color=ORANGE,
        markersize=2.5,
        label=f"Pareto front: {_goals(census)}",
    )


def _labelled(census: Census, axes: Axes) -> Axes:
    _log(axes)
    size = census.input_size
    axes.set_xlabel("parameters")
    axes.set_ylabel(f"MACs, {size}x{size}")
    axes.legend(loc="upper left", fontsize=6)
    return axes


def late_downsampling(census: Census, column: str, axes: Axes | None = None) -> Axes:
    """A cost against where the pools stand: a point a `pool_after`, the geometric mean over its
    architectures, and, of up to 40, a bar from the least to the greatest.

    Args:
        census: what `take_census` gives.
        column: macs or activations.
        axes: where to draw; new ones if None.
    """
    axes = own_axes(axes)
    pools = census.pools.sort_values("mean_pool_layer")
    colours, markers = [BLUE, ORANGE, GREY, GREEN, PURPLE], "osD^v"
    for i, (count, rows) in enumerate(pools.groupby("pools")):
        means = rows[f"{column}_mean"]
        ends = [means - rows[f"{column}_least"], rows[f"{column}_greatest"] - means]
        spread = np.maximum(ends, 0.0)  # the mean of one architecture is itself but for rounding
        axes.errorbar(
            rows["mean_pool_layer"],
            means,
            yerr=spread if len(pools) <= 40 else None,
            fmt=markers[i % 5],
            color=colours[i % 5],
            markersize=3,
            elinewidth=0.5,
            label=f"{count} pool{'s' * (count != 1)}",
        )
    axes.set_yscale("log")
    size = census.input_size
    axes.set_xlabel("mean position of the pools (1: after conv1)")
    axes.set_ylabel(f"{'MACs' if column == 'macs' else column}, {size}x{size}, geometric mean")
    axes.legend(loc="upper left")
    return axes


def census_figures(census: Census, name: str) -> Figures:
    """Every picture of a census; none of no rows."""
    title = f"{name}: {census.kept:,} {census.query.counts}, exact costs"

    def draw_density(draw: Callable[[Census, Axes], Axes]) -> Figure:
        figure, (axes,) = panels()
        figure.set_size_inches(1.4 * figure.get_figwidth(), 1.2 * HEIGHT)
        draw(census, axes)
        axes.set_title(title, fontsize=7)
        return figure

    def draw_late_downsampling() -> Figure:
        figure, (left, right) = panels(2)
        late_downsampling(census, "macs", axes=left)
        late_downsampling(census, "activations", axes=right)
        figure.suptitle(title, fontsize=7)
        return figure

    if not census.kept:
        return {}
    drawn: dict[str, Callable[[], Figure]] = {"density": partial(draw_density, density)}
    if census.predicted_density is not None:
        drawn["density_predicted"] = partial(draw_density, predicted_density)
    return drawn | {"late_downsampling": draw_late_downsampling}


def _goals(census: Census) -> str:
    query = census.query
    parts = [f"least {name}" for name in query.minimize]
    return ", ".join(parts + [f"most {name}" for name in query.maximize])


def _cropped(
    cells: np.ndarray, *more: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The occupied part of the density, and of sums in the same cells, joined to fewer cells, and
    their edges; empty cells are NaN."""
    layers, edges = [cells, *more], []
    for axis in (0, 1):
        used = np.flatnonzero(cells.any(axis=1 - axis))
        low, high = (used[0], used[-1] + 1) if len(used) else (0, 1)
        step = -(-(high - low) // _MOST_CELLS)
        high = low + step * -(-(high - low) // step)
        layers = [_joined(layer, axis, low, high, step) for layer in layers]
        edges.append(10 ** (np.arange(low, high + 1, step) / CELLS_PER_DECADE))
    empty = layers[0] == 0
    return [np.where(empty, np.nan, layer) for layer in layers], edges[0], edges[1]


def _joined(cells: np.ndarray, axis: int, low: int, high: int, step: int) -> np.ndarray:
    """The cells from `low` to `high` of an axis, each `step` of them summed."""
    cells = cells[low:high] if axis == 0 else cells[:, low:high]
    if short := (high - low) - cells.shape[axis]:
        cells = np.pad(cells, [(0, short * (i == axis)) for i in (0, 1)])
    return np.add.reduceat(cells, np.arange(0, cells.shape[axis], step), axis=axis)


def _papers() -> list[Architecture]:
    """The architectures that the paper gives numbers for."""
    rows = published().query("source == 'arXiv:1602.07360' and squeeze_ratio.notna()")
    fields = rows[["squeeze_ratio", "fraction_3x3", "bypass"]].drop_duplicates()
    return [Architecture.model_validate(row) for row in fields.to_dict("records")]


def _mark(
    axes: Axes, architectures: list[Architecture], size: int, marker: str, label: str
) -> None:
    costs = [cost(a, size) for a in architectures]
    axes.plot(
        [c.params for c in costs],
        [c.macs for c in costs],
        marker,
        color="black",
        markerfacecolor="white",
        markersize=8 if marker == "*" else 4,
        label=label,
    )


def _log(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10))
        axis.set_minor_formatter(NullFormatter())
