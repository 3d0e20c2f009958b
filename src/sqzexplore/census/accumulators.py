"""What sees the rows of a census once, and keeps what it needs: counts, front, best, density."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.front import nondominated
from ..analysis.validation import signs
from ..errors import UserError
from ..network.columns import decode, encode
from ..network.cost import COST_COLUMNS
from ..network.frames import format_value
from ..schema import EXTRAPOLATED
from ..space.axis import Axis
from ..space.space import Space
from .blocks import MAY_BE_FRONT, Block, joined
from .query import Query

MAX_SORTED = 10_000_000


MAX_FRONT = 500_000


#: Cells of the density a decade of parameters or MACs.
CELLS_PER_DECADE = 50
_DECADES = 16  # from 1 to beyond 2**53, where a cost is no longer exact


# --- what sees the rows ------------------------------------------------------------------------


class Consumer(Protocol):
    """Sees every kept row once, in order, and keeps what it needs."""

    def add(self, block: Block) -> None:
        """Take the next rows."""


class Counts:
    """How many rows there are, the extremes of their costs, the values of their axes."""

    def __init__(self, space: Space) -> None:
        self.feasible = self.spelled = self.kept = 0
        self._least = dict.fromkeys(COST_COLUMNS, math.inf)
        self._most = dict.fromkeys(COST_COLUMNS, -math.inf)
        self._codes = {axis.field: space.codes_of(axis) for axis in _listed(space)}
        self._seen = {name: np.zeros(len(codes), np.int64) for name, codes in self._codes.items()}
        self._empty: Block | None = None

    def add(self, block: Block) -> None:
        """Take the next rows."""
        self.kept += block.rows
        if self._empty is None:
            self._empty = block.take(slice(0, 0))
        if block.rows == 0:
            return
        for name in COST_COLUMNS:
            values = block.columns[name]
            self._least[name] = min(self._least[name], values.min())
            self._most[name] = max(self._most[name], values.max())
        for name, codes in self._codes.items():
            found = np.searchsorted(codes, block.columns[name])
            self._seen[name] += np.bincount(found, minlength=len(codes))

    @property
    def empty(self) -> Block:
        """A block of no rows."""
        assert self._empty is not None  # a space has at least one block
        return self._empty

    def ranges(self) -> pd.DataFrame:
        """Least and greatest value of each cost."""
        return pd.DataFrame({"least": self._least, "greatest": self._most})

    def shares(self) -> dict[str, dict[Any, int]]:
        """How many rows have each value of each field."""
        return {
            name: {
                decode(name, code): int(count)
                for code, count in zip(codes, self._seen[name], strict=True)
            }
            for name, codes in self._codes.items()
        }


class Front:
    """The Pareto front of the rows so far: that of all rows is the front of the blocks' fronts."""

    def __init__(self, query: Query) -> None:
        self._names = (*query.minimize, *query.maximize)
        self._sign = signs(query.minimize, query.maximize)
        self._rows: Block | None = None

    def add(self, block: Block) -> None:
        """Take the next rows."""
        front = block.take(slice(0, 0)) if self._rows is None else self._rows
        values = np.concatenate([self._values(front), self._values(block)])
        keep = nondominated(values)
        if keep.sum() > MAX_FRONT:
            raise UserError(
                f"the Pareto front has more than {MAX_FRONT:,} rows: {', '.join(self._names)} do "
                "not tell them apart; choose others with --minimize and --maximize"
            )
        self._rows = joined([front.take(keep[: front.rows]), block.take(keep[front.rows :])])

    def block(self) -> Block:
        """The front, sorted by its objectives."""
        assert self._rows is not None  # a space has at least one block
        values = self._values(self._rows)
        return self._rows.take(np.lexsort((self._rows.numbers, *values.T[::-1])))

    def _values(self, block: Block) -> NDArray[np.float64]:
        return block.values(self._names) * self._sign


class PossibleFront:
    """Which rows may be on the front, by the intervals of what is predicted.

    A row may not where another, at the worse ends of its intervals, is as good in every objective
    as the row at the better ends of its own, and better in one. An extrapolated row rules none out:
    its interval means little.
    """

    def __init__(self, query: Query) -> None:
        names = (*query.minimize, *query.maximize)
        self._signs = signs(query.minimize, query.maximize)
        targets = {model.target for model in query.predictions}

        def ends(worse: bool) -> tuple[str, ...]:
            each = zip(names, self._signs, strict=True)
            return tuple(
                f"{name}_{'high' if (sign > 0) == worse else 'low'}" if name in targets else name
                for name, sign in each
            )

        self._worse, self._better = ends(worse=True), ends(worse=False)
        self._sure = np.empty((0, len(names)))
        self._held: list[Block] = []
        self._too_many = False

    def add(self, block: Block) -> None:
        """Take the next rows."""
        within = ~np.broadcast_to(block.columns[EXTRAPOLATED], block.rows)
        surely = block.take(within).values(self._worse) * self._signs
        both = np.concatenate([self._sure, surely])
        self._sure = np.unique(both[nondominated(both)], axis=0)
        if self._too_many:
            return
        self._held.append(block.take(self.may_be(block)))
        if sum(held.rows for held in self._held) > MAX_FRONT:
            rows = self._sifted()
            self._too_many = rows.rows > MAX_FRONT / 2  # or each block would sift them all
            self._held = [] if self._too_many else [rows]

    def may_be(self, block: Block) -> NDArray[np.bool_]:
        """Which rows none of those so far rules out."""
        values = block.values(self._better) * self._signs
        left = np.arange(len(values))
        for sure in self._sure:
            here = values[left]
            left = left[(here < sure).any(axis=1) | (here == sure).all(axis=1)]
        found = np.zeros(len(values), bool)
        found[left] = True
        return found

    def marked(self, block: Block) -> Block:
        """The block with the column `may_be_front`."""
        columns = block.columns | {MAY_BE_FRONT: self.may_be(block)}
        return Block(block.numbers, columns, block.looked_at)

    def block(self) -> Block | None:
        """The rows that may be on the front; None where they are too many to hold."""
        return None if self._too_many else self._sifted()

    def _sifted(self) -> Block:
        rows = joined(self._held)
        return rows.take(self.may_be(rows))


class Best:
    """The first rows in an order."""

    def __init__(self, sort: tuple[str, ...], top: int) -> None:
        self._sort, self._top = sort, top
        self._held: list[Block] = []

    def add(self, block: Block) -> None:
        """Take the next rows."""
        self._held.append(block)
        if sum(held.rows for held in self._held) > 2 * self._top:  # not at every block
            self._held = [self.block()]

    def block(self) -> Block:
        """The rows, in order."""
        rows = joined(self._held)
        return rows.take(_sorted(rows.numbers, _keys(rows, self._sort))[: self._top])


class Order:
    """The numbers of all rows in an order, for a file that is sorted; without one as they come."""

    def __init__(self, sort: tuple[str, ...]) -> None:
        self._sort = sort
        self._numbers: list[NDArray[np.int64]] = []
        self._keys: list[list[NDArray[np.float64]]] = []
        self._held = 0

    def add(self, block: Block) -> None:
        """Take the next rows."""
        self._held += block.rows
        if self._sort and self._held > MAX_SORTED:
            raise UserError(
                f"--sort: more than {MAX_SORTED:,} rows are kept, too many to sort in a file; "
                "keep fewer with --where or --top, or leave the order to what reads the file"
            )
        self._numbers.append(block.numbers)
        self._keys.append(_keys(block, self._sort))

    def numbers(self) -> NDArray[np.int64]:
        """The numbers, in order; what was held is given up."""
        keys = [np.concatenate(parts) for parts in zip(*self._keys, strict=True)]
        self._keys.clear()
        numbers = np.concatenate(self._numbers)
        self._numbers.clear()
        return numbers[_sorted(numbers, keys)] if keys else numbers


def _keys(block: Block, sort: tuple[str, ...]) -> list[NDArray[np.float64]]:
    """What rows are sorted by, most significant first, ascending."""
    values = block.values(tuple(name.removeprefix("-") for name in sort))
    signs = [-1.0 if name.startswith("-") else 1.0 for name in sort]
    return [values[:, i] * sign for i, sign in enumerate(signs)]


def _sorted(numbers: NDArray[np.int64], keys: list[NDArray[np.float64]]) -> NDArray[np.int64]:
    return np.lexsort((numbers, *reversed(keys)))


class Density:
    """How many rows fall into each cell of params by MACs, and the sum of a prediction of them.

    Args:
        target: the predicted column; None: none.
    """

    def __init__(self, target: str | None = None) -> None:
        side = _DECADES * CELLS_PER_DECADE
        self.cells = np.zeros((side, side), np.int64)
        self._target = target
        self.sums = np.zeros((side, side)) if target else None

    def add(self, block: Block) -> None:
        """Take the next rows."""
        params, macs = (
            (np.log10(block.columns[name]) * CELLS_PER_DECADE).astype(np.int64)
            for name in ("params", "macs")
        )
        flat = params * self.cells.shape[1] + macs
        np.add.at(self.cells.reshape(-1), flat, 1)
        if self.sums is not None and self._target:
            np.add.at(self.sums.reshape(-1), flat, block.columns[self._target])


class Pools:
    """What each `pool_after` costs: rows, and geometric mean, least and greatest of two costs."""

    _COSTS = ("macs", "activations")

    def __init__(self, space: Space) -> None:
        listed = [axis for axis in _listed(space) if axis.field == "pool_after"]
        fixed = encode("pool_after", [space.base.pool_after])
        self._masks = space.codes_of(listed[0]) if listed else fixed
        self._count = np.zeros(len(self._masks), np.int64)
        self._logs = {name: np.zeros(len(self._masks)) for name in self._COSTS}
        self._least = {name: np.full(len(self._masks), np.inf) for name in self._COSTS}
        self._most = {name: np.zeros(len(self._masks)) for name in self._COSTS}

    def add(self, block: Block) -> None:
        """Take the next rows."""
        masks = np.broadcast_to(block.columns["pool_after"], block.rows)
        which = np.searchsorted(self._masks, masks)
        self._count += np.bincount(which, minlength=len(self._masks))
        for name in self._COSTS:
            values = block.columns[name].astype(np.float64)
            self._logs[name] += np.bincount(which, np.log(values), minlength=len(self._masks))
            np.minimum.at(self._least[name], which, values)
            np.maximum.at(self._most[name], which, values)

    def frame(self) -> pd.DataFrame:
        """One row a `pool_after` that was kept."""
        some = self._count > 0
        layers = [decode("pool_after", mask) for mask in self._masks[some]]
        frame = pd.DataFrame(
            {
                "pool_after": [format_value(pools) for pools in layers],
                "pools": [len(pools) for pools in layers],
                "mean_pool_layer": [np.mean(pools) if pools else math.nan for pools in layers],
                "architectures": self._count[some],
            }
        )
        for name in self._COSTS:
            frame[f"{name}_mean"] = np.exp(self._logs[name][some] / self._count[some])
            frame[f"{name}_least"] = self._least[name][some].astype(np.int64)
            frame[f"{name}_greatest"] = self._most[name][some].astype(np.int64)
        return frame


def _listed(space: Space) -> list[Axis]:
    return [axis for axis in space.axes if not axis.continuous]
