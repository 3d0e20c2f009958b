"""Where 3x3 filters see maps below 3x3 pixels, and what share of the weights cannot learn there.

On a map of 2x2 a padded 3x3 filter always sees padding; on one of 1x1 its centre alone ever meets
a pixel, and the other 8 taps have no gradient.
"""

from __future__ import annotations

import numpy as np

from ..network.architecture import Architecture
from ..network.columns import Columns, architecture_at, take_rows
from ..network.cost import FILTER_SIDE, cost, cost_columns, sees_small_maps
from ..network.frames import architecture_name
from ..network.overrides import layer_name
from .space import Variant


def described(architecture: Architecture, input_size: int) -> str | None:
    """Where in one architecture, and what it costs: `1x1 from fire9; 17.0% of the weights ...`.

    None where every 3x3 filter sees 3x3 pixels or more.
    """
    counted = cost(architecture, input_size)
    sides = {layer.name: layer.output_shape[1] for layer in counted.layers}
    first: dict[int, str] = {}
    for fire in architecture.fire_stages():
        name = layer_name(fire.layer)
        if fire.expand3x3 and sides[name] < FILTER_SIDE:
            first.setdefault(sides[name], name)
    if not first:
        return None
    text = ", ".join(f"{side}x{side} from {name}" for side, name in first.items())
    if dead := counted.params - counted.live_params:
        text += f"; {dead / counted.params:.1%} of the weights cannot learn"
    return text


class SmallMaps:
    """Which architectures of a space have them at one input, and the worst: block by block.

    Args:
        variant: what becomes of the space's architectures: nothing, or what is trained.
    """

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self.input_size = variant.input_size
        self._looked_at = self._found = 0
        self._share = -1.0
        self._worst: Architecture | None = None

    def add(self, columns: Columns, rows: int) -> None:
        """Look at some feasible rows of the space."""
        own = self._variant.columns(columns)
        small = np.flatnonzero(sees_small_maps(own, rows, self.input_size))
        self._looked_at += rows
        self._found += len(small)
        if not len(small):
            return
        costs, _ = cost_columns(take_rows(own, small), len(small), self.input_size)
        share = 1 - costs["live_params"] / costs["params"]
        most = int(np.argmax(share))
        if share[most] > self._share:
            self._share = float(share[most])
            self._worst = architecture_at(columns, int(small[most]))

    def text(self, axes: list[str], drawn: bool) -> str | None:
        """In how many, and where in the worst; None if in none.

        Args:
            axes: the fields that vary, by whose values the worst is named.
            drawn: whether what was looked at is a sample of the space.
        """
        if self._worst is None:
            return None
        name = architecture_name({axis: self._worst.get(axis) for axis in axes}, axes)
        trained = self._worst.replace(**self._variant.changes)
        return (
            f"in {self._found:,} of {self._looked_at:,} architectures"
            f"{' drawn at random' if drawn else ''} 3x3 filters see a map below 3x3; "
            f"worst is {name}: {described(trained, self.input_size)}"
        )
