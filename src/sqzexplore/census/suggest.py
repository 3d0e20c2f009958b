"""The trainings most worth running next: the expected gain of hypervolume, over a whole space.

With one exact cost and one uncertain accuracy, the expected improvement of the hypervolume
(Emmerich et al., CEC 2011) is a sum over the steps of the measured front: how wide a step is, times
by how much a network's accuracy is expected to exceed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..network.columns import decode
from ..network.frames import columns_of_frame
from ..predict.fit import Model
from ..predict.trained import ended_early, failed_to_learn
from ..schema import EXTRAPOLATED
from ..space.space import Space
from ..spec.models import Spec
from ..spec.yaml_text import dump, flow, load
from .blocks import Block, joined

Array = NDArray[np.float64]
#: Candidates kept in each cell of the cost; cells a decade of it.
_IN_A_CELL, _CELLS_PER_DECADE = 200, 10
#: Validation decides what is trained; test is for the report.
TARGET = "val_top1"
#: What a network is expected to gain.
GAIN = "expected_gain"


@dataclass
class Steps:
    """The front of what was measured, as the accuracy that is reached at each cost.

    Args:
        costs: natural logarithms, ascending.
        values: the accuracy at each, ascending, %.
        least: what counts as reached below the first cost, %.
        last: the logarithm of the cost that the volume ends at.
    """

    costs: Array
    values: Array
    least: float
    last: float

    @classmethod
    def of(cls, costs: Array, values: Array) -> Steps:
        """Of measured networks: their costs, and their accuracies in percent."""
        logs = np.log(costs)
        order = np.lexsort((-values, logs))
        logs, sorted_values = logs[order], values[order]
        first = np.r_[True, sorted_values[1:] > np.maximum.accumulate(sorted_values)[:-1]]
        return cls(logs[first], sorted_values[first], float(values.min()), float(logs.max()))

    def with_one(self, cost: float, value: float) -> Steps:
        """With another network, as if it had been measured."""
        costs, values = np.r_[self.costs, np.log(cost)], np.r_[self.values, value]
        more = Steps.of(np.exp(costs), values)
        return Steps(more.costs, more.values, self.least, self.last)

    def expected_gain(self, costs: Array, means: Array, spreads: Array) -> Array:
        """By how much networks are expected to enlarge the hypervolume, in points of accuracy times
        the natural logarithm of the cost.

        Args:
            costs: of N networks.
            means: of their accuracy, %.
            spreads: its standard deviation, points.
        """
        from scipy.stats import norm

        gain = np.zeros(len(costs))
        starts = np.r_[-np.inf, self.costs]
        ends = np.r_[self.costs, max(self.last, self.costs[-1])]
        for start, end, reached in zip(starts, ends, np.r_[self.least, self.values], strict=True):
            width = np.clip(end - np.maximum(np.log(costs), start), 0, None)
            above = (means - reached) / spreads
            gain += width * spreads * (norm.pdf(above) + above * norm.cdf(above))
        return gain


@dataclass
class Suggestions:
    """Sees the rows of a census, and keeps those whose training is expected to gain most.

    Not what was trained already, dead networks too, nor what is extrapolated: its interval means
    little.

    Args:
        model: of the validation accuracy, which decides.
        cost: the column that accuracy is traded against.
        measured: trials of the same proxy and budget, with `cost` and the model's target.
    """

    model: Model
    cost: str
    measured: pd.DataFrame
    _held: dict[int, Block] = field(default_factory=dict)

    def __post_init__(self) -> None:
        failed = failed_to_learn(self.measured)
        known = self.measured[~(failed | ended_early(self.measured))]
        known = known.dropna(subset=[self.model.target, self.cost])
        costs, values = (known[n].to_numpy(dtype=float) for n in (self.cost, self.model.target))
        self._steps = Steps.of(costs, values)
        trained = self.measured[failed | self.measured[self.model.target].notna()]
        self._trained = self.model.view.networks(columns_of_frame(trained), len(trained))

    def add(self, block: Block) -> None:
        """Take the next rows."""
        said = self.model.columns(block.columns, block.rows)
        block = Block(block.numbers, block.columns | said)
        block = block.take(~(said[EXTRAPOLATED] | np.isnan(said[self.model.target])))
        block = block.take(
            ~np.isin(self.model.view.networks(block.columns, block.rows), self._trained)
        )
        block = self._with_gain(block, self._steps)
        block = block.take(block.columns[GAIN] > 0)
        cells = (np.log10(block.values((self.cost,))[:, 0]) * _CELLS_PER_DECADE).astype(int)
        for cell in np.unique(cells):
            here = block.take(cells == cell)
            both = joined([self._held[cell], here]) if cell in self._held else here
            best = np.argsort(-both.columns[GAIN], kind="stable")[:_IN_A_CELL]
            self._held[int(cell)] = both.take(np.sort(best))

    def chosen(self, count: int) -> Block | None:
        """The networks to train, the one that is expected to gain most first; each later one as if
        those before had been measured, and were as predicted. Fewer than `count` where no other is
        expected to gain anything; None where none is.
        """
        steps = self._steps
        picked: list[Block] = []
        left = joined([*self._held.values()]) if self._held else None
        while left is not None and left.rows and len(picked) < count:
            left = self._with_gain(left, steps)
            best = int(np.argmax(left.columns[GAIN]))
            if not left.columns[GAIN][best] > 1e-9:
                break
            one = left.take(slice(best, best + 1))
            picked.append(one)
            mean = float(one.columns[self.model.target][0])
            steps = steps.with_one(float(one.values((self.cost,))[0, 0]), mean)
            view = self.model.view
            same = view.networks(left.columns, left.rows) == view.networks(one.columns, 1)
            left = left.take(~same)
        return joined(picked) if picked else None

    def _with_gain(self, block: Block, steps: Steps) -> Block:
        from scipy.stats import norm

        mean, low, high, dead = (
            np.asarray(block.columns[name], dtype=float) for name in self.model.names[:4]
        )
        # The interval as that of a normal law: between its ends lies the level's share.
        spread = (high - low) / (2 * norm.ppf((1 + self.model.level) / 2))
        gain = steps.expected_gain(block.values((self.cost,))[:, 0], mean, np.maximum(spread, 1e-6))
        return Block(block.numbers, block.columns | {GAIN: gain * (1 - dead)})


def suggested_spec(
    spec: Spec, trained: Spec, chosen: Block, suggestions: Suggestions, source: str
) -> str:
    """The text of a sweep that trains the chosen networks as those before were trained.

    Args:
        spec: of the census, whose base and axes the networks have.
        trained: of the sweep that the prediction rests on, whose `measure` it takes.
        chosen: the networks.
        suggestions: what chose them.
        source: the folder that the prediction rests on.
    """
    before, own = load(trained.source), load(spec.source)
    target = suggestions.model.target
    head = [
        f"# {chosen.rows} networks of {spec.name} most worth training next: the expected gain of",
        f"# hypervolume, {target} against {suggestions.cost}, by {source}; each as if those above",
        "# had been trained. Behind each: its cost, and what is predicted.",
    ]
    content = {"name": f"{spec.name[:59]}-next"}
    content |= {key: own[key] for key in ("base", "input_size") if key in own}
    lines = [*head, *(_dumped({key: value}) for key, value in content.items()), "space:"]
    for row, changes in enumerate(_changes(spec.design_space, chosen)):
        names = suggestions.model.names[:3]
        mean, low, high = (float(chosen.columns[name][row]) for name in names)
        cost = float(chosen.values((suggestions.cost,))[row, 0])
        why = f"{cost:,.0f} {suggestions.cost}, {target} {mean:.1f} ({low:.1f} to {high:.1f})"
        lines.append(f"  - {{{flow(changes)}}}  # {why}")
    lines.append(_dumped({"measure": before["measure"]}))
    return "\n".join(lines) + "\n"


def _changes(space: Space, chosen: Block) -> Sequence[dict[str, Any]]:
    """The axes' values of each network, as a spec writes them; none where a Fire overrides nothing,
    unless the base does."""
    found = []
    for row in range(chosen.rows):
        own = {
            a.field: np.broadcast_to(chosen.columns[a.field], chosen.rows)[row] for a in space.axes
        }
        values = {name: decode(name, code) for name, code in own.items()}
        given = {k: v for k, v in values.items() if v is not None or space.base.get(k) is not None}
        found.append({k: [*v] if isinstance(v, tuple) else v for k, v in given.items()})
    return found


def _dumped(value: Any) -> str:
    return dump(value, width=100).rstrip()
