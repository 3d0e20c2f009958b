"""What the rows of an audit say: coverage with its own interval, errors beside the baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.ranking import kendall, resampled_kendall
from .audit import BASELINES
from .trained import coverage_text, level_text

Array = NDArray[Any]
_RESAMPLES = 500


def coverage(rows: pd.DataFrame) -> pd.DataFrame:
    """How many held-out networks the intervals held, over all and in each region of the space.

    Args:
        rows: the table `audit` of one target.

    Returns:
        A row a region that any network is in: `region`; `networks`; `held` of them; `coverage`, its
        share, with the 95% interval of Clopper and Pearson (Biometrika 26, 1934) `coverage_low`,
        `coverage_high`; `width`, the intervals' mean, and `error`, the mean absolute error, in the
        target's unit; `kendall`, tau-b of predicted and measured.
    """
    from scipy import stats

    known = _known(rows)
    found = []
    for region, inside in regions(known).items():
        part = known[inside]
        if part.empty:
            continue
        held = int(part["one_training"].between(part["low"], part["high"]).sum())
        ends = stats.binomtest(held, len(part)).proportion_ci(method="exact")
        found.append(
            {
                "region": region,
                "networks": len(part),
                "held": held,
                "coverage": held / len(part),
                "coverage_low": float(ends.low),
                "coverage_high": float(ends.high),
                "width": float((part["high"] - part["low"]).mean()),
                "error": float((part["predicted"] - part["measured"]).abs().mean()),
                "kendall": kendall(*part[["predicted", "measured"]].to_numpy(float).T),
            }
        )
    return pd.DataFrame(found)


def regions(rows: pd.DataFrame) -> dict[str, Array]:
    """Corners of the space in which a prediction may be bad, each as which rows are in it."""
    macs, side = (rows[name].to_numpy(dtype=float) for name in ("log_macs", "mean_log_side"))
    return {
        "all": np.ones(len(rows), bool),
        "small (third with fewest MACs)": macs <= np.quantile(macs, 1 / 3),
        "large (third with most MACs)": macs >= np.quantile(macs, 2 / 3),
        "late pooling (third with largest maps)": side >= np.quantile(side, 2 / 3),
        "extrapolated": rows["extrapolated"].to_numpy(dtype=bool),
    }


def against_baselines(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The prediction beside simpler ones, in held-out networks.

    Args:
        rows: the table `audit` of one target.
        seed: of the resampling.

    Returns:
        A row a predictor, the audited one first: `predictor`; `error`, mean absolute, and
        `kendall`, tau-b, each with the ends of its 95% percentile bootstrap interval over networks
        (500 resamples), `_low` and `_high`; `error_more`, by how much its error is above the
        audited one's, and `kendall_less`, with intervals of the paired differences.
    """
    known = _known(rows)
    measured = known["measured"].to_numpy(dtype=float)
    said = {"prediction": known["predicted"].to_numpy(dtype=float)}
    for name, column in BASELINES.items():
        if known[column].notna().all():
            said[name] = known[column].to_numpy(dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(known), (_RESAMPLES, len(known)))
    samples = np.vstack([np.arange(len(known)), drawn])  # all of them first
    errors = {name: np.abs(v - measured)[samples].mean(axis=1) for name, v in said.items()}
    taus = {name: resampled_kendall(v, measured, samples) for name, v in said.items()}
    found = []
    taus["median of the others"][:] = np.nan  # it ranks nothing: it differs by fold alone
    for name in said:
        row = {"predictor": name, **_interval("error", errors[name])}
        row |= _interval("kendall", taus[name])
        row |= _interval("error_more", errors[name] - errors["prediction"])
        found.append(row | _interval("kendall_less", taus["prediction"] - taus[name]))
    return pd.DataFrame(found)


def audit_lines(rows: pd.DataFrame) -> list[str]:
    """What the table `audit` says of each target, a sentence each."""
    return [
        line
        for _, own in rows.groupby("target", sort=False)
        for line in (*verdict(own), *support(own), *dying_remark(own))
    ]


def verdict(rows: pd.DataFrame) -> list[str]:
    """Whether the intervals of one target hold their share, and what the prediction beats."""
    whole, (target, level) = coverage(rows).iloc[0], rows[["target", "level"]].iloc[0]
    held = whole["coverage_low"] <= level <= whole["coverage_high"]
    verdict = "holds" if held else ("is too low" if whole["coverage"] < level else "is too high")
    chosen = rows.groupby("fold")["model"].first().value_counts()
    models = ", ".join(f"{name} in {n} folds" for name, n in chosen.items())
    said = [
        f"{target}: {whole['held']} of {whole['networks']} held-out networks were in their "
        f"{level_text(level)} intervals: {whole['coverage']:.1%} (95%: "
        f"{whole['coverage_low']:.1%} to {whole['coverage_high']:.1%}), which {verdict}; mean "
        f"width {digits(whole['width'])}; {models}"
    ]
    beside = against_baselines(rows).iloc[1:]
    beaten = (beside["error_more_low"] > 0) & ~(beside["kendall_less_low"] <= 0)
    if beaten.all():
        said.append(f"{target}: lower error and higher tau than every baseline")
    else:
        names = ", ".join(beside["predictor"][~beaten])
        said.append(f"{target}: not shown to beat in both error and tau: {names}")
    return said


def within(rows: pd.DataFrame) -> str:
    """How near to what was measured the predictions of one target were, as shares of it."""
    known = _known(rows)
    apart = ((known["predicted"] - known["measured"]).abs() / known["measured"]).to_numpy(float)
    half, most = np.quantile(apart, [0.5, 0.9])
    return (
        f"{rows['target'].iloc[0]}: within {half:.1%} of what was measured for half of the "
        f"held-out networks, within {most:.1%} for nine in ten"
    )


def digits(value: float) -> str:
    """A number with two decimals; one below 0.1, such as a latency in ms, with two digits."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:.2g}"


def support(rows: pd.DataFrame) -> list[str]:
    """Whether anything may be said of other networks, by who chose these."""
    samplers = ", ".join(sorted(map(str, rows["sampler"].dropna().unique())))
    target, level = rows["target"].iloc[0], rows["level"].iloc[0]
    text = coverage_text(samplers, level)
    return [] if text == level_text(level) else [f"{target}: coverage of other networks {text}"]


def dying_remark(rows: pd.DataFrame) -> list[str]:
    """How well the probability of being dead was predicted, in a sentence; none where it was not.

    Area under the ROC curve: how often, of a network that died and one that did not, the first had
    the higher probability.
    """
    from scipy import stats

    known = rows[rows["dead_probability"].notna()]
    if known.empty:
        return []
    dead = known["dead_share"].to_numpy(dtype=float)
    probability = known["dead_probability"].to_numpy(dtype=float)
    died = dead > 0
    text = f"dead: {dead.mean():.1%} of the trainings, predicted {probability.mean():.1%}"
    if 0 < died.sum() < len(died):
        u = stats.mannwhitneyu(probability[died], probability[~died]).statistic
        text += f"; area under the ROC curve {u / (died.sum() * (~died).sum()):.2f}"
    return [text]


def _known(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks that have the target."""
    return rows[rows["measured"].notna()]


def _interval(name: str, values: Array) -> dict[str, float]:
    known = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
