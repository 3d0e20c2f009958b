"""Claims about accuracies, each with its direction and margin, and the verdict on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .accuracy import Estimate

Expectation = Literal["higher", "lower", "same"]
#: The level of a verdict: how often a claim that is false is said to hold, and one that is true to
#: fail.
ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """What the trainings say of a claim.

    Args:
        verdict: `holds`, `fails`, or `undecided`.
        p_value: of the decided side, the smaller one, before the correction for many claims.
        p_holm: after it.
        detectable: points beyond the margin at which this design decides with probability 80%; of
            `same` the least margin within which equal accuracies would be seen.
    """

    verdict: Literal["holds", "fails", "undecided"]
    p_value: float
    p_holm: float
    detectable: float


def verdicts(claims: Sequence[tuple[Estimate, Expectation, float]]) -> list[Verdict]:
    """The verdicts on a family of claims, those of one data set.

    `higher` by m: the difference is above m, by a one-sided test of Student's t; it fails where the
    opposite, that it is not above, is what the test shows. `lower` is its mirror. `same` within m:
    both that it is above -m and that it is below m (two one-sided tests: Schuirmann, Journal of
    Pharmacokinetics and Biopharmaceutics 15, 1987); it fails where the difference is beyond either
    end. Of the two statements that a claim can end in one is true, so that each is tested at 5%;
    over the family by Holm's correction (Scandinavian Journal of Statistics 6, 1979).

    Args:
        claims: the difference, second less first; what is expected of it; the margin m, points.
    """
    pairs = np.array([_p_values(*claim) for claim in claims]).reshape(len(claims), 2)
    least = pairs.min(axis=1)
    corrected = holm(least)
    found = []
    for (estimate, expect, _), pair, p, p_holm in zip(claims, pairs, least, corrected, strict=True):
        decided: Literal["holds", "fails"] = "holds" if pair[0] <= pair[1] else "fails"
        verdict = decided if p_holm < ALPHA else "undecided"
        # Equal accuracies are seen as such by two tests: each needs power 90% for 80% of both.
        power = 0.9 if expect == "same" else 0.8
        see = estimate.detectable(1 - ALPHA, power)
        found.append(Verdict(verdict, float(p), float(p_holm), see))
    return found


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down correction; what is missing stays so, and counts for no test."""
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return corrected


def _p_values(estimate: Estimate, expect: Expectation, margin: float) -> tuple[float, float]:
    """The p-values against the claim being false, and against its being true."""
    above, below = estimate.p_above, estimate.p_below
    if expect == "higher":
        return above(margin), below(margin)
    if expect == "lower":
        return below(-margin), above(-margin)
    beyond = 2 * min(above(margin), below(-margin))
    return max(above(-margin), below(margin)), min(1.0, beyond)
