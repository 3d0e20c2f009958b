"""The design space: a base Architecture, an axis a varied field, and constraints.

An enumerable space is a mixed-radix number system: architecture `i` takes the digits of `i` as
its positions on the axes, the first axis turning slowest. Where axes are conditional, the axes that
conditions speak of are the outer ones: each combination of them that there is, a *case*, says
which of the others vary, and so has a number system of its own. Architectures that are listed one
by one are cases in which nothing varies. Nothing is ever held for the
whole space, so that 10**8 architectures cost as much memory as one block of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..network.architecture import FIELDS, Architecture
from ..network.columns import Columns, architecture_at, columns_of, encode
from ..network.cost import cost_columns
from .axis import Axis
from .constraints import Expression

_BLOCK = 65536
#: Combinations of the axes that conditions speak of.
MAX_CASES = 1_000_000


@dataclass(frozen=True)
class Variant:
    """The same metaparameters at another input, with some of them replaced: what is trained."""

    input_size: int
    changes: Mapping[str, Any] = field(default_factory=dict)

    def columns(self, columns: Columns) -> dict[str, Any]:
        """What becomes of architectures as columns."""
        return {**columns, **{name: encode(name, [v])[0] for name, v in self.changes.items()}}


@dataclass(frozen=True)
class _Cases:
    """The combinations of the axes that conditions speak of, each once, in order.

    `columns` holds the fields of these axes, `active` which of the other axes vary, `weights` how
    likely a case is drawn, `starts` the number of each case's first architecture.
    """

    columns: dict[str, NDArray[Any]]
    active: dict[str, NDArray[np.bool_]]
    weights: NDArray[np.float64]
    sizes: list[int]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The number of each case's first architecture."""
        return np.array([0, *itertools.accumulate(self.sizes[:-1])], dtype=np.int64)


@dataclass(frozen=True)
class Space:
    """Every combination of the axes' values on top of `base`, or architectures one by one.

    Args:
        base: the fields that do not vary.
        axes: the fields that do, each once. No axis is conditional upon itself in the end, and
            those that a condition speaks of are not continuous.
        constraints: conditions that an architecture must meet, over fields and cost columns.
        variants: the inputs that it must have a feature map for; the costs that the constraints
            speak of are those of the first.
        listed: the architectures, if not every combination is meant; the axes say what varies.
    """

    base: Architecture
    axes: tuple[Axis, ...] = ()
    constraints: tuple[Expression, ...] = ()
    variants: tuple[Variant, ...] = (Variant(224),)
    listed: tuple[Architecture, ...] = ()

    @property
    def axis_names(self) -> list[str]:
        """The fields that vary."""
        return [axis.field for axis in self.axes]

    @property
    def enumerable(self) -> bool:
        """Whether every axis has a list of values."""
        return not any(axis.continuous for axis in self.axes)

    @cached_property
    def size(self) -> int:
        """Combinations of the axes' values, feasible or not.

        Raises:
            UserError: an axis is continuous.
        """
        for axis in self.axes:
            if axis.continuous:
                raise UserError(
                    f"space.{axis.field} is continuous ({axis.low} to {axis.high}): "
                    "its architectures cannot be enumerated; give it a step or a list of values"
                )
        if self._cases:
            return sum(self._cases.sizes)
        return math.prod(len(axis.values) for axis in self.axes)

    def __len__(self) -> int:
        return self.size

    def columns(self, start: int = 0, stop: int | None = None) -> dict[str, Any]:
        """Architectures `start` to `stop` (default: all) as columns; fixed fields are scalars."""
        stop = self.size if stop is None else min(stop, self.size)
        return self.columns_at(np.arange(start, stop, dtype=np.int64))

    def columns_at(self, index: NDArray[np.int64]) -> dict[str, Any]:
        """The architectures of these numbers as columns; fixed fields are scalars."""
        columns = self._fixed_columns()
        if cases := self._cases:
            case = np.searchsorted(cases.starts, index, side="right") - 1
            index = index - cases.starts[case]
            columns |= {name: codes[case] for name, codes in cases.columns.items()}
        for axis, values in zip(reversed(self.axes), reversed(self._values), strict=True):
            if not cases:
                index, digit = np.divmod(index, len(values))
                columns[axis.field] = values[digit]
            elif axis.field in cases.active:
                active = cases.active[axis.field][case]
                index, digit = np.divmod(index, np.where(active, len(values), 1))
                columns[axis.field] = np.where(active, values[digit], columns[axis.field])
        return columns

    def sample(self, rows: int, seed: int) -> dict[str, Any]:
        """`rows` architectures drawn independently, as columns: each axis uniform over its values
        or its interval, in the logarithm where it is a log axis.

        Where axes are conditional, a case is as likely as it has architectures, so that none is
        likelier for lacking an axis (a continuous axis counts as one value).
        """
        generator = np.random.default_rng(seed)
        columns = self._fixed_columns()
        if cases := self._cases:
            case = generator.choice(len(cases.sizes), rows, p=cases.weights)
            columns |= {name: codes[case] for name, codes in cases.columns.items()}
        for axis in self.axes:
            if not cases:
                columns[axis.field] = axis.draw(generator, rows)
            elif axis.field in cases.active:
                active = cases.active[axis.field][case]
                drawn = axis.draw(generator, rows)
                columns[axis.field] = np.where(active, drawn, columns[axis.field])
        return columns

    def architecture(self, index: int) -> Architecture:
        """Architecture number `index` of the enumeration.

        Raises:
            pydantic.ValidationError: this combination is no Architecture.
        """
        return architecture_at(self.columns(index, index + 1), 0)

    def blocks(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """The whole space in blocks: the number of the first, and which are feasible."""
        for start in range(0, self.size, _BLOCK):
            stop = min(start + _BLOCK, self.size)
            yield start, self.feasible(self.columns(start, stop), stop - start)

    def feasible(self, columns: Mapping[str, Any], rows: int) -> NDArray[np.bool_]:
        """Which of some rows have a feature map at every variant and meet every constraint."""
        return self.costs(columns, rows)[1]

    def costs(
        self, columns: Mapping[str, Any], rows: int
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
        """The cost columns of some rows at the first variant's input, and which are feasible."""
        costs: dict[str, NDArray[Any]] = {}
        keep = np.ones(rows, dtype=bool)
        for variant in self.variants:
            table, feasible = cost_columns(variant.columns(columns), rows, variant.input_size)
            keep &= feasible
            costs = costs or table
        for constraint in self.constraints:
            keep &= constraint({**columns, **costs})
        return costs, keep

    def accepts(self, architecture: Architecture) -> bool:
        """Whether one Architecture is feasible."""
        return bool(self.feasible(columns_of([architecture]), 1)[0])

    def indices(self) -> Iterator[int]:
        """The numbers of the feasible architectures, in order."""
        for start, keep in self.blocks():
            yield from (start + np.flatnonzero(keep)).tolist()

    def count(self) -> int:
        """How many architectures are feasible, exactly."""
        return sum(int(keep.sum()) for _, keep in self.blocks())

    def codes_of(self, axis: Axis) -> NDArray[Any]:
        """What a listed axis's field can be, sorted, as a column holds it: its values, and the
        base's where it is conditional."""
        base = encode(axis.field, [self.base.get(axis.field)] if axis.when else [])
        return np.unique(np.concatenate([axis.codes(), base.astype(axis.codes().dtype)]))

    @cached_property
    def ordered_axes(self) -> tuple[Axis, ...]:
        """The axes, each after those that its condition speaks of; in order otherwise.

        Raises:
            UserError: conditions go round in a circle.
        """
        ordered: list[Axis] = []
        left = list(self.axes)
        while left:
            waiting = {axis.field for axis in left}
            ready = [a for a in left if not any(name in waiting for name, _ in a.when)]
            if not ready:
                raise UserError(
                    f"space.{left[0].field}.when: found conditions that go round in a circle, "
                    f"among {', '.join(axis.field for axis in left)}"
                )
            ordered.append(ready[0])
            left.remove(ready[0])
        return tuple(ordered)

    @cached_property
    def _values(self) -> tuple[NDArray[Any], ...]:
        return tuple(axis.codes() for axis in self.axes)

    @cached_property
    def _cases(self) -> _Cases | None:
        """None where no axis is conditional, and architectures are not listed.

        Raises:
            UserError: there are more than `MAX_CASES`.
        """
        if self.listed:
            count = len(self.listed)
            columns = {
                a.field: encode(a.field, [n.get(a.field) for n in self.listed]) for a in self.axes
            }
            return _Cases(columns, {}, np.full(count, 1 / count), [1] * count)
        requested = {name for axis in self.axes for name, _ in axis.when}
        if not requested:
            return None
        fixed = self._fixed_columns()
        columns = {}
        weights = np.ones(1)
        for axis in self.ordered_axes:
            if axis.field not in requested:
                continue
            active = self._active(axis, columns, len(weights))
            repeats = np.where(active, len(axis.values), 1)
            if repeats.sum() > MAX_CASES:
                raise UserError(
                    f"space: found more than {MAX_CASES:,} combinations of the axes that "
                    f"conditions speak of: {', '.join(sorted(requested))}"
                )
            case = np.repeat(np.arange(len(weights)), repeats)
            digit = np.arange(len(case)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
            columns = {name: codes[case] for name, codes in columns.items()}
            columns[axis.field] = np.where(active[case], axis.codes()[digit], fixed[axis.field])
            likely = axis.weights()[digit] * len(axis.values)
            weights = weights[case] * np.where(active[case], likely, 1.0)
        sizes = np.ones(len(weights), dtype=object)
        others = {axis.field: axis for axis in self.axes if axis.field not in requested}
        actives = {n: self._active(a, columns, len(weights)) for n, a in others.items()}
        for name, axis in others.items():
            sizes *= np.where(actives[name], max(1, len(axis.values)), 1).astype(object)
        weights = weights * sizes.astype(np.float64)
        return _Cases(columns, actives, weights / weights.sum(), [int(size) for size in sizes])

    def _active(self, axis: Axis, columns: Mapping[str, Any], rows: int) -> NDArray[np.bool_]:
        """In which rows an axis exists, by the columns of what its condition speaks of."""
        active = np.ones(rows, dtype=bool)
        for name, values in axis.when:
            active &= _isin(columns[name], encode(name, values))
        return active

    def _fixed_columns(self) -> dict[str, Any]:
        return dict(self._fixed)

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        keys = [*FIELDS, *self.base.overrides.flat(), *self.axis_names]
        return {key: encode(key, [self.base.get(key)])[0] for key in dict.fromkeys(keys)}


def _isin(column: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    """Membership; NaN, which is no override, is one value."""
    return np.isin(column, values) | (np.isnan(column) & np.isnan(values).any())
