"""Two architectures compared over their trainings."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ..errors import UserError, nearest, shown
from .accuracy import difference, trainings
from .validation import largest_budget, require_alike, require_columns, require_rows


@dataclass(frozen=True)
class Difference:
    """Mean of the first minus mean of the second, points, with its 95% interval.

    `p_value` is two-sided, of no difference; both are missing where nothing varies. `method` says
    what the interval speaks of (`accuracy.Estimate`); `first` and `second` are the numbers of
    trainings.
    """

    difference: float
    low: float
    high: float
    p_value: float
    method: str
    first: int
    second: int


def compare(
    seeds: pd.DataFrame,
    first: str,
    second: str,
    column: str = "top1",
    paired: bool = False,
    images: pd.DataFrame | None = None,
) -> Difference:
    """The difference between the accuracies of two architectures, over seeds and images.

    Args:
        seeds: one row a training.
        first: an `arch_id`.
        second: another.
        column: `top1`, `val_top1` or `top5`.
        paired: seeds one by one, of those that both have: where one seed gives both the same
            initial weights (`network.sharing`), such as other pools, or none against simple bypass.
        images: the table `images` of the same; None: the interval speaks of the seeds alone.

    Raises:
        UserError: an unknown column or architecture, fewer than 2 trainings (with `paired`, seeds
            that both have), several sweeps that hold the architecture, or trainings of different
            budgets.
    """
    require_columns("compare", seeds, ["sweep", "trial", "arch_id", "seed", column])
    found = []
    for name in (first, second):
        rows = seeds[seeds["arch_id"] == name]
        if rows.empty:
            known = sorted(set(map(str, seeds["arch_id"])))
            raise UserError(f"compare: no architecture {shown(name)}{nearest(name, known)}")
        runs = list(trainings(rows, images, column).values())
        if len(runs) > 1:
            raise UserError(
                f"compare: architecture {name}: found it in {len(runs)} trials, expected the "
                "trainings of one"
            )
        require_rows("compare", len(runs[0].seeds) if runs else 0, 2, f"trainings of {name}")
        found.append(runs[0])
    of_either = seeds[seeds["arch_id"].isin([first, second])]
    require_alike("compare", largest_budget(of_either), [column])
    both = set(found[0].seeds) & set(found[1].seeds)
    if paired:
        require_rows("compare", len(both), 2, "seeds that both were trained with")
    estimate = difference(found[0], found[1], paired)
    low, high = estimate.interval()
    p = 2 * min(estimate.p_above(0), estimate.p_below(0))
    counts = (len(both),) * 2 if paired else tuple(len(one.seeds) for one in found)
    return Difference(estimate.value, low, high, p, estimate.method, counts[0], counts[1])
