"""What the tables say: the Pareto front, rank correlations, how early accuracy is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from .errors import UserError, nearest, shown


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
    columns = [*minimize, *maximize]
    if not columns:
        raise UserError("pareto_front: found no column, expected some to minimize or maximize")
    for name in columns:
        if name not in frame:
            raise UserError(
                f"pareto_front: no column {shown(name)}{nearest(name, map(str, frame.columns))}"
            )
    values = frame[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    sign = np.array([1.0] * len(minimize) + [-1.0] * len(maximize))
    return frame.iloc[known[nondominated(values[known] * sign)]]


def nondominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `values` (rows x objectives, all minimized, no NaN) no other row dominates;
    of equal rows all or none."""
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    return moocore.is_nondominated(values, keep_weakly=True)


def rank_correlation(
    x: NDArray[np.float64], y: NDArray[np.float64], resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float] | None:
    """Spearman's rank correlation and its 95% percentile bootstrap interval (Efron, 1979).

    Args:
        x: one number a row.
        y: the other.
        resamples: of the rows, with replacement.
        seed: of the resampling.

    Returns:
        The correlation and the ends of its interval; None below 4 rows, or where x or y is
        constant. Resamples in which one is constant are left out. Of a perfect order every
        resample is one too, and the interval is a point: say the number of rows beside it.
    """
    if len(x) < 4 or len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    low, high = np.nanpercentile(_spearman(x[drawn], y[drawn]), [2.5, 97.5])
    return float(_spearman(x, y)), float(low), float(high)


def early_ranking(history: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """How well accuracy after a few epochs ranks architectures: what pruning goes by, and costs.

    For each epoch: the validation accuracy of each architecture (mean over its seeds) against its
    final test accuracy. Only architectures that were trained to the end count.

    Args:
        history: the table `history` of a sweep, or of sweeps with the same epochs and data.
        trials: the table `trials` of the same.

    Returns:
        A row an epoch: `epoch`; `share` of the epochs; `architectures`; `spearman`, the rank
        correlation, with its 95% interval `ci_low`, `ci_high` (percentile bootstrap over
        architectures, 2,000 resamples, seed 0); `best_rank`, the rank at that epoch of the
        architecture that is best in the end (1: it leads already; more than a third of
        `architectures`: successive halving with factor 3 would have dropped it there).

    Raises:
        UserError: fewer than 4 architectures that were trained to the end.
    """
    final = trials[trials["state"] == "complete"].set_index(["sweep", "arch_id"])["top1"].dropna()
    if len(final) < 4:
        raise UserError(f"early_ranking: found {len(final)} complete architectures, expected >= 4")
    early = history.groupby(["sweep", "arch_id", "epoch"])["val_top1"].mean().unstack("epoch")
    early = early.loc[final.index]
    target = final.to_numpy(dtype=float)
    rows = []
    epochs = int(history["epoch"].max())
    for epoch in range(1, epochs + 1):
        known = early[epoch].to_numpy(dtype=float)
        spearman, low, high = rank_correlation(known, target) or (math.nan,) * 3
        rows.append(
            {
                "epoch": epoch,
                "share": epoch / epochs,
                "architectures": len(target),
                "spearman": spearman,
                "ci_low": low,
                "ci_high": high,
                "best_rank": int((known > known[target.argmax()]).sum()) + 1,
            }
        )
    return pd.DataFrame(rows)


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank correlation along the last axis; NaN where all values of one are equal."""
    x, y = (stats.rankdata(values, axis=-1) for values in (a, b))
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
