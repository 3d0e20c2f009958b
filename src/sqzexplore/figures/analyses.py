"""The pictures of the analyses: how sure the front is, how the search went, populations, effects.

Each function takes tables, draws one picture and returns its Axes; `analysis_figures` has all that
a sweep may have the data for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .. import analysis
from ..analysis.front import SEEDED
from ..errors import UserError
from ..results.selection import chosen_by, cost_beside, goals
from ..results.tables import meeting_constraints
from ..spec.models import AT_RANDOM, Spec
from .labels import axis_label, caption, scale_axis, write_labels
from .style import BLUE, GREEN, GREY, ORANGE, own_axes, panels
from .tradeoff import default_figures, direction, staircase
from .writer import Figures

_LINES = tuple(zip((BLUE, ORANGE, GREEN, GREY), ("-", "--", "-.", ":"), strict=True))
#: Points that are labelled with their probability; more cannot be told apart.
_MOST_LABELS = 12
#: Below this many architectures the band around a distribution says nothing.
_LEAST_POPULATION = 10
#: Pictures that speak of all architectures by those that were tried.
_OF_A_POPULATION = ("population", "importance", "effects")
#: Panels that one figure of effects can hold beside each other.
_MOST_AXES = 4
#: Forests of a bootstrap of importances, some tenths of a second each.
_RESAMPLES = 20


def front(
    trials: pd.DataFrame,
    seeds: pd.DataFrame,
    x: str,
    y: str,
    axes: Axes | None = None,
    images: pd.DataFrame | None = None,
    objectives: Mapping[str, str] | None = None,
) -> Axes:
    """Column `y`, more of which is better, against `x`: how surely each architecture is on the
    Pareto front (`analysis.front_probability`), by shade and in numbers.

    Args:
        trials: one row an architecture.
        seeds: one row a training of these.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        axes: where to draw; new ones if None.
        images: which images the trainings had right; None: seeds alone make the probability.
        objectives: `minimize` or `maximize` by column, as `tradeoff` takes them: of `x`.

    Raises:
        UserError: as `front_probability` does.
    """
    least, most = ([], [x, y]) if direction(x, objectives) == "maximize" else ([x], [y])
    rows = analysis.front_probability(trials, seeds, least, most, images)
    axes = own_axes(axes)
    xs, ys = rows[x].to_numpy(dtype=float), rows[y].to_numpy(dtype=float)
    chance = rows["front_probability"].to_numpy(dtype=float)
    measured = rows[rows["on_front"]].sort_values(x)
    axes.plot(
        measured[x].astype(float),
        measured[y].astype(float),
        color=ORANGE,
        linewidth=1.2,
        drawstyle=staircase(x, objectives),
        zorder=2,
        label="front of the means",
    )
    points = axes.scatter(
        xs, ys, c=chance, cmap="Blues", norm=Normalize(0, 1), edgecolors="black", s=28, zorder=3
    )
    bar = axes.figure.colorbar(points, ax=axes, label="probability to be on the front", pad=0.02)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    scale_axis(axes, xs)
    axes.set_xlabel(axis_label(rows, x))
    axes.set_ylabel(axis_label(rows, y))
    if len(rows) <= _MOST_LABELS:
        write_labels(axes, xs, ys, [f"{share:.0%}" for share in chance])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)  # clear of all labels
    return axes


def hypervolume(
    trials: pd.DataFrame, minimize: Iterable[str], maximize: Iterable[str], axes: Axes | None = None
) -> Axes:
    """The share of the final hypervolume that the first k trials reached, against k.

    Args:
        trials: one row a trial, of one sweep.
        minimize: columns of which less is better.
        maximize: columns of which more is better.
        axes: where to draw; new ones if None.

    Raises:
        UserError: as `analysis.hypervolume_curve` does.
    """
    curve = analysis.hypervolume_curve(trials, [*minimize], [*maximize])
    axes = own_axes(axes)
    axes.step(np.arange(1, len(curve) + 1), curve["share"], where="post", color=BLUE)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trials")
    axes.set_ylabel("hypervolume, share of the last")
    axes.set_ylim(bottom=0)
    point = ", ".join(f"{k} {v:,.6g}" for k, v in curve.attrs["reference"].items())
    axes.set_title(f"measured from {point}", fontsize=7)
    return axes


def populations(
    groups: Mapping[str, Iterable[float]], label: str, axes: Axes | None = None
) -> Axes:
    """The distribution of a number over each of up to four populations, with its 95% band; of two,
    how often one drawn from the first is the greater, with Mann and Whitney's p.

    Args:
        groups: the numbers of each population, by its name.
        label: of the horizontal axis.
        axes: where to draw; new ones if None.

    Raises:
        UserError: a population of fewer than 2 numbers, or more than 4 of them.
    """
    if not 1 <= len(groups) <= len(_LINES):
        raise UserError(f"populations: found {len(groups)}, expected 1 to {len(_LINES)}")
    groups = {name: list(values) for name, values in groups.items()}
    bands = {name: analysis.edf(values) for name, values in groups.items()}
    axes = own_axes(axes)
    ends = [band["value"].iloc[position] for band in bands.values() for position in (0, -1)]
    margin = 0.04 * (max(ends) - min(ends) or 1)
    for (name, band), (colour, dashes) in zip(bands.items(), _LINES, strict=False):
        xs = [min(ends) - margin, *band["value"], max(ends) + margin]
        half = band["high"].iloc[0] - band["edf"].iloc[0]
        low, high = [0, *band["low"], band["low"].iloc[-1]], [half, *band["high"], 1]
        axes.fill_between(xs, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
        count = pd.Series(groups[name], dtype="Float64").count()
        axes.step(
            xs,
            [0, *band["edf"], 1],
            where="post",
            color=colour,
            linestyle=dashes,
            label=f"{name}, n = {count}" if name else f"n = {count}",
        )
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(label)
    axes.set_ylabel("architectures at or below, 95% band")
    title = None
    if len(groups) == 2:
        found = analysis.compare_populations(*groups.values())
        title = (
            f"first above second in {found.superiority:.0%} of pairs\n"
            f"(Mann-Whitney p = {found.mann_whitney_p:.2g})"
        )
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        title=title,
        title_fontsize=7,
        alignment="left",
    )
    return axes


def effects(trials: pd.DataFrame, column: str) -> list[Axes]:
    """A panel a metaparameter: each trial, the mean of each value with its 95% t-interval, and the
    partial dependence, which holds the other metaparameters as they are; up to four panels.

    Args:
        trials: one row a trial.
        column: what to explain.

    Raises:
        UserError: as `analysis.main_effects` and `analysis.partial_dependence` do.
    """
    means = analysis.main_effects(trials, column)
    dependence = analysis.partial_dependence(trials, column)
    every = list(means["axis"].unique())
    names = every[:_MOST_AXES]
    figure, drawn = panels(len(names))
    # Two columns of a page at most, however many panels.
    figure.set_figwidth(min(figure.get_figwidth(), 7.16))
    for axes, name in zip(drawn, names, strict=True):
        ours = means[means["axis"] == name]
        values = list(ours["value"])
        positions = {value: position for position, value in enumerate(values)}
        measured = trials.dropna(subset=[column])
        axes.plot(
            measured[name].map(positions).to_numpy(dtype=float) - 0.12,
            measured[column].to_numpy(dtype=float),
            ".",
            color=GREY,
            markersize=3,
            label="trials",
        )
        axes.errorbar(
            range(len(values)),
            ours["mean"],
            yerr=np.nan_to_num(ours["high"] - ours["mean"]),
            fmt="o",
            color=BLUE,
            capsize=2,
            elinewidth=0.8,
            label="mean, 95% interval",
        )
        axes.plot(
            np.arange(len(values)) + 0.12,
            dependence.loc[dependence["axis"] == name, "mean"],
            "D--",
            color=ORANGE,
            markerfacecolor="white",
            markersize=3.5,
            linewidth=1,
            label="partial dependence",
        )
        texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
        crowded = sum(map(len, texts)) > 84 // len(names)
        axes.set_xticks(range(len(values)), texts, rotation=90 if crowded else 0)
        axes.set_xlabel(name)
        axes.sharey(drawn[0])
    # An interval from two trials may be wider than the picture: the trials decide what it shows.
    known = trials[column].dropna().astype(float)
    margin = 0.25 * (known.max() - known.min() or 1.0)
    drawn[0].set_ylim(known.min() - margin, known.max() + margin)
    for axes in drawn[1:]:
        axes.tick_params(labelleft=False)
    drawn[0].set_ylabel(axis_label(trials, column))
    title = f"out of bag, the forest explains {dependence.attrs['r2']:.0%} of the variance"
    if len(every) > len(names):
        title = f"first {len(names)} of {len(every)} metaparameters; {title}"
    figure.legend(
        *drawn[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        title=title,
        title_fontsize=7,
    )
    return drawn


def importances(
    trials: pd.DataFrame, column: str, maximize: bool = True, axes: Axes | None = None
) -> Axes:
    """A bar a metaparameter: its share of the variance that single ones explain (fANOVA), with the
    95% interval of a bootstrap over the trials.

    Args:
        trials: one row a trial.
        column: what to explain.
        maximize: whether more of it is better.
        axes: where to draw; new ones if None.

    Raises:
        UserError: as `analysis.importance` does.
    """
    shares = analysis.importance(trials, column, maximize, resamples=_RESAMPLES).iloc[::-1]
    axes = own_axes(axes)
    ends = shares[["ci_low", "ci_high"]].to_numpy(dtype=float).T
    # A percentile interval need not hold the estimate, of which the bar is.
    errors = np.abs(ends - shares["importance"].to_numpy(dtype=float))
    axes.barh(
        shares["axis"], shares["importance"], color=BLUE, height=0.6, xerr=errors, ecolor=GREY
    )
    for position, (share, high) in enumerate(zip(shares["importance"], ends[1], strict=True)):
        axes.annotate(
            f"{share:.0%}", (max(share, high), position), (3, 0), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlim(0, 1.15 * float(max(shares["importance"].max(), ends[1].max())))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"importance for {axis_label(trials, column)}, fANOVA")
    return axes


def analysis_figures(
    spec: Spec, trials: pd.DataFrame, seeds: pd.DataFrame | None, images: pd.DataFrame | None
) -> Figures:
    """The figures of a sweep's analyses; each raises UserError where the data for it is missing.

    Args:
        spec: of the sweep.
        trials: its rows so far.
        seeds: its trainings so far; None if there is no such table.
        images: which images those had right; None if there is no such table.
    """
    least, most = goals(spec, trials)
    aims = [name for name, goal in spec.objectives.items() if goal == "maximize" and most]
    y = aims[0] if aims else ""
    # Those that a front may be of: what the search ended early has accuracies of fewer epochs.
    whole = meeting_constraints(trials[trials["state"] == "complete"])

    def draw_front(axes: Axes) -> Axes:
        if seeds is None or y not in SEEDED:
            raise UserError(f"{y} has no trainings to draw from")
        x = next((figure.x for figure in default_figures(spec) if figure.y == y), None)
        if x is None:
            raise UserError(f"no figure of the spec shows {y}")
        x = cost_beside(x.removeprefix("train_"), trials, x.startswith("train_"))
        if whole[x].nunique() < 2:
            raise UserError(f"{x} does not vary")
        return front(whole, seeds, x, chosen_by(y), axes, images, spec.objectives)

    def draw_hypervolume(axes: Axes) -> Axes:
        if spec.search.sampler == "grid":
            raise UserError("a grid is gone through in its own order")
        values = whole.drop(columns="trial").reindex(trials.index)  # the others add nothing
        return hypervolume(values.assign(trial=trials["trial"]), least, most, axes)

    def draw_population(axes: Axes) -> Axes:
        count = int(trials[y].notna().sum())
        if count < _LEAST_POPULATION:
            raise UserError(f"found {count} trials with {y}, expected at least {_LEAST_POPULATION}")
        return populations({"": trials[y]}, axis_label(trials, y), axes)

    single: dict[str, Callable[[Axes], Axes]] = {
        "front": draw_front,
        "hypervolume": draw_hypervolume,
        "population": draw_population,
        "importance": lambda axes: importances(trials, y, axes=axes),
    }
    drawn = {name: partial(_picture, draw) for name, draw in single.items()}
    drawn["effects"] = partial(_effects, trials, y)

    def titled(name: str) -> Figure:
        if not y:
            raise UserError("nothing is maximized")
        figure = drawn[name]()
        notes = [caption(spec, trials, y)]
        if name in _OF_A_POPULATION and spec.search.sampler not in AT_RANDOM:
            notes.append(
                f"{spec.search.sampler} chose these architectures by what it had found:\n"
                "they are no random sample, and the bands and intervals do not hold"
            )
        figure.suptitle("\n".join(notes), fontsize=7)
        return figure

    return {name: partial(titled, name) for name in drawn}


def _picture(draw: Callable[[Axes], Axes]) -> Figure:
    figure, (axes,) = panels()
    draw(axes)
    return figure


def _effects(trials: pd.DataFrame, column: str) -> Figure:
    if len(analysis.varying(trials)) < 2:
        raise UserError("one metaparameter varies; the trade-off shows it")
    figure = effects(trials, column)[0].get_figure(root=True)
    assert figure is not None
    return figure
