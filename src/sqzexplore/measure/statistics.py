"""What a series of timings says: when the warm-up is over, medians, ratios, and their intervals.

Everything here works on numbers alone. The intervals are distribution-free: between two order
statistics the median of the population lies with a probability that the binomial distribution
gives, whatever the timings' distribution (David and Nagaraja, Order Statistics, section 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

#: The relative half-width of the 95% interval of a median at which a measurement is good enough.
PRECISION = 0.01
#: Pairs that an interval needs: of fewer than 6 numbers the range covers the median in < 95%.
LEAST_ROUNDS = 6
_WINDOW, _LONG_WINDOW, _STABLE, _MOST_TOLERANCE = 5, 2, 0.02, 0.10
#: A pass that takes longer is a block of its own, ms.
LONG_MS = 20.0


@dataclass(frozen=True)
class Estimate:
    """A median or mean, and the ends of its 95% interval, NaN where there is none."""

    value: float
    low: float
    high: float

    @property
    def precision(self) -> float:
        """Half the width of the interval, relative to the value; NaN without an interval."""
        return (self.high - self.low) / 2 / self.value


def median(numbers: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The median with the narrowest symmetric interval of order statistics that covers it.

    The interval from the k-th smallest to the k-th largest of n independent numbers holds the
    population's median with probability 1 - 2 P(Binomial(n, 1/2) < k); k is the largest that
    keeps this at least `confidence`. Below n = 6 there is no such k at 95%.
    """
    ordered = np.sort(np.asarray(numbers, dtype=float))
    n = len(ordered)
    # The smallest k with P(B <= k) >= q, so that P(B < k) < q.
    at_most = special.bdtr(np.arange(n + 1), n, 0.5)
    k = int(np.searchsorted(at_most, (1 - confidence) / 2)) if n else 0
    if k < 1:
        return Estimate(float(np.median(ordered)) if n else math.nan, math.nan, math.nan)
    return Estimate(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k]))


def ratio(latencies: Sequence[float], others: Sequence[float]) -> Estimate:
    """The median over the rounds of `latencies` / `others`, which stand in the same rounds."""
    return median([a / b for a, b in zip(latencies, others, strict=True)])


def over_processes(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The geometric mean of one number a process, with Student's t interval of its logarithm.

    Processes differ by a factor (where memory lies, which clock), so that logarithms are nearer to
    normal; of the few there are, an interval between order statistics would need six at least.

    Args:
        values: positive, one a process; of a single one there is no interval.
        confidence: of the interval.
    """
    logs = np.log(np.asarray(values, dtype=float))
    mean, count = float(logs.mean()), len(logs)
    if count < 2:
        return Estimate(math.exp(mean), math.nan, math.nan)
    t = float(special.stdtrit(count - 1, (1 + confidence) / 2))
    half = t * float(logs.std(ddof=1)) / math.sqrt(count)
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def is_warm(latencies: Sequence[float]) -> bool:
    """Whether the median of the last five passes is within 2% of the five before; of passes that
    each last as long as a block of short ones does, of the last two."""
    if not latencies:
        return False
    window = _WINDOW if latencies[-1] < LONG_MS else _LONG_WINDOW
    if len(latencies) < 2 * window:
        return False
    last = float(np.median(latencies[-window:]))
    before = float(np.median(latencies[-2 * window : -window]))
    return abs(last / before - 1) <= _STABLE


def is_level(latencies: Sequence[float]) -> bool:
    """Whether passes show no trend: of two halves, the medians are within 2% of each other, or
    within two standard errors of that difference where the passes scatter by so much that 2% cannot
    be seen; but never beyond 10%."""
    half = len(latencies) // 2
    before, last = (np.asarray(part) for part in (latencies[:half], latencies[half:]))
    middle = float(np.median(last))
    # Of normal noise: 1.4826 MAD is its standard deviation, and a median's error 1.253 of a mean's.
    deviation = 1.4826 * float(np.median(np.abs(last - middle)))
    error = 1.253 * deviation * math.sqrt(2 / half) / middle
    tolerance = min(max(_STABLE, 2 * error), _MOST_TOLERANCE)
    return abs(middle / float(np.median(before)) - 1) <= tolerance


def is_enough(rounds: Sequence[float]) -> bool:
    """Whether the median of the rounds is known to `PRECISION`."""
    return len(rounds) >= LEAST_ROUNDS and median(rounds).precision <= PRECISION


def drift(values: Sequence[float]) -> float:
    """The range of `values` relative to their median."""
    return float((max(values) - min(values)) / np.median(values))


def is_flat(images_per_s: Sequence[float], gain: float = 0.02) -> bool:
    """Whether two doublings of the batch in a row brought less than `gain` over the best before."""
    if len(images_per_s) < 3:
        return False
    return max(images_per_s[-2:]) < (1 + gain) * max(images_per_s[:-2])
