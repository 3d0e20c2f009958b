"""What becomes of one layer's weights: the largest survive, and share a codebook."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

#: Rounds of k-means at most.
_ROUNDS = 100


def surviving(weights: NDArray[np.float32], density: float) -> NDArray[np.bool_]:
    """Which weights a layer keeps: those of the largest magnitude (Han et al., 2015, section 2).

    Args:
        weights: of one layer, any shape.
        density: the share that is kept, in (0, 1]; at least one is.

    Returns:
        A mask of the same shape with round(density x weights) set. Of equal ones the first stay.
    """
    kept = max(1, round(density * weights.size))
    order = np.argsort(-np.abs(weights.ravel()), kind="stable")
    mask = np.zeros(weights.size, dtype=bool)
    mask[order[:kept]] = True
    return mask.reshape(weights.shape)


def shared(values: NDArray[np.float32], bits: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """k-means over one layer's values, begun evenly over their range (Han et al., section 3.2:
    the start that keeps the few large weights).

    Args:
        values: the surviving weights, one-dimensional.
        bits: of an index: at most 2**bits centroids.

    Returns:
        The centroids, ascending, float32, and each value's index into them. Where there are no
        more distinct values than centroids, they are the centroids, and nothing is lost.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    distinct, index = np.unique(values, return_inverse=True)
    if len(distinct) <= 2**bits:
        return distinct, index.astype(np.int64)
    start = np.linspace(distinct[0], distinct[-1], 2**bits, dtype=np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than asked for
        means = KMeans(2**bits, init=start[:, None], n_init=1, max_iter=_ROUNDS, random_state=0)
        found = means.fit(values.astype(np.float64)[:, None])
    centroids = np.unique(found.cluster_centers_.ravel().astype(np.float32))
    # Of one dimension: the nearest centroid is found between the middles of neighbours.
    middles = (centroids[1:].astype(np.float64) + centroids[:-1]) / 2
    return centroids, np.searchsorted(middles, values).astype(np.int64)
