"""What becomes of one layer's weights: the largest survive, and share a codebook."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Rounds of k-means at most.
_ROUNDS = 300


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
    distinct, index = np.unique(values, return_inverse=True)
    if len(distinct) <= 2**bits:
        return distinct, index.astype(np.int64)
    # In one dimension a cluster is a stretch of the sorted values, its mean a difference of two
    # running sums: hundreds of times faster than k-means of any dimension.
    ordered = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = np.linspace(ordered[0], ordered[-1], 2**bits)
    for _ in range(_ROUNDS):
        ends = np.searchsorted(ordered, _middles(centroids), side="right")
        bounds = np.concatenate([[0], ends, [len(ordered)]])
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        moved = np.sort(np.where(counts > 0, means, _far_off(ordered, means, counts)))
        if (moved == centroids).all():
            break
        centroids = moved
    found = np.unique(centroids.astype(np.float32))
    return found, np.searchsorted(_middles(found.astype(np.float64)), values).astype(np.int64)


def _middles(centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between neighbours: a value up to one belongs to the centroid on its left."""
    return (centroids[1:] + centroids[:-1]) / 2


def _far_off(
    ordered: NDArray[np.float64], means: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Where centroids without any value begin anew: at the values farthest from their mean."""
    places = means.copy()
    if (empty := counts == 0).any():
        distances = np.abs(ordered - np.repeat(means, counts))
        _, first = np.unique(ordered, return_index=True)
        farthest = first[np.argsort(-distances[first], kind="stable")]
        places[empty] = ordered[farthest[: int(empty.sum())]]
    return places
