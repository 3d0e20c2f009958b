"""Which values of each metaparameter hold the best: by the bootstrap of the designers of pycls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..errors import UserError
from .effects import with_values
from .validation import require_alike, require_rows, varying

#: Fewer distinct networks say nothing of a range.
_LEAST = 10


def best_ranges(
    trials: pd.DataFrame,
    column: str,
    maximize: bool = True,
    share: float = 0.25,
    resamples: int = 10_000,
    least: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """The range of each metaparameter that likely holds the best architecture: an empirical
    bootstrap (Radosavovic et al., ICCV 2019 and CVPR 2020, arXiv:2003.13678).

    Again and again a share of the architectures is drawn with replacement and its best one taken.
    Of a number, the range is that of the middle 95% of these; of anything else, the values that at
    least a share of these have.

    Args:
        trials: one row an architecture, alike in all that accuracy depends on; those without a
            value are left out. Of a search, which favours some values, it says what that found.
        column: what is best; choose by `val_top1`, not by the test's `top1`.
        maximize: whether more of it is better.
        share: of the architectures, in each draw.
        resamples: how many draws.
        least: of all draws, the share that keeps a value that is no number.
        seed: of the draws.

    Returns:
        A row a metaparameter that varies: `axis`; of a number `low`, `high`, and of those tried
        `tried_low`, `tried_high`; `values`, `share_of`: the values kept, the most frequent first,
        and how often each held the best; `architectures`: how many there were.

    Raises:
        UserError: an unknown column, rows that cannot be compared, or fewer than 10 architectures.
    """
    if not 0 < share <= 1 or resamples < 1:
        raise UserError(f"best_ranges: found share {share:g} and {resamples} resamples")
    rows = with_values("best_ranges", trials, column, _LEAST)
    require_alike("best_ranges", rows, [column])
    axes = varying(rows)
    require_rows("best_ranges", len(axes), 1, "metaparameters that vary")
    value = rows[column].to_numpy(dtype=float) * (1.0 if maximize else -1.0)
    count = max(1, round(share * len(rows)))
    drawn = np.random.default_rng(seed).integers(0, len(rows), (resamples, count))
    best = rows.iloc[drawn[np.arange(resamples), value[drawn].argmax(axis=1)]]
    return pd.DataFrame([_range(axis, rows[axis], best[axis], least) for axis in axes]).assign(
        architectures=len(rows)
    )


def _range(axis: str, tried: pd.Series, best: pd.Series, least: float) -> dict[str, Any]:
    shares = best.value_counts(normalize=True)
    found: dict[str, Any] = {"axis": axis}
    if pd.api.types.is_numeric_dtype(tried) and not pd.api.types.is_bool_dtype(tried):
        # Ends that were tried themselves: no value between two.
        ends = np.quantile(best.to_numpy(dtype=float), [0.025, 0.975], method="closest_observation")
        found |= {"tried_low": float(tried.min()), "tried_high": float(tried.max())}
        found |= {"low": float(ends[0]), "high": float(ends[1])}
        kept = shares[(shares.index >= ends[0]) & (shares.index <= ends[1])]
    else:
        kept = shares[shares >= least]
    return found | {"values": tuple(kept.index), "share_of": tuple(map(float, kept))}
