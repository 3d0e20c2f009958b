"""One axis of a design space: what a field varies over."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.columns import encode


@dataclass(frozen=True)
class Axis:
    """What one field varies over: `values` in order, or the interval `low` to `high`.

    `field` may be an override too, such as `fire5.squeeze_ratio`; its value None is none. `when`
    names other axes with the values at which this one exists; elsewhere the field has the value of
    the space's base. `log` says that samplers draw uniformly in the logarithm; `listed`, that the
    user wrote the values one by one, rather than a range or subsets.
    """

    field: str
    values: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    listed: bool = True
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def active(self, value_of: Callable[[str], Any]) -> bool:
        """Whether the axis exists where the other fields have the values of `value_of`."""
        return all(value_of(name) in values for name, values in self.when)

    @property
    def continuous(self) -> bool:
        """Whether the axis has no list of values."""
        return not self.values

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
        return generator.choice(self.codes(), rows, p=self.weights())

    def weights(self) -> NDArray[np.float64]:
        """How likely each of the values is drawn; the sum is 1."""
        values = self.codes()
        weights = np.log((values + 0.5) / (values - 0.5)) if self.log else np.ones(len(values))
        return weights / weights.sum()
