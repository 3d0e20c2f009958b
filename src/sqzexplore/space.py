"""The design space: a base Architecture, an axis a varied field, and constraints.

An enumerable space is a mixed-radix number system: architecture `i` takes the digits of `i` as
its positions on the axes, the first axis turning slowest. Nothing is ever held for the whole
space, so that 10**8 architectures cost as much memory as one block of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from .architecture import FIELDS, Architecture
from .columns import architecture_at, encode, format_value
from .cost import cost_columns
from .errors import UserError
from .expressions import Expression

_BLOCK = 65536


@dataclass(frozen=True)
class Axis:
    """What one field varies over: `values` in order, or the interval `low` to `high`.

    `log` says that samplers draw uniformly in the logarithm; `listed`, that the user wrote the
    values one by one, rather than a range or subsets.
    """

    field: str
    values: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    listed: bool = True

    @property
    def continuous(self) -> bool:
        """Whether the axis has no list of values."""
        return not self.values

    def distribution(self) -> BaseDistribution:
        """The axis as Optuna draws from it."""
        if self.continuous:
            return FloatDistribution(self.low, self.high, log=self.log)
        if self.listed or len(self.values) == 1 or FIELDS[self.field] not in (int, float):
            return CategoricalDistribution([self.to_param(value) for value in self.values])
        step = self.values[1] - self.values[0]
        if FIELDS[self.field] is int:
            return IntDistribution(self.values[0], self.values[-1], log=self.log, step=step)
        return FloatDistribution(self.values[0], self.values[-1], step=step)

    def codes(self) -> NDArray[Any]:
        """The values as a column holds them."""
        return encode(self.field, self.values)

    def draw(self, generator: np.random.Generator, rows: int) -> NDArray[Any]:
        """`rows` independent values as a column."""
        if self.continuous and self.log:
            drawn = np.exp(generator.uniform(math.log(self.low), math.log(self.high), rows))
            return np.clip(drawn, self.low, self.high)  # exp(log(x)) may miss x by a rounding
        if self.continuous:
            return generator.uniform(self.low, self.high, rows)
        values = self.codes()
        weights = np.log((values + 0.5) / (values - 0.5)) if self.log else np.ones(len(values))
        return generator.choice(values, rows, p=weights / weights.sum())

    def to_param(self, value: Any) -> Any:
        """A value as Optuna stores it: the layers of `pool_after` as text."""
        return format_value(value) if self.field == "pool_after" else value

    def from_param(self, param: Any) -> Any:
        """The value of a parameter drawn by Optuna, which steps floats with rounding errors."""
        if FIELDS[self.field] is float and not self.continuous:
            return min(self.values, key=lambda value: abs(value - param))
        return param


@dataclass(frozen=True)
class Variant:
    """The same metaparameters at another input, with some of them replaced: what is trained."""

    input_size: int
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    """Every combination of the axes' values on top of `base`.

    Args:
        base: the fields that do not vary.
        axes: the fields that do, each once.
        constraints: conditions that an architecture must meet, over fields and cost columns.
        variants: the inputs that it must have a feature map for; the costs that the constraints
            speak of are those of the first.
    """

    base: Architecture
    axes: tuple[Axis, ...] = ()
    constraints: tuple[Expression, ...] = ()
    variants: tuple[Variant, ...] = (Variant(224),)

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
        for axis, values in zip(reversed(self.axes), reversed(self._values), strict=True):
            index, digit = np.divmod(index, len(values))
            columns[axis.field] = values[digit]
        return columns

    def sample(self, rows: int, seed: int) -> dict[str, Any]:
        """`rows` architectures drawn independently, as columns: each axis uniform over its values
        or its interval, in the logarithm where it is a log axis."""
        generator = np.random.default_rng(seed)
        columns = self._fixed_columns()
        for axis in self.axes:
            columns[axis.field] = axis.draw(generator, rows)
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
            changes = {name: encode(name, [value])[0] for name, value in variant.changes.items()}
            table, feasible = cost_columns({**columns, **changes}, rows, variant.input_size)
            keep &= feasible
            costs = costs or table
        for constraint in self.constraints:
            keep &= constraint({**columns, **costs})
        return costs, keep

    def accepts(self, architecture: Architecture) -> bool:
        """Whether one Architecture is feasible."""
        columns = {name: encode(name, [getattr(architecture, name)]) for name in FIELDS}
        return bool(self.feasible(columns, 1)[0])

    def indices(self) -> Iterator[int]:
        """The numbers of the feasible architectures, in order."""
        for start, keep in self.blocks():
            yield from (start + np.flatnonzero(keep)).tolist()

    def count(self) -> int:
        """How many architectures are feasible, exactly."""
        return sum(int(keep.sum()) for _, keep in self.blocks())

    def distributions(self) -> dict[str, BaseDistribution]:
        """The axes as Optuna draws from them."""
        return {axis.field: axis.distribution() for axis in self.axes}

    def from_params(self, params: Mapping[str, Any]) -> Architecture:
        """The Architecture of a trial's parameters.

        Raises:
            pydantic.ValidationError: this combination is no Architecture.
        """
        changes = {axis.field: axis.from_param(params[axis.field]) for axis in self.axes}
        return self.base.replace(**changes)

    def to_params(self, architecture: Architecture) -> dict[str, Any]:
        """The parameters of the trial that evaluates one Architecture of the space."""
        return {axis.field: axis.to_param(getattr(architecture, axis.field)) for axis in self.axes}

    @cached_property
    def _values(self) -> tuple[NDArray[Any], ...]:
        return tuple(axis.codes() for axis in self.axes)

    def _fixed_columns(self) -> dict[str, Any]:
        return {name: encode(name, [getattr(self.base, name)])[0] for name in FIELDS}
