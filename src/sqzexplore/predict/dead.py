"""The probability that a training of an architecture does not learn: dead, or diverged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .models import scaler

Array = NDArray[Any]
#: Dead trainings below which they say how many die, and not which.
LEAST_DEAD = 5
_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # inverse, of the regularisation


@dataclass(frozen=True)
class Dying:
    """A logistic regression on the features; without weights, one share for all."""

    share: float
    mean: Array
    spread: Array
    weights: Array | None = None
    offset: float = 0.0

    def probability(self, features: Array) -> Array:
        """That one training of each row (rows x names) does not learn."""
        if self.weights is None:
            return np.where(np.isnan(features[:, 0]), np.nan, self.share)
        logits = ((features - self.mean) / self.spread) @ self.weights + self.offset
        return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))


def fit_dying(features: Array, dead: Array, trainings: Array, folds: NDArray[np.intp]) -> Dying:
    """How often trainings die, and, if features tell, where.

    The regression stands if it beats the share alone in cross-validated log loss.

    Args:
        features: rows x names.
        dead: of each row's trainings, those that did not learn.
        trainings: of each row.
        folds: of the rows, for the choice.
    """
    share = _share(dead, trainings)
    mean, spread = scaler(features)
    plain = Dying(share, mean, spread)
    if min(dead.sum(), (trainings - dead).sum()) < LEAST_DEAD:
        return plain
    scaled = (features - mean) / spread
    losses = [_loss_of_share(dead, trainings, folds)]
    losses += [_loss(scaled, dead, trainings, folds, strength) for strength in _STRENGTHS]
    best = int(np.argmin(losses))
    if best == 0:
        return plain
    model = _logistic(scaled, dead, trainings, _STRENGTHS[best - 1])
    return Dying(share, mean, spread, model.coef_[0], float(model.intercept_[0]))


def _share(dead: Array, trainings: Array) -> float:
    """Jeffreys' estimate: never quite 0, for which no number of trainings is enough."""
    return float((dead.sum() + 0.5) / (trainings.sum() + 1))


def _logistic(scaled: Array, dead: Array, trainings: Array, strength: float) -> Any:
    """Each row twice, as one that died and one that did not, weighted by how often."""
    from sklearn.linear_model import LogisticRegression

    labels = np.repeat([1, 0], len(dead))
    weights = np.concatenate([dead, trainings - dead])
    some = weights > 0
    model = LogisticRegression(C=strength, max_iter=500)
    return model.fit(np.vstack([scaled, scaled])[some], labels[some], weights[some])


def _loss(
    scaled: Array, dead: Array, trainings: Array, folds: NDArray[np.intp], strength: float
) -> float:
    """Log loss of the regression in rows that it has not seen."""
    lost = 0.0
    for fold in np.unique(folds):
        seen = folds != fold
        if not 0 < dead[seen].sum() < trainings[seen].sum():
            return np.inf
        model = _logistic(scaled[seen], dead[seen], trainings[seen], strength)
        lost += _log_loss(model.predict_proba(scaled[~seen])[:, 1], dead[~seen], trainings[~seen])
    return lost


def _loss_of_share(dead: Array, trainings: Array, folds: NDArray[np.intp]) -> float:
    return sum(
        _log_loss(
            np.full((folds == fold).sum(), _share(dead[folds != fold], trainings[folds != fold])),
            dead[folds == fold],
            trainings[folds == fold],
        )
        for fold in np.unique(folds)
    )


def _log_loss(probability: Array, dead: Array, trainings: Array) -> float:
    kept = np.clip(probability, 1e-6, 1 - 1e-6)
    return float(-(dead * np.log(kept) + (trainings - dead) * np.log1p(-kept)).sum())
