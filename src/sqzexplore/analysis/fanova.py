"""Functional ANOVA of a random forest: how much of a number each metaparameter explains alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TREES = 64
#: A column of an axis of choices is 0 or 1.
_HALF = 0.5


def is_number(values: pd.Series) -> bool:
    """Whether a metaparameter is an interval of numbers; all else is a choice."""
    types = pd.api.types
    return types.is_numeric_dtype(values) and not types.is_bool_dtype(values)


class _Axis:
    """One metaparameter as columns of the forest: a number is one, a choice one a value."""

    def __init__(self, values: pd.Series, first: int) -> None:
        self.is_number = is_number(values)
        if self.is_number:
            self.matrix = values.to_numpy(dtype=float)[:, None]
            # Of whole numbers each stands for as much of the axis.
            margin = _HALF if pd.api.types.is_integer_dtype(values) else 0.0
            self.low = float(values.min()) - margin
            self.high = float(values.max()) + margin
        else:
            choices = sorted(values.unique())
            self.matrix = np.array([[value == each for each in choices] for value in values], float)
            self.low, self.high = 0.0, 1.0
        self.columns = slice(first, first + self.matrix.shape[1])

    def cells(self, low: Floats, high: Floats) -> tuple[NDArray[np.bool_], Floats]:
        """The axis cut where leaves end.

        Args:
            low, high: leaves x columns of the forest.

        Returns:
            Which leaves hold which cell (leaves x cells), and the share of the axis that a cell is.
        """
        low, high = low[:, self.columns], high[:, self.columns]
        if self.is_number:
            edges = np.unique(np.concatenate([low, high]))
            held = (low <= edges[:-1]) & (edges[1:] <= high)
            return held, np.diff(edges) / (self.high - self.low)
        named = low >= _HALF
        held = np.where(named.any(axis=1, keepdims=True), named, high > _HALF)
        return held, np.full(held.shape[1], 1 / held.shape[1])


def main_shares(rows: pd.DataFrame, values: Floats, seed: int) -> dict[str, float]:
    """The share of a forest's variance that each axis explains by itself (Hutter et al., ICML 2014,
    equations 3 to 9), the axes independent of one another: a number is uniform from the least to
    the greatest, a choice over the values that occur. Mean over the trees, in closed form from
    their leaves.

    Optuna's evaluator goes through every combination of a choice's columns, 2**100 of a hundred
    `pool_after`; of numbers the two agree.

    Args:
        rows: a column an axis, each with two values at least.
        values: what to explain, a number a row.
        seed: of the forest.
    """
    # Slow to import, and nothing else of the analysis needs it.
    from sklearn.ensemble import RandomForestRegressor

    axes: list[_Axis] = []
    for name in rows.columns:
        axes.append(_Axis(rows[name], axes[-1].columns.stop if axes else 0))
    forest = RandomForestRegressor(_TREES, random_state=seed)
    forest.fit(np.hstack([axis.matrix for axis in axes]), values)
    of_trees = [_of_tree(each.tree_, axes) for each in forest.estimators_]
    shares = [each for each in of_trees if each is not None] or [np.zeros(len(axes))]
    return dict(zip(map(str, rows), np.mean(shares, axis=0).tolist(), strict=True))


def _of_tree(tree: Any, axes: list[_Axis]) -> Floats | None:
    """Each axis' share of the variance of one tree; None where it says the same everywhere."""
    predicted, low, high = _leaves(tree, axes)
    cells = [axis.cells(low, high) for axis in axes]
    parts = np.stack([held @ share for held, share in cells], axis=1)
    weights = parts.prod(axis=1)
    mean = weights @ predicted
    variance = weights @ (predicted - mean) ** 2
    if variance == 0:
        return None
    alone = np.empty(len(axes))
    for position, (held, share) in enumerate(cells):
        marginal = held.T @ (predicted * weights / parts[:, position])
        alone[position] = share @ (marginal - mean) ** 2
    return alone / variance


def _leaves(tree: Any, axes: list[_Axis]) -> tuple[Floats, Floats, Floats]:
    """What a tree predicts in its leaves, and the least and greatest of every column there."""
    low = np.concatenate([np.full(axis.matrix.shape[1], axis.low) for axis in axes])
    high = np.concatenate([np.full(axis.matrix.shape[1], axis.high) for axis in axes])
    columns, thresholds, values = tree.feature, tree.threshold, tree.value  # each makes an array
    left, right = tree.children_left, tree.children_right
    found, pending = [], [(0, low, high)]
    while pending:
        node, low, high = pending.pop()
        column, threshold = columns[node], thresholds[node]
        if column < 0:
            found.append((values[node, 0, 0], low, high))
            continue
        below, above = high.copy(), low.copy()
        below[column] = above[column] = threshold
        pending += [(left[node], low, below), (right[node], above, high)]
    predicted, lows, highs = zip(*found, strict=True)
    return np.array(predicted), np.array(lows), np.array(highs)
