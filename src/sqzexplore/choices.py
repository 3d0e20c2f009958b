"""What a researcher asks of a sweep's table first: what is on the front, and what to choose."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from . import analysis
from .analysis.front import SEEDED
from .columns import architecture_name
from .cost import COST_COLUMNS
from .errors import UserError
from .results import meeting_constraints
from .spec import Spec

_MOST_OF_A_FRONT = 12


def goals(spec: Spec) -> tuple[list[str], list[str]]:
    """The columns that a sweep minimizes and maximizes, as its table shows them: beside accuracy,
    which is the trained network's, its size is that of the same."""
    least = [name for name, goal in spec.objectives.items() if goal == "minimize"]
    most = [name for name, goal in spec.objectives.items() if goal == "maximize"]
    if set(most) & set(SEEDED):
        least = [f"train_{name}" if name in COST_COLUMNS else name for name in least]
    return least, most


def choices(spec: Spec, trials: pd.DataFrame, seeds: pd.DataFrame | None) -> list[str]:
    """A line each: the Pareto front, its knee, the smallest within 1% of the best and the smallest
    that is not told from the best; those that the table has too little for are left out.

    Args:
        spec: of the sweep.
        trials: its rows so far.
        seeds: its trainings so far; None if there is no such table.
    """
    least, most = goals(spec)
    trials = meeting_constraints(trials)  # a row that breaks one is no choice
    lines = []
    if len(most) == 1 and len(least) == 1:
        (size,), (quality,) = least, most
        asked: dict[str, Callable[[], pd.Series]] = {
            "knee of the front": lambda: analysis.knee(trials, least, most),
            "smallest within 1% of the best": lambda: analysis.smallest_within(
                trials, size, quality
            ),
        }
        if seeds is not None and quality in SEEDED:
            asked["smallest that the seeds do not tell from the best (95% Welch interval)"] = (
                lambda: analysis.smallest_indistinguishable(trials, seeds, size, quality)
            )
        lines = [_line(name, find, spec, size, quality) for name, find in asked.items()]
    return [line for line in [_front(spec, trials, seeds), *lines] if line]


def _front(spec: Spec, trials: pd.DataFrame, seeds: pd.DataFrame | None) -> str:
    least, most = goals(spec)
    text = ", ".join([f"least {name}" for name in least] + [f"most {name}" for name in most])
    shares: list[str] = []
    if seeds is not None and set(most) & set(SEEDED):
        try:
            rows = analysis.front_probability(trials, seeds, least, most)
            rows = rows[rows["on_front"] | (rows["front_probability"] >= 0.05)]
            shares = [f": {share:.0%}" for share in rows["front_probability"]]
            text += "; probability by bootstrap over the seeds"
        except UserError:  # one training each: the front is that of the numbers as they are
            pass
    if not shares:
        rows = analysis.pareto_front(trials, least, most)
        shares = [""] * len(rows)
    if rows.empty:
        return ""
    named = [f"{_name(spec, row)}{s}" for (_, row), s in zip(rows.iterrows(), shares, strict=True)]
    more = len(named) - _MOST_OF_A_FRONT
    rest = f"\n  and {more} more" if more > 0 else ""
    return "\n  ".join([f"front ({text}):", *named[:_MOST_OF_A_FRONT]]) + rest


def _line(name: str, find: Callable[[], pd.Series], spec: Spec, size: str, quality: str) -> str:
    try:
        row = find()
    except UserError:
        return ""
    return f"{name}: {_name(spec, row)} ({size} {row[size]:,}, {quality} {row[quality]:,.2f})"


def _name(spec: Spec, row: pd.Series) -> str:
    """A trial by its number and what varies."""
    axes = [axis.field for axis in spec.design_space.axes]
    return f"trial {row['trial']}, {architecture_name(row, axes)}"
