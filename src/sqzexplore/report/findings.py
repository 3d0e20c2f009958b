"""What a sweep found, in sentences and small tables, each number with its interval or as exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import analysis
from ..analysis.ranking import rank_correlation
from ..network.architecture import KEYS
from ..network.cost import COST_COLUMNS
from ..network.frames import architecture_name, value_text
from ..results.tables import TRIALS
from ..schema import SPEED
from ..spec.models import Spec
from .wording import number, with_unit

_COSTS = {*COST_COLUMNS, *(f"train_{name}" for name in COST_COLUMNS)}
#: More levels than this are shown as quarters of the trials.
_MOST_LEVELS = 12
_SPEED_KEYS = (*(name for name, column in SPEED.items() if column.is_setting), "input_size")


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of an axis with an objective, over the complete trials."""

    objective: str
    rho: float
    low: float
    high: float
    trials: int

    @property
    def interval(self) -> str:
        """The interval in words; every resample of a perfect order is one too."""
        if self.low == self.high:
            return "a perfect order, to which the bootstrap gives no width"
        return f"95% CI {self.low:.2f} to {self.high:.2f}"


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
    spec: Spec, trials: pd.DataFrame, seeds: pd.DataFrame, throughput: pd.DataFrame
) -> list[str]:
    """The answer in sentences, the difference that matters most first."""
    axes = [axis.field for axis in spec.design_space.axes]
    goal, direction = next(iter(spec.objectives.items()))
    rows = trials[trials["state"] == "complete"].dropna(subset=[goal, "params"])
    if rows.empty:
        return [f"No trial has a value of {goal} yet."]
    if len(rows) == 1:
        only = rows.iloc[0]
        stated = _value(only, goal, seeds, throughput)
        return [f"One trial has a value of {goal}: {architecture_name(only, axes)} has {stated}."]
    said = _comparison(rows, axes, goal, direction, seeds, throughput)
    for axis in axes:
        for found in _correlations(rows, axis, [goal]):
            said.append(
                f"Over {found.trials} architectures the rank correlation (Spearman) of {axis} "
                f"with {goal} is {found.rho:.2f} ({found.interval})."
            )
    return said


def effects(spec: Spec, trials: pd.DataFrame) -> list[Effect]:
    """What each axis does to each objective."""
    rows = trials[trials["state"] == "complete"]
    goals = list(spec.objectives)
    return [
        Effect(axis, _correlations(rows, axis, goals), _levels(rows, axis, goals))
        for axis in (axis.field for axis in spec.design_space.axes)
        if len(rows)
    ]


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval of mean(second) - mean(first), variances not assumed equal (Welch, 1947);
    None where a side has one value, or neither side varies."""
    if min(len(first), len(second)) < 2 or np.ptp(first) == np.ptp(second) == 0:
        return None
    found = analysis.welch(np.asarray(second), np.asarray(first))
    return found.low, found.high


def _comparison(
    rows: pd.DataFrame,
    axes: list[str],
    goal: str,
    direction: str,
    seeds: pd.DataFrame,
    throughput: pd.DataFrame,
) -> list[str]:
    """The ends of the only axis, where it is a number; else the smallest and the best."""
    size = next((name for name in ("params", "macs") if rows[name].nunique() > 1), None)
    if len(axes) == 1 and KEYS[axes[0]] in (int, float):
        ordered = rows.sort_values([axes[0], "trial"])
        first, last = ordered.iloc[0], ordered.iloc[-1]
        name, end = architecture_name(first, axes), value_text(last[axes[0]])
        return [f"From {name} to {end}, {_change(first, last, goal, size, seeds, throughput)}."]
    sign = -1.0 if direction == "maximize" else 1.0
    ranked = rows.assign(_goal=rows[goal].astype(float) * sign)
    last = ranked.sort_values(["_goal", size or "params", "trial"]).iloc[0]
    best, stated = architecture_name(last, axes), _value(last, goal, seeds, throughput)
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
        f"{_change(first, last, goal, size, seeds, throughput)}."
    ]
    if goal not in _COSTS:
        said.append(
            f"The best of {len(rows)} was chosen by the same numbers, which flatters it: the "
            "interval does not allow for that choice."
        )
    return said


def _change(
    first: pd.Series,
    last: pd.Series,
    goal: str,
    size: str | None,
    seeds: pd.DataFrame,
    throughput: pd.DataFrame,
) -> str:
    """How `goal` changes from one trial to another, with its interval, and what that costs in
    `size`, the first count that is not the same in all trials."""
    a, b = float(first[goal]), float(last[goal])
    if goal == "top1":
        verb = "rises" if b >= a else "falls"
        text = f"top1 {verb} by {abs(b - a):.2f} points"
        interval = welch(*(_of_seeds(seeds, row) for row in (first, last)))
        if interval is None:
            text += " (no interval: it needs at least two seeds of each, not all alike)"
        else:
            low, high = interval if b >= a else (-interval[1], -interval[0])
            text += f" (95% CI {low:.2f} to {high:.2f}, Welch's t over seeds)"
        text += f", from {a:.2f}% to {b:.2f}%"
    else:
        ends = (_value(row, goal, seeds, throughput) for row in (first, last))
        text = f"{goal} goes from {' to '.join(ends)}{_times(a, b)}"
    if size is not None and goal != size:
        p, q = int(first[size]), int(last[size])
        text += f"; {size} go from {p:,} to {q:,}{_times(p, q)}"
    return text


def _times(a: float, b: float) -> str:
    return f" ({b / a:.3g} times)" if a > 0 else ""


def _value(row: pd.Series, goal: str, seeds: pd.DataFrame, throughput: pd.DataFrame) -> str:
    """A trial's value of `goal` with its unit, and its interval where it has one."""
    text = with_unit(number(goal, row[goal]), TRIALS[goal].unit)
    if goal in _COSTS:
        return text
    interval = None
    if goal == "top1" and pd.notna(row["top1_ci_low"]):
        interval = float(row["top1_ci_low"]), float(row["top1_ci_high"])
    if goal in ("images_per_s", "latency_ms_p50"):
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
    found = throughput[same].dropna(subset=["latency_ms_p50_low", "latency_ms_p50_high"])
    if len(found) != 1:
        return None
    low, high = (float(found[f"latency_ms_p50_{end}"].iloc[0]) for end in ("low", "high"))
    if goal == "latency_ms_p50":
        return low, high
    return 1000 * float(row["batch"]) / high, 1000 * float(row["batch"]) / low


def _of_seeds(seeds: pd.DataFrame, row: pd.Series) -> list[float]:
    if seeds.empty:
        return []
    return seeds.loc[seeds["trial"] == row["trial"], "top1"].dropna().astype(float).tolist()


def _correlations(rows: pd.DataFrame, axis: str, goals: list[str]) -> list[Correlation]:
    """None for an axis without an order, or where there are too few rows."""
    if KEYS[axis] not in (int, float):
        return []
    found = []
    for goal in goals:
        known = rows.dropna(subset=[axis, goal])
        x, y = (known[name].to_numpy(dtype=float) for name in (axis, goal))
        # The intervals of thousands of rows are narrow, and a resample of them takes its time.
        resamples = 2000 if len(x) <= 2000 else 200
        if (correlation := rank_correlation(x, y, resamples)) is not None:
            found.append(Correlation(goal, *correlation, len(known)))
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
