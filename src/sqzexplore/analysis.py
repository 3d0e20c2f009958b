"""What the tables say: the Pareto front, rank correlations."""

from __future__ import annotations

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
    varied = (np.ptp(x[drawn], axis=1) > 0) & (np.ptp(y[drawn], axis=1) > 0)
    found = [float(stats.spearmanr(x[rows], y[rows]).statistic) for rows in drawn[varied]]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(stats.spearmanr(x, y).statistic), float(low), float(high)
