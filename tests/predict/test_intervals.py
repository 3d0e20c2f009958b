"""CV+ against its definition, and against what it promises, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqzexplore.errors import UserError
from sqzexplore.predict.intervals import Conformal, fit_scale


def by_definition(
    predicted: NDArray, scales: NDArray, scores: NDArray, folds: NDArray, level: float
) -> tuple[float, float]:
    """Barber et al. 2021, equation 11: quantiles of m_k(i) -+ R_i over the rows, of one new row."""
    n = len(scores)
    low = sorted(predicted[k] - r * scales[k] for r, k in zip(scores, folds, strict=True))
    high = sorted(predicted[k] + r * scales[k] for r, k in zip(scores, folds, strict=True))
    alpha = 1 - level
    return low[math.floor(alpha * (n + 1) + 1e-9) - 1], high[
        math.ceil((1 - alpha) * (n + 1) - 1e-9) - 1
    ]


@given(st.integers(0, 10**6), st.integers(19, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_the_ends_are_those_of_the_definition(seed: int, rows: int, level: float) -> None:
    draw = np.random.default_rng(seed)
    folds, scores = draw.integers(0, 5, rows), draw.exponential(size=rows).astype(np.float32)
    predicted, scales = draw.normal(size=(3, 5)), draw.uniform(0.5, 2.0, (3, 5))
    low, high = Conformal(scores, folds, level).ends(predicted, scales)
    for i in range(3):
        expected = by_definition(predicted[i], scales[i], scores, folds, level)
        assert (low[i], high[i]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_a_new_row_is_held_as_often_as_promised_whatever_the_model(level: float) -> None:
    """Models that know nothing, noise of heavy tails: exchangeability is all that it takes."""
    draw = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        values = draw.standard_t(2, 40)
        folds = np.arange(39) % 10
        models = np.array([values[:39][folds != k].mean() for k in range(10)])
        scores = np.abs(values[:39] - models[folds]).astype(np.float32)
        (low,), (high,) = Conformal(scores, folds, level).ends(models[None], np.ones((1, 10)))
        held.append(low <= values[39] <= high)
    # Three standard errors of 2,000 draws; CV+ is at most a little above its level.
    assert level - 0.027 < np.mean(held) < level + 0.035


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5])
def test_a_level_that_is_no_share(level: float) -> None:
    with pytest.raises(UserError, match=f"level: found {level}, expected a share"):
        Conformal(np.ones(20, np.float32), np.zeros(20, int), level)


def test_a_level_that_needs_more_networks() -> None:
    assert Conformal(np.ones(19, np.float32), np.zeros(19, int), 0.95)
    with pytest.raises(UserError, match=r"level 0.95: found 18 networks, expected at least 19"):
        Conformal(np.ones(18, np.float32), np.zeros(18, int), 0.95)


def residuals(seed: int, rows: int = 200) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Features, predictions, residuals that are larger where feature 0 is, and folds."""
    draw = np.random.default_rng(seed)
    features, predicted = draw.normal(size=(rows, 6)), draw.normal(size=rows)
    return (
        features,
        predicted,
        np.exp(features[:, 0]) * draw.normal(size=rows),
        draw.integers(0, 10, rows),
    )


def test_a_scale_is_large_where_residuals_are() -> None:
    features, predicted, left, folds = residuals(0)
    scale = fit_scale(features, predicted, left, folds)
    found = np.log(scale.each(features, np.tile(predicted[:, None], 10))).mean(axis=1)
    assert np.corrcoef(found, features[:, 0])[0, 1] > 0.9
    assert 0.6 < np.polyfit(features[:, 0], found, 1)[0] < 1.3  # the truth is 1


def test_a_fold_s_scale_has_not_seen_its_residuals() -> None:
    features, predicted, left, folds = residuals(1)
    changed = np.where(folds == 3, 50 * left, left)
    # The middle residual sets the least that counts: it stays as it was.
    changed *= np.median(np.abs(left)) / np.median(np.abs(changed))
    changed[folds != 3] = left[folds != 3]
    each = np.tile(predicted[:, None], 10)
    before, after = (
        fit_scale(features, predicted, r, folds).each(features, each) for r in (left, changed)
    )
    assert np.allclose(before[:, 3], after[:, 3], rtol=0.05)
    assert not np.allclose(before[:, 4], after[:, 4], rtol=0.05)
