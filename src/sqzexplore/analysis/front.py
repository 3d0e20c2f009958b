"""Pareto fronts: which architectures are on one, how surely, how good it is, what to choose."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .comparison import welch
from .validation import largest_budget, numbers, objectives, require_columns, require_rows, signs

#: Columns of `trials` that are means over the trainings in `seeds`.
SEEDED = ("top1", "top5", "val_top1")


def pareto_front(
    frame: pd.DataFrame, minimize: Sequence[str] = (), maximize: Sequence[str] = ()
) -> pd.DataFrame:
    """The rows that no other row dominates, in their order.

    A row dominates another if it is as good in every column and better in one. Of equal rows all
    are kept; rows with a missing value are never on the front.

    Args:
        frame: any table, such as `load_results` gives.
        minimize: columns of which less is better.
        maximize: columns of which more is better.

    Raises:
        UserError: no column, or one that the table does not have.

    Example:
        >>> table = pd.DataFrame({"params": [1, 2, 3], "top1": [50.0, 49.0, 60.0]})
        >>> pareto_front(table, minimize=["params"], maximize=["top1"])["params"].tolist()
        [1, 3]
    """
    known, values = objectives("pareto_front", frame, minimize, maximize)
    return frame.iloc[known[nondominated(values)]]


def nondominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `values` (rows x objectives, all minimized, no NaN) no other row dominates;
    of equal rows all or none."""
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    return moocore.is_nondominated(values, keep_weakly=True)


def front_probability(
    trials: pd.DataFrame,
    seeds: pd.DataFrame,
    minimize: Sequence[str] = (),
    maximize: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How surely each architecture is on the Pareto front, by bootstrap over its trainings.

    In each resample the mean of every architecture's accuracy is drawn anew, from n - 1 of its n
    trainings with replacement: so the variance of the mean is s^2 / n, as it should be, and not the
    (n - 1) / n of it that n draws would give, which with three seeds is a third too little (Rao
    and Wu, JASA 83, 1988). What has no rows in `seeds` (costs, throughput) stays as it is. The
    probability speaks of the randomness of training alone.

    Args:
        trials: one row an architecture; those without a value are left out.
        seeds: one row a training, of the same sweeps.
        minimize: columns of which less is better.
        maximize: columns of which more is better.
        resamples: of the trainings; a probability's standard error is 0.5 / sqrt of it at most.
        seed: of the resampling.

    Returns:
        The rows of `trials` that have every objective, with the columns `on_front` (as measured)
        and `front_probability`.

    Raises:
        UserError: no column, an unknown one, no row with every objective, or an architecture with a
            single training.
    """
    caller = "front_probability"
    known, values = objectives(caller, trials, minimize, maximize)
    require_rows(caller, len(known), 1, "architectures with every objective")
    rows = trials.iloc[known]
    names = [*minimize, *maximize]
    generator = np.random.default_rng(seed)
    drawn = np.repeat(values[None], resamples, axis=0)
    for column, (name, sign) in enumerate(zip(names, signs(minimize, maximize), strict=True)):
        if name in SEEDED:
            for place, runs in enumerate(_trainings(caller, rows, seeds, name)):
                picks = generator.integers(0, len(runs), (resamples, len(runs) - 1))
                drawn[:, place, column] = sign * runs[picks].mean(axis=1)
    hits = np.array([nondominated(values) for values in drawn]).reshape(resamples, len(rows))
    return rows.assign(on_front=nondominated(values), front_probability=hits.mean(axis=0))


def hypervolume_curve(
    trials: pd.DataFrame,
    minimize: Sequence[str] = (),
    maximize: Sequence[str] = (),
    reference: Sequence[float] | None = None,
) -> pd.DataFrame:
    """The hypervolume that the first k trials dominate, for every k (Zitzler and Thiele, 1999).

    Args:
        trials: one row a trial, of one sweep; without a value, one changes nothing.
        minimize: columns of which less is better.
        maximize: columns of which more is better.
        reference: the point that the volume is measured from, in the order minimize, maximize;
            None: the worst value of each column among the rows. Sweeps are compared from the same.

    Returns:
        A row a trial: `trial`; `hypervolume`, in the product of the columns' units; `share`, of the
        last. `attrs["reference"]` is the point.

    Raises:
        UserError: no column, an unknown one, fewer than 2 rows with every value, or a reference of
            another length.
    """
    caller = "hypervolume_curve"
    trials = trials.sort_values("trial")
    known, values = objectives(caller, trials, minimize, maximize)
    require_rows(caller, len(known), 2, "trials with every objective")
    sign = signs(minimize, maximize)
    if reference is not None and len(reference) != len(sign):
        raise UserError(
            f"{caller}: found a reference of {len(reference)} numbers, expected {len(sign)}"
        )
    point = values.max(axis=0) if reference is None else np.asarray(reference, float) * sign
    volumes = np.zeros(len(trials))
    front = np.empty((0, len(sign)))
    for place, value in zip(known, values, strict=True):
        if not (front <= value).all(axis=1).any():
            front = np.vstack([front, value])
            front = front[nondominated(front)]
            volumes[place] = moocore.hypervolume(front, ref=point)
    volumes = np.maximum.accumulate(volumes)  # a dominated trial adds nothing
    share = volumes / volumes[-1] if volumes[-1] > 0 else np.full(len(volumes), np.nan)
    curve = pd.DataFrame(
        {"trial": trials["trial"].to_numpy(), "hypervolume": volumes, "share": share}
    )
    curve.attrs["reference"] = dict(
        zip([*minimize, *maximize], (point * sign).tolist(), strict=True)
    )
    return curve


def knee(
    frame: pd.DataFrame, minimize: Sequence[str] = (), maximize: Sequence[str] = ()
) -> pd.Series:
    """The row at the knee of a front of two objectives: past it, more of one costs much of the
    other.

    Both objectives are scaled to [0, 1] between the ends of the front; the knee is the point of the
    front farthest from the line between the ends, on the side of the ideal point (Das, Structural
    Optimization 18, 1999). A column in logarithms moves it: it is of the scale it is looked at.

    Raises:
        UserError: not two objectives, an unknown column, fewer than 3 points on the front, or none
            beyond the line.
    """
    if len(minimize) + len(maximize) != 2:
        raise UserError(f"knee: found {len(minimize) + len(maximize)} objectives, expected 2")
    known, values = objectives("knee", frame, minimize, maximize)
    places = np.flatnonzero(nondominated(values))
    points = values[places]
    require_rows("knee", len(np.unique(points, axis=0)), 3, "points on the Pareto front")
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / (high - low)
    beyond = 1 - scaled.sum(axis=1)  # the ends are (0, 1) and (1, 0); the ideal is (0, 0)
    if beyond.max() <= 1e-12:
        raise UserError("knee: found no point of the front beyond the line between its ends")
    return frame.iloc[known[places[beyond.argmax()]]]


def smallest_within(
    frame: pd.DataFrame, size: str, quality: str = "top1", percent: float = 1.0
) -> pd.Series:
    """The row of least `size` whose `quality` is at most `percent` % of the best below the best.

    Relative: within 1% of 80% is 79.2%. It takes the means at their word; with seeds,
    `smallest_indistinguishable` does not.

    Raises:
        UserError: an unknown column, a percentage below 0 or above 100, or no row with both values.
    """
    caller = "smallest_within"
    if not 0 <= percent <= 100:
        raise UserError(f"{caller}: percent: found {percent}, expected 0 to 100")
    sizes, qualities = numbers(caller, frame, size), numbers(caller, frame, quality)
    known = np.flatnonzero(~np.isnan(sizes + qualities))
    require_rows(caller, len(known), 1, "rows with both values")
    good = known[qualities[known] >= qualities[known].max() * (1 - percent / 100)]
    return frame.iloc[good[np.lexsort((-qualities[good], sizes[good]))[0]]]


def smallest_indistinguishable(
    trials: pd.DataFrame, seeds: pd.DataFrame, size: str, quality: str = "top1"
) -> pd.Series:
    """The architecture of least `size` (of equal ones the best) that the trainings do not tell
    from the best.

    Its difference to the best has a 95% Welch interval over the seeds (`pairs.welch`) that holds 0.
    With few seeds that is said of many: see the interval. The best is chosen by the same numbers,
    and each architecture is compared without correction for their number.

    Raises:
        UserError: an unknown column, no row with both values, or one with a single training.
    """
    caller = "smallest_indistinguishable"
    sizes, qualities = numbers(caller, trials, size), numbers(caller, trials, quality)
    if quality not in SEEDED:
        raise UserError(f"{caller}: quality: found {quality}, expected {', '.join(SEEDED)}")
    known = np.flatnonzero(~np.isnan(sizes + qualities))
    rows = trials.iloc[known[np.lexsort((-qualities[known], sizes[known]))]]
    require_rows(caller, len(rows), 1, "architectures with both values")
    runs = _trainings(caller, rows, seeds, quality)
    best = runs[int(rows[quality].to_numpy(dtype=float).argmax())]
    same = [one is best or welch(best, one).low <= 0 for one in runs]
    return rows.iloc[same.index(True)]


def _trainings(
    caller: str, rows: pd.DataFrame, seeds: pd.DataFrame, name: str
) -> list[NDArray[np.float64]]:
    """The values of `name` of the trainings of each row, in the order of the rows."""
    keys = ["sweep", "arch_id"]
    require_columns(caller, rows, keys)
    require_columns(caller, seeds, [*keys, name])
    groups = dict(iter(largest_budget(seeds).dropna(subset=[name]).groupby(keys)[name]))
    found = []
    for key in rows[keys].itertuples(index=False, name=None):
        values = groups[key].to_numpy(dtype=float) if key in groups else np.empty(0)
        if len(values) < 2:
            raise UserError(
                f"{caller}: architecture {key[1]} of {key[0]}: found {len(values)} trainings with "
                f"{name}, expected at least 2"
            )
        found.append(values)
    return found
