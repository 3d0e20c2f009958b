"""What a researcher asks of a sweep's table first: what is on the front, and what to choose.

Whatever is chosen is chosen on the validation split; the test split is reported of the chosen one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pandas as pd

from .. import analysis
from ..analysis.accuracy import SEEDED
from ..errors import UserError, nearest, shown
from ..network.cost import COST_COLUMNS
from ..network.frames import architecture_name
from ..spec.models import Spec
from .tables import meeting_constraints

_MOST_OF_A_FRONT = 12
#: Test accuracies of what trained networks are made into.
_MADE_SMALLER = ("compressed_top1", "int8_top1")
#: Points of accuracy that the smallest may be worse than the best.
MARGIN = 1.0


def chosen_by(name: str) -> str:
    """The column that stands for `name` where something is chosen: of an accuracy, that on the
    validation split."""
    if name in SEEDED:
        return "val_top1"
    return name.replace("_top1", "_val_top1") if name in _MADE_SMALLER else name


def goals(spec: Spec, trials: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The columns by which a sweep's trials are chosen: those to minimize, those to maximize.

    Accuracy is that on the validation split, and beside it size is the trained network's, as
    accuracy is. A cost that is the same in all trials says nothing: the first that is not takes its
    place.

    Args:
        spec: of the sweep.
        trials: its rows.
    """
    least = [name for name, goal in spec.objectives.items() if goal == "minimize"]
    most = [name for name, goal in spec.objectives.items() if goal == "maximize"]
    trained = bool({*least, *most} & set(SEEDED))
    least, most = (
        [cost_beside(chosen_by(name), trials, trained) for name in names] for names in (least, most)
    )
    return [*dict.fromkeys(least)], [*dict.fromkeys(most)]


def cost_beside(name: str, trials: pd.DataFrame, trained: bool) -> str:
    """The cost column that is looked at in place of `name`; any other column is itself.

    Args:
        name: a column.
        trials: rows, among which the cost shall vary.
        trained: whether it is the trained network's.
    """
    if name not in COST_COLUMNS:
        return name
    known = trials[trials["state"] == "complete"] if "state" in trials else trials
    named = [f"train_{cost}" if trained else cost for cost in dict.fromkeys([name, *COST_COLUMNS])]
    return next((cost for cost in named if cost in known and known[cost].nunique() > 1), named[0])


def chosen_front(spec: Spec, trials: pd.DataFrame) -> pd.DataFrame:
    """The complete trials, of those that meet the constraints, that no other dominates in the
    `goals`."""
    complete = meeting_constraints(trials[trials["state"] == "complete"])
    return analysis.pareto_front(complete, *goals(spec, trials))


def choices(
    spec: Spec,
    trials: pd.DataFrame,
    seeds: pd.DataFrame | None,
    images: pd.DataFrame | None = None,
) -> list[str]:
    """A line each: the Pareto front, its knee, the smallest within 1% of the best and, where there
    are several seeds, the smallest that is shown to be at most a point worse, or that none is; the
    others are left out where the table has too little for them.

    Args:
        spec: of the sweep.
        trials: its rows so far.
        seeds: its trainings so far; None if there is no such table.
        images: which images those had right; None if there is no such table.
    """
    least, most = goals(spec, trials)
    # A row that breaks one is no choice, nor is one of fewer epochs, which the search ended.
    trials = meeting_constraints(trials[trials["state"] == "complete"])
    lines = []
    if len(most) == 1 and len(least) == 1:
        (size,), (quality,) = least, most
        found: dict[str, Callable[[], pd.Series]] = {
            "knee of the front": lambda: analysis.knee(trials, least, most),
            "smallest within 1% of the best": lambda: analysis.smallest_within(
                trials, size, quality
            ),
        }
        shown_columns = [size, quality, *(["top1"] if quality == "val_top1" else [])]
        lines = [_line(name, find, spec, shown_columns) for name, find in found.items()]
        accuracy = spec.measure.accuracy
        several = accuracy is not None and accuracy.seeds > 1 and trials[quality].notna().any()
        if seeds is not None and quality in SEEDED and several:
            name = f"smallest shown to be at most {MARGIN:g} point worse than the best (95%)"
            find = partial(
                analysis.smallest_not_worse, trials, seeds, size, quality, MARGIN, images
            )
            lines.append(_line(name, find, spec, shown_columns) or f"{name}: none")
    return [line for line in [_front(spec, trials, seeds, images), *lines] if line]


def pick(spec: Spec, trials: pd.DataFrame, choice: str | int) -> pd.Series:
    """The one trial that `choice` names.

    Args:
        spec: of the sweep.
        trials: its rows.
        choice: `knee`: of the front of the sweep's two `goals` (`analysis.knee`); `best`: the
            highest val_top1, of equal ones the fewest params; or a trial's number. The first two
            look at complete trials that meet the constraints on measured columns.

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
            return analysis.knee(known, *goals(spec, known))
        except UserError as error:
            reason = str(error).removeprefix("knee: ")
            best = "best or " if known["val_top1"].notna().any() else ""
            raise UserError(
                f"--pick knee: {reason} (the objectives are {', '.join(spec.objectives)}); choose "
                f"{best}{_numbers(trials)}"
            ) from None
    if text == "best":
        known = known.dropna(subset=["val_top1"])
        if known.empty:
            raise UserError(
                "--pick best: found no accuracy (val_top1) of a complete trial that meets the "
                f"constraints, expected knee or {_numbers(trials)}"
            )
        order = ["val_top1", "params", "trial"]
        return known.sort_values(order, ascending=[False, True, True]).iloc[0]
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


def _front(
    spec: Spec, trials: pd.DataFrame, seeds: pd.DataFrame | None, images: pd.DataFrame | None
) -> str:
    least, most = goals(spec, trials)
    text = ", ".join([f"least {name}" for name in least] + [f"most {name}" for name in most])
    shares: list[str] = []
    rows = chosen_front(spec, trials)
    if seeds is not None and set(most) & set(SEEDED):
        try:
            known = analysis.front_probability(trials, seeds, least, most, images)
            rows = known[known["on_front"] | (known["front_probability"] >= 0.05)]
            shares = [f": {share:.0%}" for share in rows["front_probability"]]
            text += "; probability over the seeds" + (" and images" if images is not None else "")
        except UserError:  # one training each: the front is that of the numbers as they are
            pass
    if rows.empty:
        return ""
    shares = shares or [""] * len(rows)
    named = [f"{_name(spec, row)}{s}" for (_, row), s in zip(rows.iterrows(), shares, strict=True)]
    more = len(named) - _MOST_OF_A_FRONT
    rest = f"\n  and {more} more" if more > 0 else ""
    return "\n  ".join([f"front ({text}):", *named[:_MOST_OF_A_FRONT]]) + rest


def _line(name: str, find: Callable[[], pd.Series], spec: Spec, columns: Iterable[str]) -> str:
    try:
        row = find()
    except UserError:
        return ""
    values = ", ".join(f"{column} {_number(row[column])}" for column in dict.fromkeys(columns))
    return f"{name}: {_name(spec, row)} ({values})"


def _number(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _name(spec: Spec, row: pd.Series) -> str:
    """A trial by its number and what varies."""
    axes = spec.design_space.axis_names
    return f"trial {row['trial']}, {architecture_name(row, axes)}"
