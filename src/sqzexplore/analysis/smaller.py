"""What compressing or quantising trained networks cost of their accuracy."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import special

from ..errors import UserError, shown
from .accuracy import Trainings, accuracy_interval, difference, trainings
from .validation import require_columns

#: Of each form that trained networks are made into, the columns that say how.
SETTINGS = {"compressed": ("density", "bits", "finetune_epochs"), "int8": ("scheme",)}


def drops(
    smaller: pd.DataFrame,
    seeds: pd.DataFrame,
    images: pd.DataFrame | None = None,
    form: str = "compressed",
) -> pd.DataFrame:
    """What each architecture loses at each setting, paired by seed and by image.

    Args:
        smaller: the table `compression`, or `int8`.
        seeds: the table `seeds` of the same sweeps.
        images: the table `images` of the same; None: the intervals are over seeds alone.
        form: `compressed` or `int8`.

    Returns:
        A row an architecture and setting: `sweep`, `trial`, the setting's columns, `seeds`;
        means over the seeds of `FORM_mb`, `top1`, `FORM_top1`, with the 95% interval of the last
        (`FORM_top1_ci_low`, `FORM_top1_ci_high`); `FORM_drop`, top1 less FORM_top1 in points, with
        its 95% interval over seeds and test images, both paired (`analysis.difference`);
        `val_drop`, the same on the validation split, with `val_drop_high`, a 95% upper bound over
        the seeds by Student's t, which choices are made by. Intervals are missing with one seed.

    Raises:
        UserError: another form, or a table without its columns.
    """
    if form not in SETTINGS:
        raise UserError(f"drops: found {shown(form)}, expected one of {', '.join(SETTINGS)}")
    by = ["sweep", "trial", *SETTINGS[form]]
    names = [f"{form}_mb", f"{form}_top1", f"{form}_val_top1"]
    require_columns("drops", smaller, [*by, "seed", "right", *names])
    before = trainings(seeds, images)
    validation = trainings(seeds, None, "val_top1")
    rows = []
    ordered = smaller.sort_values("seed", kind="stable")
    for key, group in ordered.groupby(by, sort=False):
        own: dict[str, Any] = dict(zip(by, cast(tuple[Any, ...], key), strict=True))
        which = (str(own["sweep"]), int(own["trial"]))
        at = [int(seed) for seed in group["seed"]]
        after = Trainings.of_packed(
            at, group[f"{form}_top1"].to_numpy(dtype=float), [*group["right"]]
        )
        float32 = before[which].of(at)
        lost = difference(float32, after, paired=True)
        low, high = lost.interval()
        val_drop, val_high = _upper(
            validation[which].of(at).values - group[f"{form}_val_top1"].to_numpy(dtype=float)
        )
        top1_low, top1_high = accuracy_interval(after)
        rows.append(
            {
                **own,
                "seeds": len(group),
                f"{form}_mb": float(group[f"{form}_mb"].mean()),
                "top1": float32.mean,
                f"{form}_top1": after.mean,
                f"{form}_top1_ci_low": top1_low,
                f"{form}_top1_ci_high": top1_high,
                f"{form}_drop": lost.value,
                f"{form}_drop_ci_low": low,
                f"{form}_drop_ci_high": high,
                "val_drop": val_drop,
                "val_drop_high": val_high,
            }
        )
    return pd.DataFrame(rows).sort_values(["sweep", "trial"], kind="stable", ignore_index=True)


def smallest_kept(rows: pd.DataFrame, form: str, points: float) -> pd.Series:
    """The smallest of what `drops` gives that is shown to be at most `points` below its float32
    network on the validation split (`val_drop_high`).

    Raises:
        UserError: none is.
    """
    known = rows[rows["val_drop_high"] <= points]
    if known.empty:
        raise UserError(f"smallest_kept: none is shown to be at most {points:g} points below")
    return known.sort_values([f"{form}_mb", "trial"]).iloc[0]


def _upper(values: np.ndarray) -> tuple[float, float]:
    """The mean over the seeds, and its one-sided 95% upper bound by Student's t."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean + float(special.stdtrit(len(values) - 1, 0.95)) * error
