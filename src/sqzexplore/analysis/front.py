"""Pareto fronts: which architectures are on one, how surely, how good it is, what to choose."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError, shown
from ..network.architecture import FIELDS
from ..network.columns import architecture_at
from ..network.frames import columns_of_frame
from ..network.sharing import shares_initial_weights
from .accuracy import SEEDED, Trainings, answers_variance, difference, trainings
from .validation import numbers, objectives, require_alike, require_columns, require_rows, signs
from .verdicts import ALPHA


def pareto_front(
    frame: pd.DataFrame,
    minimize: Sequence[str] = (),
    maximize: Sequence[str] = (),
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """The rows that no other row dominates, in their order.

    A row dominates another if it is as good in every column and better in one. Of equal rows all
    are kept; rows with a missing value are never on the front. Only like is compared with like:
    accuracies on one data set at one budget, speeds on one device at one setting.

    Args:
        frame: any table, such as `load_results` gives.
        minimize: columns of which less is better.
        maximize: columns of which more is better.
        by: columns of which each combination of values has a front of its own; what these do not
            keep apart is then compared as the caller wants it.

    Raises:
        UserError: no column, one that the table does not have, or, without `by`, rows that cannot
            be compared; the message names the column in which they differ.

    Example:
        >>> table = pd.DataFrame({"params": [1, 2, 3], "top1": [50.0, 49.0, 60.0]})
        >>> pareto_front(table, minimize=["params"], maximize=["top1"])["params"].tolist()
        [1, 3]
    """
    caller = "pareto_front"
    if isinstance(by, str):
        raise UserError(f"{caller}: by: found {shown(by)}, expected a list of columns")
    require_columns(caller, frame, by)
    known, values = objectives(caller, frame, minimize, maximize, alike=not by)
    if not by:
        return frame.iloc[known[nondominated(values)]]
    keep = np.zeros(len(known), dtype=bool)
    groups = frame.iloc[known].groupby(list(by), dropna=False, observed=True).ngroup()
    for group in range(int(groups.max()) + 1 if len(groups) else 0):
        positions = np.flatnonzero(groups.to_numpy() == group)
        keep[positions] = nondominated(values[positions])
    return frame.iloc[known[keep]]


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
    images: pd.DataFrame | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How surely each architecture is on the Pareto front, and at its knee, given its trainings.

    In each resample the mean accuracies are drawn anew (`draw_means`): from Student's t over the
    seeds, and from the images where it is known which were right. What has no rows in `seeds`
    (costs, throughput) stays as it is.

    Args:
        trials: one row an architecture; those without a value are left out.
        seeds: one row a training, of the same sweeps.
        minimize: columns of which less is better.
        maximize: columns of which more is better.
        images: the table `images` of the same sweeps; None: the probability speaks of the
            randomness of training alone.
        resamples: a probability's standard error is 0.5 / sqrt of it at most.
        seed: of the resampling.

    Returns:
        The rows of `trials` that have every objective, with the columns `on_front` (as measured),
        `front_probability` and, of two objectives, `knee_probability` (on the scales that
        `log_scale` gives).

    Raises:
        UserError: no column, an unknown one, no row with every objective, or an architecture with a
            single training.
    """
    caller = "front_probability"
    known, values = objectives(caller, trials, minimize, maximize)
    require_rows(caller, len(known), 1, "architectures with every objective")
    rows = trials.iloc[known]
    names = [*minimize, *maximize]
    sign = signs(minimize, maximize)
    generator = np.random.default_rng(seed)
    drawn = np.repeat(values[None], resamples, axis=0)
    for column, name in enumerate(names):
        if name in SEEDED:
            runs = trainings_of(caller, rows, seeds, images, name)
            drawn[..., column] = sign[column] * draw_means(
                runs, sharing_groups(rows), resamples, generator
            )
    fronts = np.array([nondominated(each) for each in drawn]).reshape(resamples, len(rows))
    found = rows.assign(on_front=nondominated(values), front_probability=fronts.mean(axis=0))
    if len(names) == 2:
        logs = [log_scale(rows[name].to_numpy(dtype=float)) for name in names]
        knees = [_knee(_scaled(each, sign, logs)) for each in drawn]
        counts = np.bincount(
            [position for position in knees if position is not None], minlength=len(rows)
        )
        found["knee_probability"] = counts / resamples
    return found


def draw_means(
    runs: Sequence[Trainings],
    groups: Sequence[int],
    resamples: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Mean accuracies of architectures as other seeds and images might have given them.

    Seeds: Student's t about each mean; one draw for the architectures of a group, whose seeds are
    compared one by one. Images: a normal draw with the covariance of the architectures' answers,
    image by image, less what of single answers the seeds already hold.

    Args:
        runs: the trainings of A architectures.
        groups: of each, the number of the group of those that share initial weights.
        resamples: how many (R).
        generator: of the draws.

    Returns:
        R x A means, %.
    """
    drawn = np.tile([one.mean for one in runs], (resamples, 1))
    for group in set(groups):
        members = [position for position, one in enumerate(groups) if one == group]
        common = sorted(set.intersection(*(set(runs[position].seeds) for position in members)))
        if len(common) < 2 or any(len(runs[p].seeds) != len(common) for p in members):
            shifts = [
                (position, _student(runs[position].values[:, None], resamples, generator))
                for position in members
            ]
        else:
            values = np.stack([runs[position].of(common).values for position in members], axis=1)
            shifted = _student(values, resamples, generator)
            shifts = [(p, shifted[:, [column]]) for column, p in enumerate(members)]
        for position, shift in shifts:
            drawn[:, position] += shift[:, 0]
    rights = [one.right for one in runs if one.right is not None]
    if len(rights) == len(runs) and len({right.shape[1] for right in rights}) == 1:
        answers = np.stack([right.mean(axis=0) for right in rights])  # A x N
        covariance = np.atleast_2d(np.cov(answers)) / answers.shape[1]
        covariance -= np.diag([answers_variance(right) for right in rights])
        weights, vectors = np.linalg.eigh(1e4 * covariance)
        root = vectors * np.sqrt(np.clip(weights, 0, None))
        drawn += generator.normal(size=(resamples, len(runs))) @ root.T
    return drawn


def _student(
    values: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """R draws of Student's t with the covariance of the means of S seeds x A architectures."""
    seeds = len(values)
    deviations = (values - values.mean(axis=0)) / np.sqrt(seeds * (seeds - 1))
    normal = generator.normal(size=(resamples, seeds))
    scale = np.sqrt((seeds - 1) / generator.chisquare(seeds - 1, size=(resamples, 1)))
    return (normal @ deviations) * scale


def sharing_groups(rows: pd.DataFrame) -> list[int]:
    """The number, for each architecture of a table, of the group of those to which one seed gives
    the same initial weights (`network.sharing`); each alone where the table lacks the fields."""
    if not {"sweep", *FIELDS} <= set(rows):
        return list(range(len(rows)))
    columns = columns_of_frame(rows)
    sweeps = rows["sweep"].tolist()
    networks = [architecture_at(columns, position) for position in range(len(rows))]
    heads: list[int] = []
    for position, network in enumerate(networks):
        before = [head for head in dict.fromkeys(heads) if sweeps[head] == sweeps[position]]
        same = (h for h in before if shares_initial_weights(networks[h], network))
        heads.append(next(same, position))
    return heads


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
    require_columns(caller, trials, ["trial"])
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
    for position, value in zip(known, values, strict=True):
        if not (front <= value).all(axis=1).any():
            front = np.vstack([front, value])
            front = front[nondominated(front)]
            volumes[position] = moocore.hypervolume(front, ref=point)
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
    frame: pd.DataFrame,
    minimize: Sequence[str] = (),
    maximize: Sequence[str] = (),
    log: Sequence[str] | None = None,
) -> pd.Series:
    """The row at the knee of a front of two objectives: past it, more of one costs much of the
    other.

    Both objectives are scaled to [0, 1] between the ends of the front; the knee is the point of the
    front farthest from the line between the ends, on the side of the ideal point (Das, Structural
    Optimization 18, 1999).

    Args:
        frame: one row an architecture.
        minimize: columns of which less is better.
        maximize: columns of which more is better.
        log: columns that are taken in logarithms; None: those that figures draw so (`log_scale`).

    Raises:
        UserError: not two objectives, an unknown column, fewer than 3 points on the front, or none
            beyond the line.
    """
    names = [*minimize, *maximize]
    if len(names) != 2:
        raise UserError(f"knee: found {len(names)} objectives, expected 2")
    require_columns("knee", frame, log or ())
    known, values = objectives("knee", frame, minimize, maximize)
    positions = np.flatnonzero(nondominated(values))
    require_rows("knee", len(np.unique(values[positions], axis=0)), 3, "points on the Pareto front")
    sign = signs(minimize, maximize)
    logs = [
        log_scale(column * s) if log is None else name in log
        for name, column, s in zip(names, values.T, sign, strict=True)
    ]
    position = _knee(_scaled(values, sign, logs))
    if position is None:
        raise UserError("knee: found no point of the front beyond the line between its ends")
    return frame.iloc[known[position]]


def log_scale(values: NDArray[np.float64]) -> bool:
    """Whether an axis is drawn in logarithms: it spans more than a decade of positive numbers."""
    known = values[~np.isnan(values)]
    return bool(len(known) and known.min() > 0 and known.max() > 10 * known.min())


def _scaled(
    values: NDArray[np.float64], sign: NDArray[np.float64], logs: Sequence[bool]
) -> NDArray[np.float64]:
    """Objectives, of which less is better, with some in logarithms."""
    scaled = values.copy()
    for column, log in enumerate(logs):
        if log:
            positive = values[:, column] * sign[column]
            scaled[:, column] = sign[column] * np.log(np.maximum(positive, np.finfo(float).tiny))
    return scaled


def _knee(values: NDArray[np.float64]) -> int | None:
    """The row at the knee of two objectives of which less is better; None if there is none."""
    positions = np.flatnonzero(nondominated(values))
    points = values[positions]
    low, high = points.min(axis=0), points.max(axis=0)
    if not (high > low).all():
        return None
    beyond = 1 - ((points - low) / (high - low)).sum(axis=1)  # ends (0, 1), (1, 0); ideal (0, 0)
    return int(positions[beyond.argmax()]) if beyond.max() > 1e-12 else None


def smallest_within(
    frame: pd.DataFrame, size: str, quality: str = "top1", percent: float = 1.0
) -> pd.Series:
    """The row of least `size` whose `quality` is at most `percent` % of the best below the best.

    Relative: within 1% of 80% is 79.2%. It takes the means at their word; with seeds,
    `smallest_not_worse` does not.

    Raises:
        UserError: an unknown column, a percentage below 0 or above 100, or no row with both values.
    """
    caller = "smallest_within"
    if not 0 <= percent <= 100:
        raise UserError(f"{caller}: percent: found {percent}, expected 0 to 100")
    sizes, qualities = numbers(caller, frame, size), numbers(caller, frame, quality)
    known = np.flatnonzero(~np.isnan(sizes + qualities))
    require_alike(caller, frame.iloc[known], [size, quality])
    require_rows(caller, len(known), 1, "rows with both values")
    good = known[qualities[known] >= qualities[known].max() * (1 - percent / 100)]
    return frame.iloc[good[np.lexsort((-qualities[good], sizes[good]))[0]]]


def smallest_not_worse(
    trials: pd.DataFrame,
    seeds: pd.DataFrame,
    size: str,
    quality: str = "top1",
    points: float = 1.0,
    images: pd.DataFrame | None = None,
) -> pd.Series:
    """The architecture of least `size` (of equal ones the best) that is shown to be at most
    `points` points worse than the best.

    Non-inferiority to each other one, as it is not known which is the best: every other's lead over
    it is below the margin, by a one-sided test over seeds and images (an intersection-union test:
    Berger, Technometrics 24, 1982), at 5% over all the architectures among which is chosen
    (`not_worse`). Few seeds make the choice larger, never smaller.

    Args:
        trials: one row an architecture.
        seeds: one row a training, of the same sweeps.
        size: a column of which less is better.
        quality: `top1`, `val_top1` or `top5`.
        points: the margin, in points of accuracy.
        images: the table `images` of the same; None: the bound speaks of seeds alone.

    Raises:
        UserError: an unknown column, a margin of 0 or less, no row with both values, one with a
            single training, or nothing that is shown.
    """
    caller = "smallest_not_worse"
    sizes, qualities = numbers(caller, trials, size), numbers(caller, trials, quality)
    if quality not in SEEDED:
        raise UserError(f"{caller}: quality: found {quality}, expected {', '.join(SEEDED)}")
    if not points > 0:
        raise UserError(f"{caller}: points: found {points}, expected above 0")
    known = np.flatnonzero(~np.isnan(sizes + qualities))
    rows = trials.iloc[known[np.lexsort((-qualities[known], sizes[known]))]]
    require_alike(caller, rows, [size, quality])
    require_rows(caller, len(rows), 1, "architectures with both values")
    runs = trainings_of(caller, rows, seeds, images, quality)
    groups = sharing_groups(rows)
    shown_so = np.flatnonzero(not_worse(runs, groups, points) < ALPHA)
    if len(shown_so):
        return rows.iloc[shown_so[0]]
    raise UserError(
        f"{caller}: of none of {len(rows)} architectures it is shown that it is at most {points:g} "
        f"point{'s' * (points != 1)} worse than each other; more seeds or a wider margin might "
        "show it"
    )


def not_worse(
    runs: Sequence[Trainings], groups: Sequence[int], points: float
) -> NDArray[np.float64]:
    """Of each architecture, the p-value against another being `points` or more better.

    Corrected for their number by Holm's procedure. Of the best it is never wrong to say that it is
    not worse, which leaves one test less (Shaffer, JASA 81, 1986). What is above `ALPHA` may be
    even larger: no more comparisons are made than show it.

    Args:
        runs: the trainings of A architectures.
        groups: as `draw_means` takes them.
        points: the margin, in points of accuracy.

    Returns:
        A p-values.
    """
    best_first = sorted(range(len(runs)), key=lambda other: -runs[other].mean)
    alone = np.zeros(len(runs))
    for position, one in enumerate(runs):
        for other in best_first:
            if other != position and not alone[position] > ALPHA:
                lead = difference(runs[other], one, groups[other] == groups[position])
                alone[position] = np.maximum(alone[position], lead.p_below(points))
    order = np.argsort(alone, kind="stable")
    tests = np.minimum(np.arange(len(runs), 0, -1), len(runs) - 1)
    corrected = np.empty(len(runs))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(alone[order] * tests))
    return corrected


def trainings_of(
    caller: str,
    rows: pd.DataFrame,
    seeds: pd.DataFrame,
    images: pd.DataFrame | None,
    name: str,
) -> list[Trainings]:
    """The trainings of each row of `trials`, in their order.

    Raises:
        UserError: a row with fewer than 2, or tables without the columns that name them.
    """
    require_columns(caller, rows, ["sweep", "trial"])
    groups = trainings(seeds, images, name)
    found = []
    for sweep, trial in rows[["sweep", "trial"]].itertuples(index=False, name=None):
        runs = groups.get((sweep, int(trial)))
        if runs is None or len(runs.seeds) < 2:
            count = 0 if runs is None else len(runs.seeds)
            raise UserError(
                f"{caller}: trial {trial} of {sweep}: found {count} trainings with {name}, "
                "expected at least 2"
            )
        found.append(runs)
    return found
