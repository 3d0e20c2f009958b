"""Rank correlations, and how early the ranking of architectures is known."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .validation import largest_budget, numbers, require_alike, require_columns, require_rows

#: Up to so many rows the p-value is exact, over all orders.
_MOST_PERMUTED = 8


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of two columns.

    `low`, `high`: its 95% interval, missing where the order is perfect: there every resample is
    perfect too, and the bootstrap has no width to give. `p_value`: two-sided, of no association.
    `rows`: how many there were.
    """

    spearman: float
    low: float
    high: float
    p_value: float
    rows: int

    def __str__(self) -> str:
        """In words: the correlation, its interval or p-value, the number of rows."""
        known = not math.isnan(self.low)
        p = f"p = {self.p_value:.2g}" if self.p_value >= 0.001 else "p < 0.001"
        sure = f"{self.low:.2f} to {self.high:.2f}" if known else p
        return f"{self.spearman:.2f} ({sure}), n = {self.rows}"


def rank_correlation(
    x: NDArray[np.float64], y: NDArray[np.float64], resamples: int = 2000, seed: int = 0
) -> Correlation | None:
    """Spearman's rank correlation, its 95% percentile bootstrap interval (Efron, 1979), and the
    p-value of no association: over all orders of up to 8 rows or where the order is perfect, of
    Student's t elsewhere.

    Args:
        x: one number a row.
        y: the other.
        resamples: of the rows, with replacement; those in which one side is constant are left out.
        seed: of the resampling.

    Returns:
        None below 4 rows, or where x or y is constant.
    """
    if len(x) < 4 or len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    low, high = np.nanpercentile(_spearman(x[drawn], y[drawn]), [2.5, 97.5])
    found = float(_spearman(x, y))
    if abs(found) > 1 - 1e-12:
        low = high = math.nan
    return Correlation(found, float(low), float(high), _p_of_no_association(x, y, found), len(x))


def _p_of_no_association(x: NDArray[np.float64], y: NDArray[np.float64], spearman: float) -> float:
    """Two-sided: the share of all orders of y that are as far from 0, or Student's t."""
    if len(x) <= _MOST_PERMUTED:
        orders = np.array(list(itertools.permutations(range(len(y)))))
        return float((np.abs(_spearman(x, y[orders])) >= abs(spearman) - 1e-12).mean())
    from scipy import special

    freedom = len(x) - 2
    if abs(spearman) > 1 - 1e-12:
        # Those that only change places within ties, and as many mirrored where the ties allow it.
        ties = np.unique(x, return_counts=True)[1]
        sides = 2 if (ties == ties[::-1]).all() else 1
        alike = special.gammaln(ties + 1).sum() - special.gammaln(len(x) + 1)
        return sides * float(np.exp(alike))
    t = spearman * math.sqrt(freedom / (1 - spearman**2))
    return 2 * float(special.stdtr(freedom, -abs(t)))


def correlation(frame: pd.DataFrame, x: str, y: str) -> Correlation:
    """The rank correlation of any two columns over the distinct networks that have both.

    Rows that are one network (`net_id`), measured once or again, count once, with their mean.

    Raises:
        UserError: an unknown column, fewer than 4 networks, a column with one value only, or rows
            that cannot be compared.
    """
    caller = "correlation"
    both = pd.DataFrame({name: numbers(caller, frame, name) for name in (x, y)}, frame.index)
    known = both.notna().all(axis=1)
    require_alike(caller, frame[known.to_numpy()], [x, y])
    both = distinct(both[known.to_numpy()], frame[known.to_numpy()])
    require_rows(caller, len(both), 4, "networks with both values")
    found = rank_correlation(both[x].to_numpy(), both[y].to_numpy())
    if found is None:
        raise UserError(f"{caller}: {x} and {y}: found one value only, expected several")
    return found


def distinct(values: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `values`, numbers of the rows of `frame`, a row a network: their mean where
    several are one by `net_id`, or by `arch_id` where a table has no other name; as they are where
    the table does not say."""
    for name in ("net_id", "arch_id"):
        if name in frame and frame[name].notna().all():
            return values.groupby(frame[name].to_numpy(dtype=str), sort=False).mean()
    return values


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
        UserError: a column is missing, fewer than 4 architectures that were trained to the end and
            have a history, or some that cannot be compared (other data, another budget).
    """
    require_columns("early_ranking", trials, ["sweep", "arch_id", "state", "top1"])
    require_columns("early_ranking", history, ["sweep", "arch_id", "epoch", "val_top1"])
    complete = trials[trials["state"] == "complete"].dropna(subset=["top1"])
    require_alike("early_ranking", complete, ["top1"])
    history = largest_budget(history)
    early = history.groupby(["sweep", "arch_id", "epoch"])["val_top1"].mean().unstack("epoch")
    final = complete.set_index(["sweep", "arch_id"])["top1"]
    final = final[final.index.isin(early.index)]
    require_rows("early_ranking", len(final), 4, "complete architectures with a history")
    early = early.loc[final.index]
    target = final.to_numpy(dtype=float)
    rows = []
    epochs = int(history["epoch"].max())
    for epoch in range(1, epochs + 1):
        known = early[epoch].to_numpy(dtype=float)
        found = rank_correlation(known, target)
        spearman, low, high = (found.spearman, found.low, found.high) if found else (math.nan,) * 3
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
        is constant; missing where the order is perfect, since there every resample says so.

    Raises:
        UserError: a column is missing, one budget only, or fewer than 4 architectures with both.
    """
    require_columns("budget_ranking", seeds, ["sweep", "arch_id", "epochs", "val_top1"])
    means = seeds.groupby(["sweep", "arch_id", "epochs"])["val_top1"].mean().unstack("epochs")
    budgets: list[Any] = sorted(means)
    if len(budgets) < 2:
        raise UserError(f"budget_ranking: found {len(budgets)} numbers of epochs, expected several")
    rng, rows = np.random.default_rng(seed), []
    for budget in budgets[:-1]:
        both = means[[budget, budgets[-1]]].dropna().to_numpy(dtype=float)
        require_rows("budget_ranking", len(both), 4, "architectures with both budgets")
        tau, low, high = bootstrapped_kendall(both, resamples, rng)
        rows.append(
            {
                "epochs": int(budget),
                "against": int(budgets[-1]),
                "architectures": len(both),
                "kendall": tau,
                "ci_low": low,
                "ci_high": high,
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


def kendall(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kendall's tau-b (Biometrika 33, 1945); NaN where all values of one are equal."""
    return float(resampled_kendall(a, b, np.arange(len(a))[None])[0])


def bootstrapped_kendall(
    both: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Kendall's tau-b of two columns, with its 95% percentile bootstrap interval over the rows,
    without the resamples in which one side is constant; missing where one side is, and where the
    order is perfect: there every resample is perfect too, and the bootstrap has no width to give.
    """
    first, second = both.T
    drawn = generator.integers(0, len(both), (resamples, len(both)))
    tau = kendall(first, second)
    if not abs(tau) < 1 - 1e-12:
        return tau, math.nan, math.nan
    low, high = np.nanpercentile(resampled_kendall(first, second, drawn), [2.5, 97.5])
    return tau, float(low), float(high)


def resampled_kendall(
    a: NDArray[np.float64], b: NDArray[np.float64], samples: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The same in each sample: which rows are in it (samples x rows), some of them more than once.

    Each pair of rows counts as often as both are drawn, so that pairs are compared once.
    """
    times = np.array([np.bincount(sample, minlength=len(a)) for sample in samples], float)
    x, y = (np.sign(np.subtract.outer(values, values)) for values in (a, b))

    def over_pairs(each: NDArray[np.float64]) -> NDArray[np.float64]:
        return ((times @ each) * times).sum(axis=1)

    scale = np.sqrt(over_pairs(np.abs(x)) * over_pairs(np.abs(y)))
    return np.divide(over_pairs(x * y), scale, out=np.full(len(times), np.nan), where=scale > 0)
