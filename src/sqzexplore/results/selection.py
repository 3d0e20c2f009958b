"""What a researcher asks of a sweep's table first: what is on the front, and what to choose."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from .. import analysis
from ..analysis.front import SEEDED
from ..errors import UserError, nearest, shown
from ..network.cost import COST_COLUMNS
from ..network.frames import architecture_name
from ..spec.models import Spec
from .tables import meeting_constraints

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


def pick(spec: Spec, trials: pd.DataFrame, choice: str | int) -> pd.Series:
    """The one trial that `choice` names.

    Args:
        spec: of the sweep.
        trials: its rows.
        choice: `knee`: of the front of the sweep's two objectives (`analysis.knee`); `best`: the
            highest top1, of equal ones the fewest params; or a trial's number. The first two look
            at complete trials that meet the constraints on measured columns.

    Raises:
        UserError: there is no such trial; the message names those that there are.
    """
    if trials.empty:
        raise UserError(f"--pick {choice}: the sweep {spec.name} has no trial yet")
    text = str(choice)
    if text.isdecimal():
        return _numbered(trials, int(text))
    known = meeting_constraints(trials[trials["state"] == "complete"])
    if text == "knee":
        try:
            return analysis.knee(known, *goals(spec))
        except UserError as error:
            reason = str(error).removeprefix("knee: ")
            best = "best or " if known["top1"].notna().any() else ""
            raise UserError(
                f"--pick knee: {reason} (the objectives are {', '.join(spec.objectives)}); choose "
                f"{best}{_numbers(trials)}"
            ) from None
    if text == "best":
        known = known.dropna(subset=["top1"])
        if known.empty:
            raise UserError(
                "--pick best: found no accuracy (top1) of a complete trial that meets the "
                f"constraints, expected knee or {_numbers(trials)}"
            )
        return known.sort_values(["top1", "params", "trial"], ascending=[False, True, True]).iloc[0]
    raise UserError(
        f"--pick: found {shown(choice)}, expected knee, best or {_numbers(trials)}"
        f"{nearest(text, ('knee', 'best'))}"
    )


def _numbered(trials: pd.DataFrame, number: int) -> pd.Series:
    found = trials[trials["trial"] == number]
    if found.empty:
        beside = min(trials["trial"], key=lambda other: abs(other - number))
        raise UserError(
            f"--pick: found {number}, expected {_numbers(trials)}; the nearest is {beside}"
        )
    return found.iloc[0]


def _numbers(trials: pd.DataFrame) -> str:
    """The numbers of the trials that there are, in words."""
    first, last = trials["trial"].min(), trials["trial"].max()
    some = "" if last - first + 1 == len(trials) else f" (there are {len(trials):,} of these)"
    return f"the number of a trial, {first} to {last}{some}"


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
