"""The closed form of fANOVA against Optuna's evaluator, and against every point of a space."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.importance import FanovaImportanceEvaluator
from sklearn.ensemble import RandomForestRegressor

from sqzexplore import analysis
from sqzexplore.analysis.fanova import main_shares


def numbers_of(count: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    generator = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "fires": generator.integers(4, 9, count),  # in Optuna's order: the forest sees it
            "squeeze_ratio": generator.choice([0.0625, 0.125, 0.25, 0.5, 1.0], count),
            "width_multiplier": generator.uniform(0.1, 1, count),
        }
    )
    values = 8 * rows["squeeze_ratio"] + rows["fires"] * rows["width_multiplier"]
    return rows, (values + generator.normal(0, 0.3, count)).to_numpy()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_numbers_it_is_optunas(seed: int) -> None:
    rows, values = numbers_of(60, seed)
    study = optuna.create_study()
    spaces = {
        "squeeze_ratio": optuna.distributions.FloatDistribution(0.0625, 1),
        "fires": optuna.distributions.FloatDistribution(3.5, 8.5),
        "width_multiplier": optuna.distributions.FloatDistribution(
            rows["width_multiplier"].min(), rows["width_multiplier"].max()
        ),
    }
    for params, value in zip(rows.astype(object).to_dict("records"), values, strict=True):
        trial = optuna.trial.create_trial(params=params, distributions=spaces, value=value)
        study.add_trial(trial)
    theirs = optuna.importance.get_param_importances(
        study, evaluator=FanovaImportanceEvaluator(seed=seed), normalize=False
    )
    assert main_shares(rows, values, seed) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_of_choices_it_is_that_of_every_point(seed: int) -> None:
    """Each tree asked for the whole product of the choices; marginal means by group."""
    generator = np.random.default_rng(seed)
    choices = {
        "pool_after": [(1, 4), (1, 5), (2, 4), (2, 7), (3, 6), (3, 8), (4, 8)],
        "bypass": ["complex", "none", "simple"],
        "batch_norm": [False, True],
    }
    space = pd.DataFrame(itertools.product(*choices.values()), columns=list(choices))
    rows = pd.concat(
        [space.iloc[[place * 5 for place in range(7)]], space.sample(30, random_state=seed)]
    )
    levels = rows["pool_after"].map(choices["pool_after"].index).to_numpy(float)
    values = levels + 3 * (rows["bypass"] == "simple") * rows["batch_norm"]
    values = (values + generator.normal(0, 0.5, len(rows))).to_numpy(float)

    def encoded(frame: pd.DataFrame) -> np.ndarray:
        return np.stack(
            [[row == each for row in frame[name]] for name in choices for each in choices[name]],
            axis=1,
        ).astype(float)

    forest = RandomForestRegressor(64, random_state=seed).fit(encoded(rows), values)
    shares = []
    for tree in forest.estimators_:
        said = space.assign(said=tree.predict(encoded(space)))
        whole = said["said"].var(ddof=0)
        shares.append([said.groupby(name)["said"].mean().var(ddof=0) / whole for name in choices])
    expected = dict(zip(choices, np.mean(shares, axis=0), strict=True))
    assert main_shares(rows, values, seed) == pytest.approx(expected, rel=1e-9)


def test_a_hundred_choices_take_no_longer_than_two() -> None:
    """Optuna's evaluator goes through 2**100 combinations of them."""
    generator = np.random.default_rng(0)
    pools = [(a, b) for a in range(1, 15) for b in range(a + 1, 16)]
    rows = pd.DataFrame(
        {
            "pool_after": pd.Series([pools[place % 100] for place in range(150)], dtype=object),
            "squeeze_ratio": generator.choice([0.125, 0.25, 0.5], 150),
        }
    )
    rows["top1"] = 40 * rows["squeeze_ratio"] + generator.normal(0, 0.1, 150)
    found = analysis.importance(rows, "top1", resamples=3).set_index("axis")
    assert found.loc["squeeze_ratio", "importance"] > 0.9
    assert found.loc["squeeze_ratio", "ci_low"] > 0.8


def test_where_all_is_equal_nothing_matters() -> None:
    rows, _ = numbers_of(20, 0)
    assert set(main_shares(rows, np.ones(20), 0).values()) == {0.0}
