"""What replayed searches found by when: regret, with intervals over their repetitions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd

from ..errors import UserError
from .validation import require_columns

#: Where regret is looked at, as far as every search went.
_AT = (25, 50, 100)

By = Literal["training", "spent_s"]


def regret(
    searches: pd.DataFrame, at: Iterable[float] | None = None, by: By = "training"
) -> pd.DataFrame:
    """How far the best network that a search found is from the best there is, on average.

    The intervals speak of other repetitions on the same table, not of other tables.

    Args:
        searches: as `simulate` gives them.
        at: numbers of trainings, or simulated seconds; None: 25, 50 and 100 trainings as far as
            every search went, and where the first of them ended.
        by: training, or spent_s.

    Returns:
        A row a sampler and place: `sampler`; `training` or `spent_s`; `repetitions`; `regret` in
        points, with its 95% t-interval `regret_low`, `regret_high`; `vs_random`, its regret minus
        that of `random`, below 0 where it is better, with the 95% t-interval of the differences
        repetition by repetition, `vs_random_low` and `vs_random_high`. These are missing where
        there is no `random`, and the intervals where there is one repetition.

    Raises:
        UserError: a column is missing, or not every search has a regret there.
    """
    first, last = reached(searches, by)
    if at is None:
        at = [*(k for k in _AT if by == "training" and k < last), last]
    found = []
    for position in at:
        if not first <= position <= last:
            raise UserError(
                f"regret: at: found {position:g}, expected {first:g} to {last:g}, where every "
                f"search has a regret by {by}"
            )
        done = searches[searches[by] <= position].groupby(["sampler", "repetition"], sort=False)
        each = done["regret"].last().unstack("sampler")
        for name in each:
            own = each[name].dropna()  # of the samplers some may have fewer repetitions
            beside = own - each["random"] if "random" in each and name != "random" else None
            row = {"sampler": name, by: position, "repetitions": len(own)}
            row |= _interval("regret", own, least=0.0)
            row |= _interval("vs_random", beside)
            found.append(row)
    order = {name: i for i, name in enumerate(searches["sampler"].unique())}
    return pd.DataFrame(found).sort_values(
        ["sampler", by], key=lambda c: c.map(order) if c.name == "sampler" else c, ignore_index=True
    )


def reached(searches: pd.DataFrame, by: By) -> tuple[float, float]:
    """From where to where every search has a regret: the last of their first trainings, and the
    first of their ends.

    Raises:
        UserError: a column is missing, or there is no such place.
    """
    require_columns("regret", searches, ["sampler", "repetition", by, "regret"])
    each = searches.groupby(["sampler", "repetition"])[by]
    first, last = each.min().max(), each.max().min()
    if not first <= last:
        raise UserError(
            f"regret: found no {by} at which every search has a regret, expected longer searches"
        )
    return first, last


def _interval(name: str, values: pd.Series | None, least: float = -np.inf) -> dict[str, float]:
    """The mean, with its 95% t-interval, which ends at `least`."""
    from scipy import stats

    if values is None or (values := values.dropna()).empty:
        return dict.fromkeys([name, f"{name}_low", f"{name}_high"], np.nan)
    mean, half = values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.sem()
    ends = {f"{name}_low": np.maximum(least, mean - half), f"{name}_high": mean + half}
    return {name: float(mean)} | {key: float(end) for key, end in ends.items()}
