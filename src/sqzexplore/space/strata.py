"""Random networks, as many of each size."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..network.architecture import Architecture
from ..network.columns import architecture_at
from .space import Space

#: Strata, and architectures in one drawing.
STRATA = 10
_BLOCK = 65_536
#: Drawings in a row that hold nothing for a stratum, after which it counts as empty.
_PATIENCE = 4
#: So many wait for their turn in each stratum.
_WAITING = 64


def stratified(
    space: Space, column: str, seed: int, key_path: str = "search.stratify"
) -> Iterator[Architecture]:
    """Feasible networks drawn at random, stratified by the logarithm of a cost.

    Drawn uniformly, most of a space is large; here each tenth of the range, in the logarithm,
    takes its turn, and gives an architecture drawn uniformly from its own. The range is that of
    65,536 architectures drawn first. No two are the same network (`net_id`); one that many
    metaparameters spell is as much likelier to be drawn. The sequence depends on `space`, `column`
    and `seed` alone, so that a longer sweep begins with a shorter one's networks. A stratum ends
    where four drawings of 65,536 in a row bring it nothing new among the first 64 of each that are
    its own, the sequence with the last stratum.

    Args:
        space: the design space, with its constraints.
        column: a cost, such as macs.
        seed: of the generator.
        key_path: what a message begins with: who asks for it.

    Raises:
        UserError: none of those drawn first is feasible, or the cost is zero in one.
    """
    first, keep = space.costs(space.sample(_BLOCK, seed), _BLOCK)
    sizes = np.broadcast_to(first[column], _BLOCK)[keep].astype(float)
    if not len(sizes) or sizes.min() <= 0:
        found = f"{column} of {sizes.min():g}" if len(sizes) else "no feasible architecture"
        raise UserError(
            f"{key_path}: found {found} among {_BLOCK:,} drawn at random, expected "
            f"feasible ones with a positive {column}"
        )
    edges = np.linspace(math.log(sizes.min()), math.log(sizes.max()), STRATA + 1)[1:-1]
    drawing = _Drawing(space, column, seed, edges)
    turns = deque(range(STRATA))
    while turns:
        architecture = drawing.next(turns[0])
        if architecture is None:
            turns.popleft()
        else:
            turns.rotate(-1)
            yield architecture


class _Drawing:
    """What was drawn, by stratum, and which networks have been given."""

    def __init__(self, space: Space, column: str, seed: int, edges: NDArray[np.float64]) -> None:
        self._space, self._column, self._seed, self._edges = space, column, seed, edges
        self._waiting: list[deque[Architecture]] = [deque() for _ in range(len(edges) + 1)]
        self._given: set[str] = set()
        self._drawn = 0

    def next(self, stratum: int) -> Architecture | None:
        """The next network of a stratum, or None if none is left that many drawings find."""
        for drawing in range(_PATIENCE + 1):
            if drawing:
                self._draw()
            while self._waiting[stratum]:
                architecture = self._waiting[stratum].popleft()
                if architecture.net_id not in self._given:
                    self._given.add(architecture.net_id)
                    return architecture
        return None

    def _draw(self) -> None:
        """One more block of the space, sorted into the strata."""
        self._drawn += 1
        seed = int(np.random.SeedSequence([self._seed, self._drawn]).generate_state(1)[0])
        columns: dict[str, Any] = self._space.sample(_BLOCK, seed)
        costs, keep = self._space.costs(columns, _BLOCK)
        sizes = np.broadcast_to(costs[self._column], _BLOCK).astype(float)
        strata = np.digitize(np.log(np.where(keep, sizes, 1.0)), self._edges)
        for stratum, waiting in enumerate(self._waiting):
            wanted = _WAITING - len(waiting)
            for row in np.flatnonzero(keep & (strata == stratum))[:wanted].tolist():
                waiting.append(architecture_at(columns, row))
