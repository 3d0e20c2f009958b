"""What a census is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError, nearest, shown
from ..predict.fit import Model
from ..space.constraints import NAMES, Expression
from ..space.space import Space

MAX_TOP = 500_000


@dataclass(frozen=True)
class Query:
    """What a census is asked.

    Args:
        where: the condition that rows must meet beside the space's own constraints.
        sort: columns to sort by, the first most significant; `-macs` is descending. Equal rows
            stay in the order of the enumeration.
        top: how many rows to keep, the first in that order.
        minimize, maximize: cost columns and numeric fields of the Pareto front.
        spellings: keep every architecture, also those that are the same network as another.
        predictions: what is predicted of every row; their columns may stand in the condition, the
            order and the front. A row that one of them cannot be made for is not feasible.
        sample: draw this many architectures instead of enumerating the space.
        seed: of the sample.
    """

    where: Expression | None = None
    sort: tuple[str, ...] = ()
    top: int | None = None
    minimize: tuple[str, ...] = ("params", "macs")
    maximize: tuple[str, ...] = ()
    sample: int | None = None
    seed: int = 0
    spellings: bool = False
    predictions: tuple[Model, ...] = ()

    @property
    def counts(self) -> str:
        """What the rows kept are: networks, or architectures, of which several may be one."""
        return "architectures" if self.spellings else "networks"

    @property
    def predicted(self) -> tuple[str, ...]:
        """The columns that are predicted, each once."""
        return tuple(dict.fromkeys(name for model in self.predictions for name in model.names))

    @property
    def ranked(self) -> set[str]:
        """The columns that the order or the front is of."""
        return {*self.minimize, *self.maximize, *(name.removeprefix("-") for name in self.sort)}

    @property
    def front_is_predicted(self) -> bool:
        """Whether an objective of the front is predicted, with an interval."""
        targets = {model.target for model in self.predictions}
        return bool(targets & {*self.minimize, *self.maximize})

    def remarks(self) -> list[str]:
        """What must be said beside the predictions: of each, and of picking by them."""
        said = [line for model in self.predictions for line in model.remarks()]
        if self.ranked & {*self.predicted}:
            said.append(
                "networks that stand first by a prediction are worse than predicted on average, "
                "and fewer lie in their intervals: trust the order, and train what you choose"
            )
        return said

    def __post_init__(self) -> None:
        if self.top is not None and not 1 <= self.top <= MAX_TOP:
            raise UserError(f"--top: found {self.top}, expected 1 to {MAX_TOP}")
        numeric = [name for name in NAMES if name not in ("pool_after", "bypass")]
        numeric += self.predicted
        requested = [("sort", name.removeprefix("-")) for name in self.sort]
        requested += [("minimize", name) for name in self.minimize]
        requested += [("maximize", name) for name in self.maximize]
        for option, name in requested:
            if name not in numeric:
                raise UserError(
                    f"--{option}: found {shown(name)}, expected a cost column or a numeric field"
                    f"{nearest(name, numeric)}"
                )
        for option, names in (
            ("sort", [name.removeprefix("-") for name in self.sort]),
            ("minimize and --maximize", [*self.minimize, *self.maximize]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise UserError(f"--{option}: found {name} twice, expected it once")


@dataclass(frozen=True)
class Census:
    """What a census found.

    `combinations` were looked at, of which `feasible` can be built and `spelled` pass the filter;
    they are `kept` networks, of which all else speaks (with `query.spellings`: `spelled`
    architectures). `front` and `top` have a column a field, a cost and a prediction, and
    `spellings`; so has `possible`, the rows that may be on a predicted front by the intervals (None
    where nothing of the front is predicted, or they are more than can be held); `ranges` the least
    and greatest of each cost column; `shares` how often each value of each listed axis stands in
    the rows kept; `pools` the cost of each `pool_after` (geometric mean, least, greatest of MACs
    and activations); `density` counts the rows kept in cells of params (axis 0) by MACs (axis 1),
    both in `CELLS_PER_DECADE` steps of the logarithm from 1; `predicted_density` sums in the same
    cells what the first of the predictions says (None without).
    """

    space: Space
    query: Query
    combinations: int
    feasible: int
    spelled: int
    kept: int
    front: pd.DataFrame
    possible: pd.DataFrame | None
    top: pd.DataFrame
    ranges: pd.DataFrame
    shares: dict[str, dict[Any, int]]
    pools: pd.DataFrame
    density: NDArray[np.int64]
    predicted_density: NDArray[np.float64] | None

    @property
    def input_size(self) -> int:
        """Side of the input that the costs are for, pixels."""
        return self.space.variants[0].input_size
