"""The models that are compared: each as K of itself, of which number k has not seen fold k.

What a model says of fold k's rows was said without them, which is what the comparison, the choice
and the intervals go by; what it says of other rows is the mean of the K.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Ensemble(Protocol):
    """K fitted models."""

    def each(self, features: Array) -> Array:
        """What each says of some rows: rows x K."""


#: A model by name: features (rows x names), values and the fold of each row, to K fitted ones.
Model = Callable[[Array, Array, NDArray[np.intp]], Ensemble]


def folds_of(networks: Array, most: int, seed: int) -> NDArray[np.intp]:
    """A fold, from 0, for each row: rows that are one network share theirs, and folds hold equally
    many networks, up to one."""
    _, codes = np.unique(networks, return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(codes.max()) + 1)
    return (order % min(most, len(order)))[codes]


def scaler(features: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each feature; 1 for one that is the same in all rows."""
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)


@dataclass(frozen=True)
class _Gaussians:
    """Gaussian processes of one kernel, a linear part and a Matern 5/2 part, so that what a row has
    in common with the measured ones is computed once for all K.

    float32: a prediction needs no more, and a census of millions is twice as fast.
    """

    mean: Array
    spread: Array
    inputs: Array  # measured rows, scaled, float32
    linear: float
    smooth: float
    weights: Array  # measured rows x K, float32
    offsets: Array

    def each(self, features: Array) -> Array:
        """What each says of some rows: rows x K."""
        scaled = ((features - self.mean) / self.spread).astype(np.float32)
        return self._kernel(scaled) @ self.weights + self.offsets

    def _kernel(self, scaled: Array) -> Array:
        product = scaled @ self.inputs.T
        squares = [np.einsum("ij,ij->i", x, x) for x in (scaled, self.inputs)]
        distance = squares[0][:, None] + squares[1] - 2 * product
        np.maximum(distance, 0.0, out=distance)
        distance *= np.float32(5.0)
        root = np.sqrt(distance)
        distance /= np.float32(3.0)
        distance += root
        distance += np.float32(1.0)
        np.negative(root, out=root)
        distance *= np.exp(root, out=root)
        distance *= np.float32(self.smooth)
        product *= np.float32(self.linear)
        product += distance
        return product


def gaussian_process(
    features: Array, values: Array, folds: NDArray[np.intp], trend: Array | None = None
) -> Ensemble:
    """Gaussian processes (Rasmussen and Williams, 2006): four hyperparameters by the marginal
    likelihood of all rows, so that the K differ in the rows alone.

    Args:
        features: rows x names.
        values: of the rows.
        folds: of the rows.
        trend: what each of the K is around (rows x K); None: nothing.
    """
    from scipy.linalg import cho_factor, cho_solve
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    mean, spread = scaler(features)
    inputs = (features - mean) / spread
    apart = values[:, None] - (0.0 if trend is None else trend)
    middle = apart.mean(axis=1)
    centre, unit = middle.mean(), middle.std() or 1.0
    scaled = np.broadcast_to((apart - centre) / unit, (len(values), int(folds.max()) + 1))
    wide = (1e-6, 1e3)
    kernel = (
        ConstantKernel(0.01, wide) * DotProduct(0.0, "fixed")
        + ConstantKernel(1.0, wide) * Matern(np.sqrt(inputs.shape[1]), (0.3, 300.0), nu=2.5)
        + WhiteKernel(0.1, (1e-4, 10.0))
    )
    process = GaussianProcessRegressor(kernel, alpha=0.0, random_state=0)
    found = _quietly(lambda: process.fit(inputs, (middle - centre) / unit)).kernel_
    parts = found.get_params()
    gram = found(inputs)
    weights = np.zeros(scaled.shape)
    offsets = np.empty(scaled.shape[1])
    for fold, own in enumerate(scaled.T):
        seen = np.flatnonzero(folds != fold)
        offsets[fold] = own[seen].mean()
        factor = cho_factor(gram[np.ix_(seen, seen)])
        weights[seen, fold] = cho_solve(factor, own[seen] - offsets[fold])
    length = parts["k1__k2__k2__length_scale"]
    return _Gaussians(
        mean=mean,
        spread=spread * length,
        inputs=(inputs / length).astype(np.float32),
        linear=float(parts["k1__k1__k1__constant_value"] * length**2),
        smooth=float(parts["k1__k2__k1__constant_value"]),
        weights=(weights * unit).astype(np.float32),
        offsets=(offsets * unit + centre).astype(np.float32),
    )


@dataclass(frozen=True)
class _Around:
    """Gaussian processes around K lines through one feature."""

    column: int
    slopes: Array  # K
    offsets: Array  # K
    rest: Ensemble

    def each(self, features: Array) -> Array:
        """What each says of some rows: rows x K."""
        line: Array = features[:, [self.column]] * self.slopes + self.offsets
        return line + self.rest.each(features)


def around(column: int) -> Model:
    """Gaussian processes around a line through one feature: what is known beforehand, which a few
    dozen rows do not have to teach, and what it misses."""

    def fit(features: Array, values: Array, folds: NDArray[np.intp]) -> Ensemble:
        from scipy import stats

        seen = [folds != fold for fold in range(int(folds.max()) + 1)]
        lines = [stats.linregress(features[s, column], values[s]) for s in seen]
        slopes, offsets = np.array([[line.slope, line.intercept] for line in lines]).T
        trend = features[:, [column]] * slopes + offsets
        return _Around(column, slopes, offsets, gaussian_process(features, values, folds, trend))

    return fit


def _quietly(work: Callable[[], Any]) -> Any:
    """A hyperparameter at its bound is no news to whoever asks for a prediction."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return work()


@dataclass(frozen=True)
class _Several:
    """K models of scikit-learn."""

    models: list[Any]

    def each(self, features: Array) -> Array:
        """What each says of some rows: rows x K."""
        return np.stack([model.predict(features) for model in self.models], axis=1)


def _refitted(make: Callable[[], Any]) -> Model:
    """The model that is fitted K times."""

    def fit(features: Array, values: Array, folds: NDArray[np.intp]) -> Ensemble:
        made = []
        for fold in range(int(folds.max()) + 1):
            seen = folds != fold
            made.append(make().fit(features[seen], values[seen]))
        return _Several(made)

    return fit


def _boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=0.08,
        max_iter=120,
        max_leaf_nodes=6,
        min_samples_leaf=4,
        l2_regularization=1.0,
        random_state=0,
        early_stopping=False,
    )


def _forest() -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(60, min_samples_leaf=2, max_features=0.5, random_state=0)


#: Those that a fit compares.
MODELS: dict[str, Model] = {
    "gaussian process": gaussian_process,
    "gradient boosting": _refitted(_boosting),
    "forest": _refitted(_forest),
}
