"""The census: the exact cost of every architecture of a space, in one pass and bounded memory.

The pass goes through the space block by block. What is asked of it - the best rows, the Pareto
front, the density, the Parquet file - each sees the rows that pass the filter and keeps only what
it needs, so that 10**8 architectures take no more memory than 10**6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from . import provenance
from .analysis import nondominated
from .columns import decode, encode, format_value, frame_of_columns, take_rows
from .cost import COST_COLUMNS
from .errors import UserError, nearest, shown
from .expressions import NAMES, Expression
from .files import replacing, write_atomically, write_json
from .space import Axis, Space
from .spec import Spec

_BLOCK = 65536
#: What holds a few numbers a row in memory stays under 1 GiB by these.
MAX_SAMPLE = 5_000_000
MAX_SORTED = 10_000_000
MAX_TOP = 500_000
MAX_FRONT = 500_000
#: Space numbers are 64-bit integers, and nobody waits for more than this.
MAX_COMBINATIONS = 10**12
#: Cells of the density a decade of parameters or MACs.
CELLS_PER_DECADE = 50
_DECADES = 16  # from 1 to beyond 2**53, where a cost is no longer exact


class Progress(Protocol):
    """Who is told how a census goes."""

    def start(self, what: str, rows: int) -> None:
        """A pass over `rows` rows begins; `what` it does."""

    def advance(self, rows: int) -> None:
        """`rows` more were looked at."""


@dataclass(frozen=True)
class Query:
    """What a census is asked.

    Args:
        where: the condition that rows must meet beside the space's own constraints.
        sort: columns to sort by, the first most significant; `-macs` is descending. Equal rows
            stay in the order of the enumeration.
        top: how many rows to keep, the first in that order.
        minimize, maximize: cost columns and numeric fields of the Pareto front.
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

    def __post_init__(self) -> None:
        if self.top is not None and not 1 <= self.top <= MAX_TOP:
            raise UserError(f"--top: found {self.top}, expected 1 to {MAX_TOP}")
        numeric = [name for name in NAMES if name not in ("pool_after", "bypass")]
        asked = [("sort", name.removeprefix("-")) for name in self.sort]
        asked += [("minimize", name) for name in self.minimize]
        asked += [("maximize", name) for name in self.maximize]
        for option, name in asked:
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

    `front` and `top` have a column a field and a cost; `ranges` the least and greatest of each
    cost column; `shares` how often each value of each listed axis stands in the rows kept;
    `pools` the cost of each `pool_after` (geometric mean, least, greatest of MACs and
    activations); `density` counts the rows kept in cells of params (axis 0) by MACs (axis 1), both
    in `CELLS_PER_DECADE` steps of the logarithm from 1.
    """

    space: Space
    query: Query
    combinations: int
    feasible: int
    kept: int
    front: pd.DataFrame
    top: pd.DataFrame
    ranges: pd.DataFrame
    shares: dict[str, dict[Any, int]]
    pools: pd.DataFrame
    density: NDArray[np.int64]

    @property
    def input_size(self) -> int:
        """Side of the input that the costs are for, pixels."""
        return self.space.variants[0].input_size


def take_census(
    space: Space,
    query: Query,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Census:
    """Count, filter, rank and write the architectures of `space`.

    Args:
        space: every combination is looked at, unless `query.sample` says to draw some.
        query: what to keep.
        out: Parquet file for the rows kept (the `top` rows, if asked for); written whole or not
            at all.
        progress: told as the pass, and a second one where a file is sorted, goes on.

    Raises:
        UserError: the space cannot be enumerated, or is too large to sort or sample.
        CostOverflow: a count reaches 2**53.
    """
    rows = _rows(space, query)
    counts, front, density, pools = _Counts(space), _Front(query), _Density(), _Pools(space)
    best = _Best(query.sort, query.top) if query.top is not None else None
    order = _Order(query.sort) if out and query.sort and best is None else None
    with ExitStack() as stack:
        writer = _Writer(stack.enter_context(replacing(out))) if out else None
        consumers: list[_Consumer] = [counts, front, density, pools]
        consumers += [c for c in (best, order) if c]
        if writer and not best and not order:
            consumers.append(writer)
        for block in _told(rows.blocks(), "counting", len(rows), progress):
            kept = block.where(query.where)
            counts.feasible += block.rows
            for consumer in consumers:
                consumer.add(kept)
        if writer and best:
            writer.add(best.block())
        if writer and order:
            for block in _told(rows.at(order.numbers()), "writing", counts.kept, progress):
                writer.add(block)
        if writer:
            writer.finish(counts.empty)
    return Census(
        space=space,
        query=query,
        combinations=len(rows),
        feasible=counts.feasible,
        kept=counts.kept,
        front=front.block().frame(),
        top=(best.block() if best else counts.empty).frame(),
        ranges=counts.ranges(),
        shares=counts.shares(),
        pools=pools.frame(),
        density=density.cells,
    )


def write_census(census: Census, spec: Spec, folder: Path) -> list[Path]:
    """Write what is worth keeping of the census of `spec` into `folder`; returns the files.

    `front` and `pools` as CSV and Parquet, `census.json` (counts, ranges, shares, what was asked,
    provenance) and the spec.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in {"front": census.front, "pools": census.pools}.items():
        write_atomically(folder / f"{name}.csv", frame.to_csv(index=False).encode())
        write_atomically(folder / f"{name}.parquet", frame.to_parquet(index=False))
    write_json(folder / "census.json", _summary(census, spec))
    write_atomically(folder / "spec.yaml", spec.source.encode())
    return [folder / name for name in ("front.csv", "pools.csv", "census.json")]


def _summary(census: Census, spec: Spec) -> dict[str, object]:
    query = census.query
    return {
        "name": spec.name,
        "question": spec.question,
        "input_size": census.input_size,
        "combinations": census.combinations,
        "drawn_at_random": query.sample is not None,
        "feasible": census.feasible,
        "where": query.where.text if query.where else None,
        "kept": census.kept,
        "ranges": {
            name: {end: float(v) if name == "size_mb" else int(v) for end, v in row.items()}
            for name, row in census.ranges.iterrows()
            if census.kept
        },
        "shares": {
            name: {format_value(value): n for value, n in counts.items()}
            for name, counts in census.shares.items()
        },
        "front": {
            "minimize": query.minimize,
            "maximize": query.maximize,
            "size": len(census.front),
        },
        "provenance": provenance.of_sweep("cpu"),
    }


# --- rows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """Some feasible rows: their numbers, fields and costs as columns (fixed fields scalars)."""

    numbers: NDArray[np.int64]
    columns: dict[str, Any]
    looked_at: int = 0

    @property
    def rows(self) -> int:
        return len(self.numbers)

    def take(self, index: Any) -> _Block:
        return _Block(self.numbers[index], take_rows(self.columns, index))

    def where(self, condition: Expression | None) -> _Block:
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
        frame = frame_of_columns(self.columns, self.rows)
        for name in COST_COLUMNS:
            frame[name] = self.columns[name]
        return frame


def _joined(blocks: list[_Block]) -> _Block:
    """The rows of at least one block."""
    columns = {
        name: value if np.ndim(value) == 0 else np.concatenate([b.columns[name] for b in blocks])
        for name, value in blocks[0].columns.items()
    }
    return _Block(np.concatenate([block.numbers for block in blocks]), columns)


class _Rows:
    """The architectures a census looks at, by number: a whole space, or a sample drawn from it."""

    def __init__(self, space: Space, sample: dict[str, Any] | None, length: int) -> None:
        self.space, self._sample, self._length = space, sample, length

    def __len__(self) -> int:
        return self._length

    def blocks(self) -> Iterator[_Block]:
        """Every feasible row, once and in order."""
        for start in range(0, self._length, _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, self._length), dtype=np.int64)
            yield self._block(numbers)

    def at(self, numbers: NDArray[np.int64]) -> Iterator[_Block]:
        """The rows of these numbers, in their order."""
        for start in range(0, len(numbers), _BLOCK):
            yield self._block(numbers[start : start + _BLOCK])

    def _block(self, numbers: NDArray[np.int64]) -> _Block:
        if self._sample is None:
            columns = self.space.columns_at(numbers)
        else:
            columns = {
                name: value if np.ndim(value) == 0 else value[numbers]
                for name, value in self._sample.items()
            }
        costs, keep = self.space.costs(columns, len(numbers))
        block = _Block(numbers, columns | costs)
        block = block if keep.all() else block.take(keep)
        return _Block(block.numbers, block.columns, looked_at=len(numbers))


def _rows(space: Space, query: Query) -> _Rows:
    if query.sample is not None:
        if not 1 <= query.sample <= MAX_SAMPLE:
            raise UserError(f"--sample: found {query.sample}, expected 1 to {MAX_SAMPLE}")
        return _Rows(space, space.sample(query.sample, query.seed), query.sample)
    try:
        size = space.size
    except UserError as error:
        raise UserError(f"{error}, or draw some of them with --sample N") from None
    if size > MAX_COMBINATIONS:
        raise UserError(
            f"the space has {size:,} combinations, expected at most {MAX_COMBINATIONS:,}; "
            "draw some of them with --sample N"
        )
    return _Rows(space, None, size)


# --- what sees the rows ------------------------------------------------------------------------


class _Consumer(Protocol):
    """Sees every kept row once, in order, and keeps what it needs."""

    def add(self, block: _Block) -> None: ...


class _Counts:
    """How many rows there are, the extremes of their costs, the values of their axes."""

    def __init__(self, space: Space) -> None:
        self.feasible = self.kept = 0
        self._least = dict.fromkeys(COST_COLUMNS, math.inf)
        self._most = dict.fromkeys(COST_COLUMNS, -math.inf)
        self._codes = {axis.field: space.codes_of(axis) for axis in _listed(space)}
        self._seen = {name: np.zeros(len(codes), np.int64) for name, codes in self._codes.items()}
        self._empty: _Block | None = None

    def add(self, block: _Block) -> None:
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
    def empty(self) -> _Block:
        """A block of no rows."""
        assert self._empty is not None  # a space has at least one block
        return self._empty

    def ranges(self) -> pd.DataFrame:
        return pd.DataFrame({"least": self._least, "greatest": self._most})

    def shares(self) -> dict[str, dict[Any, int]]:
        return {
            name: {
                decode(name, code): int(count)
                for code, count in zip(codes, self._seen[name], strict=True)
            }
            for name, codes in self._codes.items()
        }


class _Front:
    """The Pareto front of the rows so far: that of all rows is the front of the blocks' fronts."""

    def __init__(self, query: Query) -> None:
        self._names = (*query.minimize, *query.maximize)
        self._sign = np.array([1.0] * len(query.minimize) + [-1.0] * len(query.maximize))
        self._rows: _Block | None = None

    def add(self, block: _Block) -> None:
        front = block.take(slice(0, 0)) if self._rows is None else self._rows
        values = np.concatenate([self._values(front), self._values(block)])
        keep = nondominated(values)
        if keep.sum() > MAX_FRONT:
            raise UserError(
                f"the Pareto front has more than {MAX_FRONT:,} rows: {', '.join(self._names)} do "
                "not tell them apart; choose others with --minimize and --maximize"
            )
        self._rows = _joined([front.take(keep[: front.rows]), block.take(keep[front.rows :])])

    def block(self) -> _Block:
        """The front, sorted by its objectives."""
        assert self._rows is not None  # a space has at least one block
        values = self._values(self._rows)
        return self._rows.take(np.lexsort((self._rows.numbers, *values.T[::-1])))

    def _values(self, block: _Block) -> NDArray[np.float64]:
        return block.values(self._names) * self._sign


class _Best:
    """The first rows in an order."""

    def __init__(self, sort: tuple[str, ...], top: int) -> None:
        self._sort, self._top = sort, top
        self._held: list[_Block] = []

    def add(self, block: _Block) -> None:
        self._held.append(block)
        if sum(held.rows for held in self._held) > 2 * self._top:  # not at every block
            self._held = [self.block()]

    def block(self) -> _Block:
        """The rows, in order."""
        rows = _joined(self._held)
        return rows.take(_sorted(rows.numbers, _keys(rows, self._sort))[: self._top])


class _Order:
    """The numbers of all rows in an order, for a file that is sorted."""

    def __init__(self, sort: tuple[str, ...]) -> None:
        self._sort = sort
        self._numbers: list[NDArray[np.int64]] = []
        self._keys: list[list[NDArray[np.float64]]] = []
        self._held = 0

    def add(self, block: _Block) -> None:
        self._held += block.rows
        if self._held > MAX_SORTED:
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
        return numbers[_sorted(numbers, keys)]


def _keys(block: _Block, sort: tuple[str, ...]) -> list[NDArray[np.float64]]:
    """What rows are sorted by, most significant first, ascending."""
    values = block.values(tuple(name.removeprefix("-") for name in sort))
    signs = [-1.0 if name.startswith("-") else 1.0 for name in sort]
    return [values[:, i] * sign for i, sign in enumerate(signs)]


def _sorted(numbers: NDArray[np.int64], keys: list[NDArray[np.float64]]) -> NDArray[np.int64]:
    return np.lexsort((numbers, *reversed(keys)))


class _Density:
    """How many rows fall into each cell of params by MACs."""

    def __init__(self) -> None:
        side = _DECADES * CELLS_PER_DECADE
        self.cells = np.zeros((side, side), np.int64)

    def add(self, block: _Block) -> None:
        params, macs = (
            (np.log10(block.columns[name]) * CELLS_PER_DECADE).astype(np.int64)
            for name in ("params", "macs")
        )
        flat = params * self.cells.shape[1] + macs
        self.cells += np.bincount(flat, minlength=self.cells.size).reshape(self.cells.shape)


class _Pools:
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

    def add(self, block: _Block) -> None:
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


class _Writer:
    """Rows into Parquet, a large row group at a time."""

    _GROUP = 2**18

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[_Block] = []

    def add(self, block: _Block) -> None:
        self._waiting.append(block)
        if sum(block.rows for block in self._waiting) >= self._GROUP:
            self._write()

    def finish(self, empty: _Block) -> None:
        """Write what is waiting, and the file's end; `empty` gives the columns of an empty file."""
        self._waiting.append(empty)
        self._write()
        assert self._writer is not None
        self._writer.close()

    def _write(self) -> None:
        frame = _joined(self._waiting).frame()
        self._waiting.clear()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, _schema(frame), compression="zstd")
        self._writer.write_table(
            pa.Table.from_pandas(frame, schema=self._writer.schema, preserve_index=False)
        )


def _schema(frame: pd.DataFrame) -> pa.Schema:
    """Categories as dictionaries of text, whatever categories a block happens to have."""
    plain = pa.Schema.from_pandas(frame, preserve_index=False)
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [
        pa.field(f.name, text) if isinstance(frame[f.name].dtype, pd.CategoricalDtype) else f
        for f in plain
    ]
    return pa.schema(fields)


def _listed(space: Space) -> list[Axis]:
    return [axis for axis in space.axes if not axis.continuous]


def _told(
    blocks: Iterator[_Block], what: str, rows: int, progress: Progress | None
) -> Iterator[_Block]:
    """The blocks, `progress` being told when the caller has done with each."""
    if progress:
        progress.start(what, rows)
    for block in blocks:
        yield block
        if progress:
            progress.advance(block.looked_at)
