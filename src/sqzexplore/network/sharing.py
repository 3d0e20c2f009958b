"""What two networks have in common."""

from __future__ import annotations

import re

from .architecture import Architecture
from .cost import cost

#: Any image that the stem takes: the shapes of weights do not depend on it.
_SIDE = 224


def shares_initial_weights(first: Architecture, second: Architecture) -> bool:
    """Whether one seed draws the same initial weights for both: all their weights agree in shape.

    So it is where only the pools, the strides or the padding differ, and between no bypass and a
    simple one, which has no weights.
    """
    return _shapes(first) == _shapes(second)


def _shapes(architecture: Architecture) -> list[tuple[str, int]]:
    """The filters, without their stride, and the parameters of each layer that has any."""
    layers = cost(architecture.replace(pool_after=(), stem_padding=0), _SIDE).layers
    return [(re.sub(r"/\d+", "", layer.filters), layer.params) for layer in layers if layer.params]
