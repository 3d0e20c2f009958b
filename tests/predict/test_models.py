"""The models' K fits against fits of scikit-learn's own, each without its fold."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from sqzexplore.predict.dead import fit_dying
from sqzexplore.predict.models import MODELS, around, folds_of, gaussian_process


def data(rows: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    features = draw.normal(size=(rows, 4)) * [1, 10, 0.1, 0] + [0, 5, 0, 2]
    values = 3 + 2 * features[:, 0] + np.sin(features[:, 1]) + 0.1 * draw.normal(size=rows)
    return features, values, draw.integers(0, 5, rows)


def test_each_gaussian_process_is_that_of_the_rows_without_its_fold() -> None:
    features, values, folds = data()
    scaled = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)
    kernel = (
        ConstantKernel(0.01, (1e-6, 1e3)) * DotProduct(0.0, "fixed")
        + ConstantKernel(1.0, (1e-6, 1e3)) * Matern(2.0, (0.3, 300.0), nu=2.5)
        + WhiteKernel(0.1, (1e-4, 10.0))
    )
    unit = (values - values.mean()) / values.std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = GaussianProcessRegressor(kernel, alpha=0.0).fit(scaled, unit).kernel_
    new = features + 0.3
    got = gaussian_process(features, values, folds).each(new)
    for fold in range(5):
        seen = folds != fold
        centre = unit[seen].mean()
        process = GaussianProcessRegressor(found, alpha=0.0, optimizer=None)
        process.fit(scaled[seen], unit[seen] - centre)
        said = process.predict(
            (new - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)
        )
        expected = (said + centre) * values.std() + values.mean()
        assert got[:, fold] == pytest.approx(expected, abs=2e-3 * values.std())


def test_around_a_line_each_has_not_seen_its_fold() -> None:
    """What is changed in a fold moves its model by the hyperparameters alone, the others a lot."""
    features, values, folds = data()
    changed = np.where(folds == 2, values + 5, values)
    first, second = (around(0)(features, each, folds).each(features) for each in (values, changed))
    moved = np.abs(second - first).mean(axis=0)
    assert moved[2] < 0.3 * min(moved[[0, 1, 3, 4]])


def test_around_a_line_few_rows_are_enough_where_the_line_is_right() -> None:
    """Thirty rows of one law, a tenth of noise, twenty features of no consequence: nearer to the
    law, also beyond the rows, than a Gaussian process that has to learn it."""
    draw = np.random.default_rng(1)
    features = draw.normal(size=(30, 21))
    new = draw.normal(size=(500, 21)) * 1.5
    values = 1 + 2 * features[:, 4] + 0.1 * draw.normal(size=30)
    folds = np.arange(30) % 10
    law = 1 + 2 * new[:, 4]
    error, plain = (
        np.abs(model(features, values, folds).each(new).mean(1) - law).mean()
        for model in (around(4), gaussian_process)
    )
    assert error < 0.1
    assert error < plain / 2


@pytest.mark.parametrize("name", ["gradient boosting", "forest"])
def test_a_model_has_not_seen_its_fold(name: str) -> None:
    features, values, folds = data()
    changed = np.where(folds == 2, -values, values)
    first, second = (
        MODELS[name](features, each, folds).each(features) for each in (values, changed)
    )
    assert (first[:, 2] == second[:, 2]).all()
    assert (first[:, 1] != second[:, 1]).any()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 10))
def test_rows_of_one_network_share_a_fold(networks: list[int], most: int) -> None:
    folds = folds_of(np.array(networks), most, seed=0)
    of_network = dict(zip(networks, folds, strict=True))
    assert [of_network[network] for network in networks] == folds.tolist()
    sizes = np.bincount([*of_network.values()])
    assert len(sizes) == min(most, len(of_network))
    assert sizes.max() - sizes.min() <= 1


def test_the_probability_of_dying_is_near_the_truth() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(400, 5))
    truth = 1 / (1 + np.exp(2 - 2 * features[:, 0]))
    dead = (draw.random(400) < truth).astype(float)
    found = fit_dying(features, dead, np.ones(400), np.arange(400) % 10).probability(features)
    assert np.abs(found - truth).mean() < 0.05


def test_without_a_pattern_it_is_the_share() -> None:
    """Deaths by chance alone: features do not tell."""
    draw = np.random.default_rng(1)
    features, dead = draw.normal(size=(100, 20)), (np.arange(100) % 10 == 0).astype(float)
    found = fit_dying(features, dead, np.ones(100), draw.integers(0, 10, 100))
    assert found.probability(features) == pytest.approx(np.full(100, 10.5 / 101))


def test_few_dead_say_how_many_and_none_is_not_never() -> None:
    features, folds = np.eye(30), np.arange(30) % 10
    some = fit_dying(features, (np.arange(30) < 3) * 1.0, np.full(30, 2.0), folds)
    assert some.probability(features) == pytest.approx(np.full(30, 3.5 / 61))
    none = fit_dying(features, np.zeros(30), np.ones(30), folds)
    assert none.probability(features) == pytest.approx(np.full(30, 0.5 / 31))
