"""What each metaparameter does to a number: means by value, interactions, shares of importance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import UserError, shown
from .fanova import is_number, main_shares
from .validation import numbers, require_columns, require_rows, varying

#: Fewer trials than this say nothing of which axis matters.
_LEAST_TRIALS = 10
#: Draws for each resample that is asked for, until one has two values of every axis.
_MOST_DRAWS = 100


def main_effects(trials: pd.DataFrame, column: str) -> pd.DataFrame:
    """The mean of a column over the trials of each value of each metaparameter that varies.

    Where the other metaparameters are not balanced over the values (a search, a constraint), they
    are part of the difference.

    Returns:
        A row a value: `axis`, `value`, `trials`, `mean`, and `low`, `high`: its 95% t-interval over
        architectures, missing where there is one trial.

    Raises:
        UserError: an unknown column, or fewer than 2 trials with a value.
    """
    rows = with_values("main_effects", trials, column, 2)
    effects = []
    for axis in varying(rows):
        for value, group in rows.groupby(axis):
            values = group[column].to_numpy(dtype=float)
            count, low, high = len(values), np.nan, np.nan
            if count > 1:
                half = float(stats.t.ppf(0.975, count - 1) * stats.sem(values))
                low, high = values.mean() - half, values.mean() + half
            effects.append((axis, value, count, values.mean(), low, high))
    return pd.DataFrame(effects, columns=["axis", "value", "trials", "mean", "low", "high"])


def interaction(trials: pd.DataFrame, column: str, first: str, second: str) -> pd.DataFrame:
    """How far two metaparameters together are from the sum of their effects.

    Of the means of the cells, row's and column's mean are taken away and the grand mean added: the
    interaction of a two-way analysis of variance with the cells weighted alike. All zeros: the two
    effects add.

    Returns:
        A row a value of `first`, a column a value of `second`.

    Raises:
        UserError: an unknown column, a metaparameter that does not vary, or a combination of values
            without a trial.
    """
    rows = with_values("interaction", trials, column, 4)
    require_columns("interaction", rows, [first, second])
    if first == second or min(rows[first].nunique(), rows[second].nunique()) < 2:
        raise UserError("interaction: expected two metaparameters that vary")
    cells = rows.assign(**{column: rows[column].astype(float)}).pivot_table(
        index=first, columns=second, values=column, aggfunc="mean"
    )
    if cells.isna().any(axis=None):
        raise UserError(
            f"interaction: {int(cells.isna().sum().sum())} of {cells.size} combinations of {first} "
            f"and {second} have no trial, expected every one"
        )
    means = cells.to_numpy()
    centred = means - means.mean(1, keepdims=True) - means.mean(0, keepdims=True) + means.mean()
    return pd.DataFrame(centred, index=cells.index, columns=cells.columns)


def importance(
    trials: pd.DataFrame,
    column: str,
    maximize: bool = True,
    method: Literal["ped_anova", "fanova"] = "fanova",
    seed: int = 0,
    resamples: int = 0,
) -> pd.DataFrame:
    """Each metaparameter's share of the importance for a column.

    fanova: the share of the variance over the whole space that the axis explains by itself, in a
    random forest (Hutter et al., ICML 2014). ped_anova: what decides whether a trial is among the
    best tenth (Watanabe et al., IJCAI 2023), by Optuna, which wants 5 trials there. Shares of all
    axes sum to 1, however little they explain together: what no axis explains is not shown.

    Args:
        trials: one row a trial; those without a value are left out.
        column: what to explain.
        maximize: whether more of it is better (ped_anova).
        method: ped_anova or fanova.
        seed: of fanova's forest, and of the resampling.
        resamples: of the trials, with replacement, for an interval; each takes a forest. Of trials
            that a search chose it speaks of these alone, not of the space.

    Returns:
        A row an axis, the most important first: `axis`, `importance`, and `ci_low`, `ci_high`: the
        95% percentile bootstrap interval (Efron, 1979), missing without resamples.

    Raises:
        UserError: an unknown column or method, one with one value only, fewer than 2 axes that
            vary, or too few trials (10 for fanova, 50 for ped_anova; for resamples: of some value).
    """
    if method not in ("ped_anova", "fanova"):
        raise UserError(f"importance: method: found {shown(method)}, expected ped_anova or fanova")
    least = 5 * _LEAST_TRIALS if method == "ped_anova" else _LEAST_TRIALS
    rows = with_values("importance", trials, column, least)
    if rows[column].nunique() < 2:
        raise UserError(f"importance: {column}: found one value only, expected several")
    axes = varying(rows)
    require_rows("importance", len(axes), 2, "metaparameters that vary")
    goal = -1.0 if maximize else 1.0
    whole = _shares(rows, axes, goal * rows[column].to_numpy(dtype=float), method, seed)
    samples = itertools.islice(_samples(rows, [column, *axes], seed, resamples), resamples)
    drawn = [
        _shares(some, axes, goal * some[column].to_numpy(dtype=float), method, seed)
        for some in samples
    ]
    require_rows("importance", len(drawn), resamples, "resamples with two values of every axis")
    found = pd.DataFrame(list(whole.items()), columns=["axis", "importance"])
    table = pd.DataFrame(drawn, columns=list(whole), dtype=float)
    for name, share in (("ci_low", 0.025), ("ci_high", 0.975)):
        found[name] = found["axis"].map(table.quantile(share)).astype(float)
    return found


def _samples(
    rows: pd.DataFrame, names: list[str], seed: int, resamples: int
) -> Iterator[pd.DataFrame]:
    """The rows drawn with replacement: the draws with two values of each of `names`."""
    generator = np.random.default_rng(seed)
    for _ in range(_MOST_DRAWS * resamples):
        some = rows.iloc[generator.integers(0, len(rows), len(rows))]
        if all(some[name].nunique() > 1 for name in names):
            yield some


def _shares(
    rows: pd.DataFrame, axes: list[str], values: Any, method: str, seed: int
) -> dict[str, float]:
    """The share of each axis, the most important first; less of `values` is better."""
    alone = (
        main_shares(rows[axes], values, seed) if method == "fanova" else _ped(rows[axes], values)
    )
    total = sum(alone.values()) or 1.0
    in_order = sorted(alone.items(), key=lambda entry: -entry[1])
    return {axis: share / total for axis, share in in_order}


def _ped(rows: pd.DataFrame, values: Any) -> dict[str, float]:
    """PED-ANOVA by Optuna."""
    # Slow to import, and nothing else of the analysis needs it.
    import optuna
    from optuna import importance as evaluators

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # that it is created is no news to users
    study = optuna.create_study()
    optuna.logging.set_verbosity(verbosity)
    distributions = {str(axis): _distribution(rows[axis]) for axis in rows}
    plain: list[Any] = rows.astype(object).to_dict("records")
    for params, value in zip(plain, values, strict=True):
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=distributions, value=float(value)
            )
        )
    evaluator = evaluators.PedAnovaImportanceEvaluator()
    return dict(evaluators.get_param_importances(study, evaluator=evaluator))


def partial_dependence(trials: pd.DataFrame, column: str, seed: int = 0) -> pd.DataFrame:
    """A column against each metaparameter, the others as they are over all trials, by a forest.

    What `main_effects` cannot do in a search that favours some combinations: a random forest learns
    the column from all metaparameters that vary, and is asked for every trial with one replaced
    (Friedman, Annals of Statistics 29, 2001; scikit-learn). It is as good as the forest: see `r2`.

    Args:
        trials: one row a trial; those without a value are left out.
        column: what to explain.
        seed: of the forest.

    Returns:
        A row a value that occurs: `axis`, `value`, `mean`. `attrs["r2"]` is the share of the
        variance that the forest explains of trials that it has not seen (out of bag).

    Raises:
        UserError: an unknown column, or fewer than 10 trials with a value.
    """
    # Slow to import, and nothing else of the analysis needs it.
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import partial_dependence as dependence

    rows = with_values("partial_dependence", trials, column, _LEAST_TRIALS)
    axes = varying(rows)
    require_rows("partial_dependence", len(axes), 1, "metaparameters that vary")
    values = [sorted(rows[axis].unique()) for axis in axes]
    codes = np.stack(
        [
            rows[axis].map(ours.index).to_numpy(float)
            for axis, ours in zip(axes, values, strict=True)
        ],
        axis=1,
    )
    forest = RandomForestRegressor(300, oob_score=True, random_state=seed)
    forest.fit(codes, rows[column].to_numpy(dtype=float))
    curves = []
    for position, (axis, ours) in enumerate(zip(axes, values, strict=True)):
        grid = {position: np.arange(len(ours), dtype=float)}
        means = dependence(forest, codes, [position], custom_values=grid, method="brute")[
            "average"
        ][0]
        curves += [(axis, value, mean) for value, mean in zip(ours, means, strict=True)]
    table = pd.DataFrame(curves, columns=["axis", "value", "mean"])
    table.attrs["r2"] = float(forest.oob_score_)
    return table


def _distribution(values: pd.Series) -> Any:
    """Numbers as an interval from the least to the greatest, all else as a choice."""
    from optuna import distributions

    if not is_number(values):
        return distributions.CategoricalDistribution(sorted(values.unique()))
    if pd.api.types.is_integer_dtype(values):
        return distributions.IntDistribution(int(values.min()), int(values.max()))
    return distributions.FloatDistribution(float(values.min()), float(values.max()))


def with_values(caller: str, trials: pd.DataFrame, column: str, least: int) -> pd.DataFrame:
    """The rows that have a number in a column; `UserError` where they are fewer than `least`."""
    rows = trials[~np.isnan(numbers(caller, trials, column))]
    require_rows(caller, len(rows), least, f"trials with {column}")
    return rows
