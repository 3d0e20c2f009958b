"""Intervals by conformal prediction: CV+ with residuals scaled by how large they are thereabouts.

CV+ (Barber, Candes, Ramdas and Tibshirani, "Predictive inference with the jackknife+", Annals of
Statistics 49, 2021) puts around what each of K models says the residuals of the rows that it has
not seen. Whatever the models, a new row drawn as the measured ones were is held with probability at
least 1 - 2 alpha, less a term that shrinks with the number of rows, and about 1 - alpha in
practice. Residuals are divided by a scale, so that the
interval is wide where networks scatter and narrow where they do not (normalised scores:
Papadopoulos, Gammerman and Vovk, 2008). The scale of fold k has not seen fold k's residuals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .models import scaler

Array = NDArray[Any]
#: Strengths of the scale's ridge that leave-one-out chooses among; a logarithm of a residual is
#: mostly noise, and the strongest gives one scale for all.
_RIDGES = np.logspace(0, 5, 11)


@dataclass(frozen=True)
class Scale:
    """How large residuals are: a regression of their logarithm on features and prediction, K times,
    each without a fold."""

    mean: Array
    spread: Array
    weights: Array  # names x K
    of_prediction: Array
    offsets: Array
    least: Array
    greatest: Array

    def each(self, features: Array, predicted: Array) -> Array:
        """The scale of each fold's residuals in some rows: rows x K.

        Args:
            features: rows x names.
            predicted: rows x K, what each model says.
        """
        scaled = ((features - self.mean) / self.spread).astype(np.float32)
        logs = scaled @ self.weights + predicted * self.of_prediction + self.offsets
        return np.exp(np.clip(logs, self.least, self.greatest))


def fit_scale(features: Array, predicted: Array, residuals: Array, folds: Array) -> Scale:
    """The scale of the residuals (rows) of predictions (rows) made without the row's fold."""
    from sklearn.linear_model import RidgeCV

    size = np.abs(residuals)
    # A residual that happens to be nothing says little: it counts as a tenth of the middle one.
    logs = np.log(np.maximum(size, 0.1 * max(np.median(size), 1e-12)))
    both = np.column_stack([features, predicted])
    mean, spread = scaler(both)
    scaled = (both - mean) / spread
    count = int(folds.max()) + 1
    weights, offsets = np.empty((both.shape[1], count)), np.empty(count)
    ends = np.empty((2, count))
    for fold in range(count):
        seen = folds != fold
        ridge = RidgeCV(alphas=_RIDGES).fit(scaled[seen], logs[seen])
        weights[:, fold], offsets[fold] = ridge.coef_, ridge.intercept_
        ends[:, fold] = np.quantile(ridge.predict(scaled[seen]), [0.0, 1.0])
    of_prediction = weights[-1] / spread[-1]
    return Scale(
        mean=mean[:-1],
        spread=spread[:-1],
        weights=weights[:-1].astype(np.float32),
        of_prediction=of_prediction,
        offsets=offsets - of_prediction * mean[-1],
        least=ends[0],
        greatest=ends[1],
    )


def networks_needed(level: float) -> int:
    """How many networks intervals of a level need: of fewer, the ends would be infinite.

    Raises:
        UserError: it is no level.
    """
    if not 0 < level < 1:
        raise UserError(f"level: found {level}, expected a share above 0 and below 1")
    return math.ceil(1 / (1 - level) - 1e-9) - 1


@dataclass(frozen=True)
class Conformal:
    """The scaled residuals of the measured rows, and the ranks of those that bound an interval."""

    scores: Array  # float32
    folds: NDArray[np.intp]
    level: float

    def __post_init__(self) -> None:
        least = networks_needed(self.level)
        if self._rank < 1:
            raise UserError(
                f"level {self.level}: found {len(self.scores)} networks, expected at least {least}"
            )

    @property
    def _rank(self) -> int:
        """The lower end is the value of this rank, from 1, and the upper end that from the top."""
        return math.floor((1 - self.level) * (len(self.scores) + 1) + 1e-9)

    def ends(self, predicted: Array, scales: Array) -> tuple[Array, Array]:
        """Lower and upper ends of the intervals of some rows.

        Args:
            predicted: rows x K, what each model says.
            scales: rows x K, how large residuals are there.
        """
        # `take` lays rows out one after another, as the selection wants them; an index does not.
        of_fold = np.take(predicted.astype(np.float32), self.folds, axis=1)
        reach = np.take(scales.astype(np.float32), self.folds, axis=1)
        reach *= self.scores
        rank = self._rank - 1
        low = np.partition(of_fold - reach, rank, axis=1)[:, rank]
        reach += of_fold
        rank = len(self.scores) - self._rank
        return low, np.partition(reach, rank, axis=1)[:, rank]
