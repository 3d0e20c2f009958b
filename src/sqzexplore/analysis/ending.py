"""Ending trainings early by exact costs: those that can no longer reach the front.

Parameters and MACs of a network are known before it is trained; of several objectives accuracy
alone is uncertain. Once the bound of what a training may reach is dominated at its own cost, the
rest of it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .front import nondominated
from .validation import largest_budget, require_alike, require_columns, require_rows

Array = NDArray[np.float64]


class OutOfReach:
    """Says which trainings can no longer reach the front of accuracy and costs.

    The bound is conformal. What each finished training gained from an epoch to its last, in
    standard deviations of that epoch's gains, is greatest at some epoch; the rank of these greatest
    gains that leaves `risk` above it bounds the next training's at all epochs at once (split
    conformal: Papadopoulos et al., ECML 2002). It holds for a training drawn like the finished
    ones: a search that proposes by what it found, and trainings that were ended, make it
    approximate.

    Args:
        risk: that a training which would have been on the front is ended.
        first: the first epoch after which one may be.
    """

    def __init__(self, risk: float, first: int = 1) -> None:
        self.risk, self.first = risk, first
        self._costs: list[Sequence[float]] = []
        self._curves: list[Sequence[float]] = []
        self._bounds: Array | None = None

    @property
    def least(self) -> int:
        """Finished trainings without which none is ended."""
        return math.ceil(1 / self.risk - 1e-9) - 1

    def add(self, costs: Sequence[float], curve: Sequence[float]) -> None:
        """Take a finished training.

        Args:
            costs: exact ones of its network, of which less is better.
            curve: validation accuracy after each epoch, %; the same number of epochs for all.
        """
        self._costs.append(costs)
        self._curves.append(curve)
        self._bounds = None

    def __call__(self, costs: Sequence[float], epoch: int, accuracy: float) -> bool:
        """Whether a training cannot reach the front any more.

        Args:
            costs: of its network.
            epoch: how many it has run.
            accuracy: after them, on the validation split, %.
        """
        if epoch < self.first or len(self._curves) < max(self.least, 3):
            return False
        finals = np.array([curve[-1] for curve in self._curves])
        bound = accuracy + self._gains()[epoch - 1]
        others = np.array(self._costs, dtype=float)
        as_good = (others <= costs).all(axis=1) & (finals >= bound)
        better = (others < costs).any(axis=1) | (finals > bound)
        return bool((as_good & better).any())

    def _gains(self) -> Array:
        """The most that the next training is to gain from each epoch to the last."""
        if self._bounds is None:
            curves = np.array(self._curves, dtype=float)
            gains = curves[:, -1:] - curves
            mean, spread = gains.mean(axis=0), np.maximum(gains.std(axis=0, ddof=1), 1e-9)
            requested = slice(self.first - 1, max(self.first, curves.shape[1] - 1))
            scores = ((gains - mean) / spread)[:, requested].max(axis=1)
            rank = math.ceil((1 - self.risk) * (len(scores) + 1) - 1e-9)
            self._bounds = mean + np.sort(scores)[min(rank, len(scores)) - 1] * spread
        return self._bounds


def replay_ending(
    trials: pd.DataFrame,
    history: pd.DataFrame,
    costs: Sequence[str] = ("macs",),
    risk: float = 0.05,
    orders: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """What ending trainings by exact costs would have saved, and lost, in a finished sweep.

    Its networks are trained again on paper, one after the other, in random orders.

    Args:
        trials: of one sweep, or of several on the same data and budget; complete ones count.
        history: of the same, with every epoch's `val_top1`; of several seeds the first counts.
        costs: columns of which less is better.
        risk: as of `OutOfReach`.
        orders: how many.
        seed: of the orders.

    Returns:
        A row an order: `order`; `networks`; `ended`, how many trainings; `saved`, the share of all
        epochs that was not run; `front`, networks on the front of `val_top1` and the costs when all
        are trained to the end; `lost` of them, ended.

    Raises:
        UserError: unknown columns, a risk that is no share, or too few networks for it.

    Example:
        >>> replayed = sqz.replay_ending(trials, history, costs=["macs"])  # doctest: +SKIP
        >>> replayed[["saved", "lost"]].mean()  # doctest: +SKIP
    """
    caller = "replay_ending"
    require_columns(caller, trials, ["sweep", "trial", "state", *costs])
    require_columns(caller, history, ["sweep", "trial", "seed", "epoch", "val_top1"])
    if not 0 < risk < 1 or not costs:
        raise UserError(
            f"{caller}: found risk {risk} and {len(costs)} costs, expected a share between 0 and 1 "
            "and at least one cost"
        )
    known = trials[trials["state"] == "complete"].set_index(["sweep", "trial"])
    require_alike(caller, known, ["val_top1", *costs])
    own = largest_budget(history)
    own = own[own["seed"] == 0]
    curves = own.pivot_table(index=["sweep", "trial"], columns="epoch", values="val_top1")
    curves = curves.loc[curves.index.intersection(known.index)].dropna()
    require_rows(caller, len(curves), OutOfReach(risk).least + 2, "networks trained to the end")
    values = curves.to_numpy(dtype=float)
    prices = known.loc[curves.index, list(costs)].to_numpy(dtype=float)
    front = nondominated(np.column_stack([prices, -values[:, -1]]))
    generator = np.random.default_rng(seed)
    rows = []
    for order in range(orders):
        run = _replayed(values, prices, risk, generator.permutation(len(values)))
        ended = run < values.shape[1]
        rows.append(
            {
                "order": order,
                "networks": len(values),
                "ended": int(ended.sum()),
                "saved": 1 - run.sum() / values.size,
                "front": int(front.sum()),
                "lost": int((ended & front).sum()),
            }
        )
    return pd.DataFrame(rows)


def _replayed(
    values: Array, prices: Array, risk: float, order: NDArray[np.intp]
) -> NDArray[np.intp]:
    """How many epochs each network is trained for."""
    epochs = values.shape[1]
    ends, run = OutOfReach(risk, first_epoch(epochs)), np.full(len(values), epochs)
    for position in order:
        for epoch in range(1, epochs):
            if ends(prices[position], epoch, values[position, epoch - 1]):
                run[position] = epoch
                break
        else:
            ends.add(prices[position], values[position])
    return run


def first_epoch(epochs: int) -> int:
    """After which a pruner may first end a training: a ninth of it."""
    return max(1, epochs // 9)
