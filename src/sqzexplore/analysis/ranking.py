"""Rank correlations, and how early the ranking of architectures is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .validation import largest_budget, numbers, require_rows


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


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of two columns, its 95% interval, and over how many rows."""

    spearman: float
    low: float
    high: float
    rows: int


def correlation(frame: pd.DataFrame, x: str, y: str) -> Correlation:
    """The rank correlation of any two columns over the rows that have both (`rank_correlation`).

    Raises:
        UserError: an unknown column, fewer than 4 rows, or a column with one value only.
    """
    both = np.stack([numbers("correlation", frame, name) for name in (x, y)])
    both = both[:, ~np.isnan(both).any(axis=0)]
    require_rows("correlation", both.shape[1], 4, "rows with both values")
    found = rank_correlation(*both)
    if found is None:
        raise UserError(f"correlation: {x} and {y}: found one value only, expected several")
    return Correlation(*found, both.shape[1])


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
    history = largest_budget(history)
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


def budget_ranking(seeds: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Whether architectures rank alike at each budget and at the largest (Kendall's tau-b).

    For each budget but the largest: the mean validation accuracy over the seeds of each
    architecture that has one at both, against that at the largest.

    Args:
        seeds: the table `seeds` of a sweep with several numbers of epochs.
        resamples: of the architectures, with replacement.
        seed: of the resampling.

    Returns:
        A row a budget: `epochs`, `against` (the largest), `architectures`, `kendall`, and its 95%
        percentile bootstrap interval `ci_low`, `ci_high`, without the resamples in which one side
        is constant.

    Raises:
        UserError: one budget only, or fewer than 4 architectures with both.
    """
    means = seeds.groupby(["sweep", "arch_id", "epochs"])["val_top1"].mean().unstack("epochs")
    budgets: list[Any] = sorted(means)
    if len(budgets) < 2:
        raise UserError(f"budget_ranking: found {len(budgets)} numbers of epochs, expected several")
    rng, rows = np.random.default_rng(seed), []
    for budget in budgets[:-1]:
        both = means[[budget, budgets[-1]]].dropna().to_numpy(dtype=float)
        require_rows("budget_ranking", len(both), 4, "architectures with both budgets")
        drawn = both[rng.integers(0, len(both), (resamples, len(both)))]
        taus = [_kendall(*each.T) for each in drawn]
        low, high = np.nanpercentile(taus, [2.5, 97.5])
        rows.append(
            {
                "epochs": int(budget),
                "against": int(budgets[-1]),
                "architectures": len(both),
                "kendall": _kendall(*both.T),
                "ci_low": float(low),
                "ci_high": float(high),
            }
        )
    return pd.DataFrame(rows)


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank correlation along the last axis; NaN where all values of one are equal."""
    from scipy import stats

    x, y = (stats.rankdata(values, axis=-1) for values in (a, b))
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))


def _kendall(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kendall's tau-b (Biometrika 33, 1945); NaN where all values of one are equal."""
    x, y = (np.sign(np.subtract.outer(values, values)) for values in (a, b))
    scale = math.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum()) / scale if scale else math.nan
