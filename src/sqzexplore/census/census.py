"""The census: the exact cost of every architecture of a space, in one pass and bounded memory.

The pass goes through the space block by block. What is asked of it - the best rows, the Pareto
front, the density, the Parquet file - each sees the rows that pass the filter and keeps only what
it needs, so that 10**8 architectures take no more memory than 10**6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from ..files import replacing
from ..space.space import Space
from .accumulators import Best, Consumer, Counts, Density, Front, Order, Pools, PossibleFront
from .blocks import Block, architecture_rows
from .files import WRITERS
from .networks import Networks
from .query import Census, Query


class Progress(Protocol):
    """Who is told how a census goes."""

    def start(self, what: str, rows: int) -> None:
        """A pass over `rows` rows begins; `what` it does."""

    def advance(self, rows: int) -> None:
        """`rows` more were looked at."""


def take_census(
    space: Space,
    query: Query,
    out: Path | None = None,
    progress: Progress | None = None,
    also: Sequence[Consumer] = (),
) -> Census:
    """Count, filter, rank and write the distinct networks of `space`.

    Of the architectures that are one network (`net_id`) the first that meets the filter stands for
    all; a column says how many they are.

    Args:
        space: every combination is looked at, unless `query.sample` says to draw some.
        query: what to keep.
        out: Parquet file for the rows kept (the `top` rows, if asked for); written whole or not
            at all.
        progress: told as the pass, and a second one where a file is sorted, goes on.
        also: what else sees the rows kept.

    Raises:
        UserError: the space cannot be enumerated, or is too large to sort or sample.
        CostOverflow: a count reaches 2**53.
    """
    rows = architecture_rows(space, query)
    counts, front, pools = Counts(space), Front(query), Pools(space)
    density = Density(query.predictions[0].target if query.predictions else None)
    possible = PossibleFront(query) if query.front_is_predicted else None
    networks = None if query.spellings else Networks()
    best = Best(query.sort, query.top) if query.top is not None else None
    # How often a network is spelled, and what is on the front, is known after the last row alone.
    again = bool(query.sort or networks or possible)
    order = Order(query.sort) if out and again and best is None else None

    def seen(block: Block) -> Block:
        block = possible.marked(block) if possible else block
        return networks.spelled(block) if networks else block

    with ExitStack() as stack:
        writer = WRITERS[out.suffix](stack.enter_context(replacing(out))) if out else None
        consumers: list[Consumer] = [counts, front, density, pools, *also]
        consumers += [c for c in (best, order, possible) if c]
        if writer and not best and not order:
            consumers.append(writer)
        for block in _with_progress(rows.blocks(), "counting", len(rows), progress):
            kept = block.where(query.where)
            counts.feasible += block.rows
            counts.spelled += kept.rows
            kept = networks.first(kept) if networks else kept
            for consumer in consumers:
                consumer.add(kept)
        if writer and best:
            writer.add(seen(best.block()))
        if writer and order:
            for block in _with_progress(rows.at(order.numbers()), "writing", counts.kept, progress):
                writer.add(seen(block))
        if writer:
            writer.finish(seen(counts.empty))
    may_be = possible.block() if possible else None
    return Census(
        space=space,
        query=query,
        combinations=len(rows),
        feasible=counts.feasible,
        kept=counts.kept,
        spelled=counts.spelled,
        front=seen(front.block()).frame(),
        possible=seen(may_be).frame() if may_be else None,
        top=seen(best.block() if best else counts.empty).frame(),
        ranges=counts.ranges(),
        shares=counts.shares(),
        pools=pools.frame(),
        density=density.cells,
        predicted_density=density.sums,
    )


def _with_progress(
    blocks: Iterator[Block], what: str, rows: int, progress: Progress | None
) -> Iterator[Block]:
    """The blocks, `progress` being told when the caller has done with each."""
    if progress:
        progress.start(what, rows)
    for block in blocks:
        yield block
        if progress:
            progress.advance(block.looked_at)
