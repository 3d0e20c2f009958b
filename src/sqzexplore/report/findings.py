"""What a sweep found, in sentences and small tables, each number with its interval or as exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import analysis
from ..analysis.accuracy import Trainings, difference, trainings
from ..analysis.front import sharing_groups
from ..analysis.ranking import distinct, rank_correlation
from ..network.architecture import KEYS
from ..network.cost import COST_COLUMNS
from ..network.frames import architecture_name, value_text
from ..results.selection import chosen_by
from ..results.tables import TRIALS, meeting_constraints
from ..schema import SPEED
from ..spec.models import Spec
from .wording import number, with_unit

_COSTS = {*COST_COLUMNS, *(f"train_{name}" for name in COST_COLUMNS)}
#: The trainings of each trial, by sweep and trial.
_Runs = dict[tuple[str, int], Trainings]
#: More levels than this are shown as quarters of the trials.
_MOST_LEVELS = 12
_SPEED_KEYS = (*(name for name, column in SPEED.items() if column.is_setting), "input_size")


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of an axis with an objective, over the complete trials."""

    objective: str
    found: analysis.Correlation

    @property
    def interval(self) -> str:
        """The interval in words, or of a perfect order the p-value."""
        if np.isnan(self.found.low):
            return f"a perfect order: p = {self.found.p_value:.2g} of no association"
        return f"95% CI {self.found.low:.2f} to {self.found.high:.2f}"


@dataclass(frozen=True)
class Level:
    """The trials at one value of an axis: for each objective its mean, least and greatest."""

    name: str
    trials: int
    spread: dict[str, tuple[float, float, float] | None]


@dataclass(frozen=True)
class Effect:
    """What one metaparameter does to the objectives."""

    axis: str
    correlations: list[Correlation]
    levels: list[Level]


def answer(
    spec: Spec,
    trials: pd.DataFrame,
    seeds: pd.DataFrame,
    images: pd.DataFrame | None,
    throughput: pd.DataFrame,
) -> list[str]:
    """The answer in sentences, the difference that matters most first.

    Args:
        spec: of the sweep.
        trials: its rows.
        seeds: its trainings; empty if there are none.
        images: which images those had right; None if there is no such table.
        throughput: its measurements; empty if there are none.
    """
    axes = spec.design_space.axis_names
    goal, direction = next(iter(spec.objectives.items()))
    rows = trials[trials["state"] == "complete"].dropna(subset=[goal, "params"])
    met = meeting_constraints(rows)
    which = "trial" if len(met) == len(rows) else "trial that meets the constraints"
    if met.empty:
        return [f"No {which} has a value of {goal} yet."]
    if len(met) == 1:
        only = met.iloc[0]
        stated = _value(only, goal, throughput)
        return [f"One {which} has a value of {goal}: {architecture_name(only, axes)} has {stated}."]
    runs = trainings(seeds, images) if goal == "top1" and len(seeds) else {}
    said = _comparison(met, axes, goal, direction, runs, throughput)
    if len(met) < len(rows):
        said.append(f"Of the {len(rows)} architectures, {len(met)} meet the constraints.")
    for axis in axes:
        for found in _correlations(rows, axis, [goal]):
            said.append(
                f"Over {found.found.rows} networks the rank correlation (Spearman) of {axis} "
                f"with {goal} is {found.found.spearman:.2f} ({found.interval})."
            )
    return said


def effects(spec: Spec, trials: pd.DataFrame) -> list[Effect]:
    """What each axis does to each objective."""
    rows = trials[trials["state"] == "complete"]
    goals = list(spec.objectives)
    return [
        Effect(axis, _correlations(rows, axis, goals), _levels(rows, axis, goals))
        for axis in spec.design_space.axis_names
        if len(rows)
    ]


def _comparison(
    rows: pd.DataFrame,
    axes: list[str],
    goal: str,
    direction: str,
    runs: _Runs,
    throughput: pd.DataFrame,
) -> list[str]:
    """The ends of the only axis, where it is a number; else the smallest and the best."""
    size = next((name for name in ("params", "macs") if rows[name].nunique() > 1), None)
    if len(axes) == 1 and KEYS[axes[0]] in (int, float):
        ordered = rows.sort_values([axes[0], "trial"])
        first, last = ordered.iloc[0], ordered.iloc[-1]
        name, end = architecture_name(first, axes), value_text(last[axes[0]])
        return [f"From {name} to {end}, {_change(first, last, goal, size, runs, throughput)}."]
    sign = -1.0 if direction == "maximize" else 1.0
    ranked = rows.assign(_goal=rows[chosen_by(goal)].astype(float) * sign)
    last = ranked.sort_values(["_goal", size or "params", "trial"]).iloc[0]
    best, stated = architecture_name(last, axes), _value(last, goal, throughput)
    if size is None:
        return [
            f"All {len(rows)} architectures have the same params and macs; the best in {goal} is "
            f"{best}: {stated}."
        ]
    first = ranked.sort_values([size, "_goal", "trial"]).iloc[0]
    small = architecture_name(first, axes)
    if first["trial"] == last["trial"]:
        return [
            f"The architecture with the fewest {size} of {len(rows)} ({small}) is also the best "
            f"in {goal}: {stated}."
        ]
    said = [
        f"From the architecture with the fewest {size} ({small}) to the best in {goal} ({best}), "
        f"{_change(first, last, goal, size, runs, throughput)}."
    ]
    if goal not in _COSTS:
        by = f"by {chosen_by(goal)}" if chosen_by(goal) != goal else "by the same numbers"
        flatters = "" if chosen_by(goal) != goal else ", which flatters it"
        said.append(
            f"The best of {len(rows)} was chosen {by}{flatters}: the interval does not allow for "
            "that choice."
        )
    return said


def _change(
    first: pd.Series,
    last: pd.Series,
    goal: str,
    size: str | None,
    runs: _Runs,
    throughput: pd.DataFrame,
) -> str:
    """How `goal` changes from one trial to another, with its interval, and what that costs in
    `size`, the first count that is not the same in all trials."""
    a, b = float(first[goal]), float(last[goal])
    if goal == "top1":
        verb = "rises" if b >= a else "falls"
        text = f"top1 {verb} by {abs(b - a):.2f} points"
        text += f" ({_interval_of_change(first, last, runs)})"
        text += f", from {a:.2f}% to {b:.2f}%"
    else:
        ends = (_value(row, goal, throughput) for row in (first, last))
        text = f"{goal} goes from {' to '.join(ends)}{_times(a, b)}"
    if size is not None and goal != size:
        p, q = int(first[size]), int(last[size])
        text += f"; {size} go from {p:,} to {q:,}{_times(p, q)}"
    return text


def _interval_of_change(first: pd.Series, last: pd.Series, runs: _Runs) -> str:
    """The 95% interval of how far accuracy rises, or falls, from one trial to another."""
    found = [runs.get((row["sweep"], int(row["trial"]))) for row in (first, last)]
    if found[0] is None or found[1] is None or min(len(one.seeds) for one in found if one) < 2:
        return "no interval: it needs at least two seeds of each"
    groups = sharing_groups(pd.DataFrame([first, last]))
    estimate = difference(found[1], found[0], paired=groups[0] == groups[1])
    low, high = estimate.interval()
    if np.isnan(low):
        return "no interval: the seeds are all alike"
    if estimate.value < 0:
        low, high = -high, -low
    return f"95% CI {low:.2f} to {high:.2f}, Student's t over {estimate.method}"


def _times(a: float, b: float) -> str:
    return f" ({b / a:.3g} times)" if a > 0 else ""


def _value(row: pd.Series, goal: str, throughput: pd.DataFrame) -> str:
    """A trial's value of `goal` with its unit, and its interval where it has one."""
    text = with_unit(number(goal, row[goal]), TRIALS[goal].unit)
    if goal in _COSTS:
        return text
    interval = None
    if goal == "top1" and pd.notna(row["top1_ci_low"]):
        interval = float(row["top1_ci_low"]), float(row["top1_ci_high"])
    if goal in ("images_per_s", "latency_ms_p50", "relative_to_reference"):
        interval = _speed_interval(row, goal, throughput)
    if interval is None:
        return f"{text} (no interval)"
    return f"{text} (95% CI {number(goal, interval[0])} to {number(goal, interval[1])})"


def _speed_interval(
    row: pd.Series, goal: str, throughput: pd.DataFrame
) -> tuple[float, float] | None:
    """That of the measurement which the trial's row shows."""
    if throughput.empty:
        return None
    same = throughput["trial"] == row["trial"]
    for name in _SPEED_KEYS:
        if pd.notna(row[name]):
            same &= throughput[name].eq(row[name]).fillna(True)
    name = "latency_ms_p50" if goal == "images_per_s" else goal
    ends = [f"{name}_low", f"{name}_high"]
    found = throughput[same].dropna(subset=ends)
    if len(found) != 1:
        return None
    low, high = (float(found[end].iloc[0]) for end in ends)
    if goal != "images_per_s":
        return low, high
    return 1000 * float(row["batch"]) / high, 1000 * float(row["batch"]) / low


def _correlations(rows: pd.DataFrame, axis: str, goals: list[str]) -> list[Correlation]:
    """None for an axis without an order, or where there are too few rows."""
    if KEYS[axis] not in (int, float):
        return []
    found = []
    for goal in goals:
        known = rows.dropna(subset=[axis, goal])
        values = distinct(known[[axis, goal]].astype(float), known)
        # The intervals of thousands of rows are narrow, and a resample of them takes its time.
        resamples = 2000 if len(values) <= 2000 else 200
        x, y = values.to_numpy().T
        correlation = rank_correlation(x, y, resamples)
        if correlation is not None:
            found.append(Correlation(goal, correlation))
    return found


def _levels(rows: pd.DataFrame, axis: str, goals: list[str]) -> list[Level]:
    values = rows[axis]
    if KEYS[axis] in (int, float) and values.nunique() > _MOST_LEVELS:
        quarters = pd.qcut(values.astype(float), 4, duplicates="drop")
        groups = [
            (f"{part.iloc[0]:.4g} to {part.iloc[-1]:.4g}", rows.loc[part.index])
            for _, whole in values.groupby(quarters, observed=True)
            if len(part := whole.sort_values())
        ]
    else:
        groups = [(value_text(value), part) for value, part in rows.groupby(axis, dropna=False)]
    return [
        Level(name, len(part), {goal: _spread(part[goal]) for goal in goals})
        for name, part in groups
    ]


def _spread(values: pd.Series) -> tuple[float, float, float] | None:
    known = values.dropna().astype(float)
    return (known.mean(), known.min(), known.max()) if len(known) else None
