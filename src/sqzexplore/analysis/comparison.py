"""Two architectures compared over their trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ..errors import UserError, nearest, shown
from .validation import largest_budget, numbers, require_columns, require_rows


@dataclass(frozen=True)
class Difference:
    """Mean of the first minus mean of the second, with its 95% interval, in the column's unit.

    `p_value` is two-sided, of no difference; `method` is welch or paired; `first` and `second` are
    the numbers of trainings.
    """

    difference: float
    low: float
    high: float
    p_value: float
    method: str
    first: int
    second: int


def compare(
    seeds: pd.DataFrame, first: str, second: str, column: str = "top1", paired: bool = False
) -> Difference:
    """The difference between two architectures in a column of `seeds`.

    Welch's t-interval over the trainings; with `paired`, Student's over the differences of the
    trainings of the same seed. Pairing is worth it where the seed decides something that both
    share, such as the order of the images: it costs half the degrees of freedom.

    Args:
        seeds: one row a training.
        first: an `arch_id`.
        second: another.
        column: what to compare.
        paired: by seed.

    Raises:
        UserError: an unknown column or architecture, fewer than 2 trainings (with `paired`, seeds
            that both have), or several sweeps that hold the architecture.
    """
    require_columns("compare", seeds, ["arch_id", "seed", column])
    seeds = largest_budget(seeds)
    runs = []
    for name in (first, second):
        rows = seeds[seeds["arch_id"] == name]
        if rows.empty:
            known = sorted(set(map(str, seeds["arch_id"])))
            raise UserError(f"compare: no architecture {shown(name)}{nearest(name, known)}")
        values = pd.Series(numbers("compare", rows, column), index=rows["seed"]).dropna()
        if not values.index.is_unique:
            raise UserError(
                f"compare: architecture {name}: found a seed twice, expected the trainings of one "
                "sweep"
            )
        runs.append(values)
    if paired:
        both = runs[0].index.intersection(runs[1].index)
        require_rows("compare", len(both), 2, "seeds that both were trained with")
        change = (runs[0][both] - runs[1][both]).to_numpy()
        error = float(change.std(ddof=1)) / math.sqrt(len(both))
        count = len(both)
        return _of_student(float(change.mean()), error, count - 1, "paired", count, count)
    for values in runs:
        require_rows("compare", len(values), 2, "trainings of an architecture")
    return welch(*(np.asarray(values, dtype=np.float64) for values in runs))


def welch(first: NDArray[np.float64], second: NDArray[np.float64]) -> Difference:
    """Welch's interval of the difference of two means (Biometrika 34, 1947); 2 values at least."""
    a, b = (values.var(ddof=1) / len(values) for values in (first, second))
    error = math.sqrt(a + b)
    freedom = math.nan
    if error:
        freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    difference = float(np.mean(first) - np.mean(second))
    return _of_student(difference, error, freedom, "welch", len(first), len(second))


def _of_student(
    difference: float, error: float, freedom: float, method: str, first: int, second: int
) -> Difference:
    """By Student's t: scipy.special holds it, which is imported four times as fast as the tests of
    scipy.stats, and every verb that shows a table needs it."""
    if not error:  # no spread at all: the difference is what it is
        p = 1.0 if difference == 0 else 0.0
        return Difference(difference, difference, difference, p, method, first, second)
    half = float(special.stdtrit(freedom, 0.975)) * error
    p = 2 * float(special.stdtr(freedom, -abs(difference) / error))
    return Difference(difference, difference - half, difference + half, p, method, first, second)
