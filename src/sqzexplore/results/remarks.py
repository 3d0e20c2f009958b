"""What must be said beside accuracies: that networks were still learning, that some died, whether
another budget would rank them otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..analysis.ranking import budget_ranking
from ..errors import UserError


def training_remarks(trials: pd.DataFrame, seeds: pd.DataFrame | None) -> list[str]:
    """A sentence each; none where there is nothing to say.

    Args:
        trials: rows of sweeps with the same budgets.
        seeds: the table `seeds` of the same, of all budgets; None if there is none.
    """
    return [*still_learning(trials), *dead(trials), *_rankings(seeds)]


def still_learning(trials: pd.DataFrame) -> list[str]:
    """Of how many architectures more training would have given more."""
    known = trials["still_learning"].dropna()
    if not known.any():
        return []
    return [
        f"still learning: {int(known.sum())} of {len(known)} (validation top-1 gained over a point "
        "at the end, 95% lower bound over the seeds): their accuracies say how fast they learn"
    ]


def dead(trials: pd.DataFrame) -> list[str]:
    """How many trainings died, with the interval of their share."""
    counted = trials.dropna(subset=["dead_seeds"])
    died, of = int(counted["dead_seeds"].sum()), int(counted["seeds"].sum())
    if not died:
        return []
    from scipy import stats

    share = stats.binomtest(died, of).proportion_ci(method="wilson")
    return [
        f"dead: {died} of {of} trainings (Wilson's 95% interval {share.low:.1%} to "
        f"{share.high:.1%}): accuracy that cannot be told from chance; an architecture with "
        "one has no top1"
    ]


def _rankings(seeds: pd.DataFrame | None) -> list[str]:
    if seeds is None:
        return []
    try:
        rows = budget_ranking(seeds)
    except UserError:  # one budget, or too few architectures
        return []
    return [
        f"ranking at {row['epochs']} epochs against {row['against']}: {tau_text(row)}"
        for row in rows.to_dict("records")
    ]


def tau_text(row: Mapping[Any, Any]) -> str:
    """Kendall's tau of a row of a ranking, with its interval; in words where there is none, since
    the order is perfect or there is no order."""
    tau, low, high = row["kendall"], row["ci_low"], row["ci_high"]
    if math.isnan(tau):
        return f"no order, {row['architectures']} architectures with one value"
    perfect = {1.0: "the same order", -1.0: "the opposite order"}.get(round(tau, 9))
    sure = f"{low:.2f} to {high:.2f}, bootstrap over" if perfect is None else f"{perfect} of"
    return f"Kendall's tau {tau:.2f} ({sure} {row['architectures']} architectures)"
