"""How far apart two architectures of a space are: Gower's distance over its axes.

Gower, "A general coefficient of similarity and some of its properties", Biometrics 27, 1971: each
axis counts from 0, the same, to 1, its two ends, whatever its unit; the distance is the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..network.architecture import KEYS
from .axis import Axis


def axis_distances(axis: Axis) -> NDArray[np.float64]:
    """How far apart the values of a listed axis are, from 0 to 1: values x values.

    Numbers: how many values lie from one to the other, as a share of the whole way, so that a list
    such as 32, 64, 128 has equal steps. `pool_after`: the share of the layers in either that are
    not in both (Jaccard). Text, truths, and single Fires that may override nothing: 0 or 1.
    """
    codes = axis.codes()
    if axis.field == "pool_after":
        layers = (codes[:, None] >> np.arange(63) & 1).astype(bool)
        both = (layers[:, None] & layers).sum(axis=2)
        either = (layers[:, None] | layers).sum(axis=2)
        return np.where(either > 0, 1 - both / np.maximum(either, 1), 0.0)
    if KEYS[axis.field] in (int, float) and not np.isnan(codes).any():
        rank = codes.argsort().argsort()
        return np.abs(rank[:, None] - rank) / max(1, len(codes) - 1)
    return 1.0 - np.eye(len(codes))
