"""The rows of a space, block by block, with their costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from ..network.columns import take_rows
from ..network.cost import COST_COLUMNS
from ..network.frames import frame_of_columns
from ..predict.fit import Model
from ..schema import FLAGS, PREDICTED
from ..space.constraints import Expression
from ..space.space import Space
from .query import Query

_BLOCK = 65536
#: How many rows of the census are the same network.
SPELLINGS = "spellings"
#: Whether no other row surely dominates it, by the intervals of what is predicted.
MAY_BE_FRONT = "may_be_front"
#: What holds a few numbers a row in memory stays under 1 GiB by these.
MAX_SAMPLE = 5_000_000


#: Space numbers are 64-bit integers, and nobody waits for more than this.
MAX_COMBINATIONS = 10**12


# --- rows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Some feasible rows: their numbers, fields and costs as columns (fixed fields scalars)."""

    numbers: NDArray[np.int64]
    columns: dict[str, Any]
    looked_at: int = 0

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.numbers)

    def take(self, index: Any) -> Block:
        """The rows of an index, a mask or a slice."""
        return Block(self.numbers[index], take_rows(self.columns, index))

    def where(self, condition: Expression | None) -> Block:
        """The rows that meet a condition."""
        if condition is None:
            return self
        return self.take(np.broadcast_to(condition(self.columns), self.rows))

    def values(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """rows x names."""
        values = np.empty((self.rows, len(names)))
        for i, name in enumerate(names):
            values[:, i] = self.columns[name]
        return values

    def frame(self) -> pd.DataFrame:
        """As a table: fields, costs, what was predicted, and, where it is known, `may_be_front` and
        `spellings`."""
        frame = frame_of_columns(self.columns, self.rows)
        for name in (*COST_COLUMNS, *PREDICTED, MAY_BE_FRONT, SPELLINGS):
            if name in self.columns:
                frame[name] = self.columns[name]
        return frame


def joined(blocks: list[Block]) -> Block:
    """The rows of at least one block."""
    columns = {
        name: value if np.ndim(value) == 0 else np.concatenate([b.columns[name] for b in blocks])
        for name, value in blocks[0].columns.items()
    }
    return Block(np.concatenate([block.numbers for block in blocks]), columns)


class Rows:
    """The architectures a census looks at, by number: a whole space, or a sample drawn from it."""

    def __init__(
        self,
        space: Space,
        sample: dict[str, Any] | None,
        length: int,
        predictions: tuple[Model, ...] = (),
    ) -> None:
        self.space, self._sample, self._length = space, sample, length
        self._predictions = predictions

    def __len__(self) -> int:
        return self._length

    def blocks(self) -> Iterator[Block]:
        """Every feasible row, once and in order."""
        for start in range(0, self._length, _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, self._length), dtype=np.int64)
            yield self._block(numbers)

    def at(self, numbers: NDArray[np.int64]) -> Iterator[Block]:
        """The rows of these numbers, in their order."""
        for start in range(0, len(numbers), _BLOCK):
            yield self._block(numbers[start : start + _BLOCK])

    def _block(self, numbers: NDArray[np.int64]) -> Block:
        if self._sample is None:
            columns = self.space.columns_at(numbers)
        else:
            columns = {
                name: value if np.ndim(value) == 0 else value[numbers]
                for name, value in self._sample.items()
            }
        costs, keep = self.space.costs(columns, len(numbers))
        block = Block(numbers, columns | costs)
        block = block if keep.all() else block.take(keep)
        for model in self._predictions:
            block = _predicted(block, model)
        return Block(block.numbers, block.columns, looked_at=len(numbers))


def _predicted(block: Block, model: Model) -> Block:
    """The rows that the model can say anything of, with what it says."""
    said = model.columns(block.columns, block.rows)
    for name in FLAGS:  # of any of the models
        said[name] = said[name] | block.columns.get(name, False)
    known = ~np.isnan(said[model.target])
    block = Block(block.numbers, block.columns | said)
    return block if known.all() else block.take(known)


def architecture_rows(space: Space, query: Query) -> Rows:
    """The rows that a query looks at: all of the space, or a sample."""
    if query.sample is not None:
        if not 1 <= query.sample <= MAX_SAMPLE:
            raise UserError(f"--sample: found {query.sample}, expected 1 to {MAX_SAMPLE}")
        drawn = space.sample(query.sample, query.seed)
        return Rows(space, drawn, query.sample, query.predictions)
    try:
        size = space.size
    except UserError as error:
        raise UserError(f"{error}, or draw some of them with --sample N") from None
    if size > MAX_COMBINATIONS:
        raise UserError(
            f"the space has {size:,} combinations, expected at most {MAX_COMBINATIONS:,}; "
            "draw some of them with --sample N"
        )
    return Rows(space, None, size, query.predictions)
