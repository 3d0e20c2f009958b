"""Populations of architectures instead of single winners: their distributions, compared.

After Radosavovic et al., On Network Design Spaces for Visual Recognition (ICCV 2019): a design
space is judged by the distribution of a quality over architectures drawn from it at random.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ..errors import UserError
from .validation import numbers, require_rows


def edf(values: Iterable[float], confidence: float = 0.95) -> pd.DataFrame:
    """The empirical distribution function of a population, with its simultaneous band.

    The band is that of Kolmogorov's statistic: of architectures drawn at random, the whole true
    distribution lies in it with this confidence, exactly where that is continuous and at least
    otherwise. Dvoretzky, Kiefer and Wolfowitz's inequality with Massart's constant (Annals of
    Probability 18, 1990) bounds it from outside.

    Args:
        values: one number an architecture; missing ones are left out.
        confidence: of the band, in (0, 1).

    Returns:
        A row a distinct value, ascending: `value`; `edf`, the share at or below it; `low`, `high`.

    Raises:
        UserError: fewer than 2 values, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise UserError(f"edf: confidence: found {confidence}, expected between 0 and 1")
    known = _known("edf", values)
    share = stats.ecdf(known).cdf
    half = _half_width(confidence, len(known))
    return pd.DataFrame(
        {
            "value": share.quantiles,
            "edf": share.probabilities,
            "low": np.clip(share.probabilities - half, 0, 1),
            "high": np.clip(share.probabilities + half, 0, 1),
        }
    )


@dataclass(frozen=True)
class Comparison:
    """Two populations: their sizes, and what two tests say.

    `superiority` is the probability that one drawn from the first is greater than one from the
    second, ties counted half; `mann_whitney_p` is two-sided, of 1/2. `ks_distance` is the largest
    distance between the distributions; `ks_p` is of the same distribution.
    """

    first: int
    second: int
    superiority: float
    mann_whitney_p: float
    ks_distance: float
    ks_p: float


def compare_populations(first: Iterable[float], second: Iterable[float]) -> Comparison:
    """Mann and Whitney's test, and Kolmogorov and Smirnov's, of two populations (scipy).

    Raises:
        UserError: a population of fewer than 2 values.
    """
    a, b = (_known("compare_populations", values) for values in (first, second))
    ranks, distance = stats.mannwhitneyu(a, b), stats.ks_2samp(a, b)
    return Comparison(
        first=len(a),
        second=len(b),
        superiority=float(ranks.statistic / (len(a) * len(b))),
        mann_whitney_p=float(ranks.pvalue),
        ks_distance=float(distance.statistic),
        ks_p=float(distance.pvalue),
    )


@lru_cache(maxsize=64)
def _half_width(confidence: float, count: int) -> float:
    """A quantile of Kolmogorov's statistic, which takes a search."""
    return float(stats.kstwo.ppf(confidence, count))


def _known(caller: str, values: Iterable[float]) -> NDArray[np.float64]:
    frame = pd.DataFrame({"value": pd.Series(list(values), dtype="Float64")})
    known = numbers(caller, frame, "value")
    known = known[~np.isnan(known)]
    require_rows(caller, len(known), 2, "values")
    return known
