"""What compressing or quantising trained networks cost of their accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd
from scipy import special

from ..errors import UserError, shown
from .accuracy import ROUNDING, Trainings, accuracy_interval, difference, trainings
from .validation import require_columns
from .verdicts import ALPHA, holm

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
        `val_drop`, the same on the validation split, with `val_drop_se`, its standard error over
        the seeds, which choices are made by. Intervals and errors are missing with one seed.

    Raises:
        UserError: another form, a table without its columns, or a network whose own training is
            not in `seeds`.
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
        float32 = _of(before, which, at)
        lost = difference(float32, after, paired=True)
        low, high = lost.interval()
        own_val = group[f"{form}_val_top1"].to_numpy(dtype=float)
        val_drops = pd.Series(_of(validation, which, at).values - own_val)
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
                "val_drop": val_drops.mean(),
                "val_drop_se": val_drops.sem(),
            }
        )
    return pd.DataFrame(rows).sort_values(["sweep", "trial"], kind="stable", ignore_index=True)


def _of(
    known: Mapping[tuple[str, int], Trainings], which: tuple[str, int], at: Sequence[int]
) -> Trainings:
    """The trainings that networks were made smaller of."""
    found = known.get(which)
    missing = {*at} - {*(found.seeds if found else ())}
    if found is None or missing:
        raise UserError(
            f"drops: trial {which[1]} of {which[0]}: found no training of seed {min(missing)} in "
            "the table seeds, expected one of each"
        )
    return found.of(at)


def smallest_kept(rows: pd.DataFrame, form: str, points: float) -> pd.Series:
    """The smallest of what `drops` gives that is shown to be at most `points` below its float32
    network on the validation split.

    By Student's t over the seeds, one-sided, at 5% over all the rows (Holm's correction). Equal
    drops of all seeds show nothing: three accuracies can agree by chance.

    Raises:
        UserError: none is.
    """
    error = rows["val_drop_se"].where(rows["val_drop_se"] > ROUNDING)
    p_values = special.stdtr(rows["seeds"] - 1, (rows["val_drop"] - points) / error).fillna(1.0)
    known = rows[holm(p_values.to_numpy(dtype=float)) < ALPHA]
    if known.empty:
        raise UserError(f"smallest_kept: none is shown to be at most {points:g} points below")
    return known.sort_values([f"{form}_mb", "trial"]).iloc[0]
