"""Which of many architectures are the same network, in closed form over columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .architecture import FIELDS
from .columns import Columns, bypassed, fire_filters, of_fire, take_rows
from .overrides import OVERRIDES
from .rules import scaled_width

#: Fields that are the network's as they stand; all others act through the Fires' filters.
_AS_THEY_STAND = (
    *("in_channels", "stem_kernel", "stem_stride", "stem_padding", "pool_after"),
    *("batch_norm", "dropout", "num_classes"),
)
_FILTERS = tuple(name for name in FIELDS if name not in _AS_THEY_STAND)

Keys = NDArray[np.uint64]


def network_keys(columns: Columns, rows: int) -> Keys:
    """A number a row that is the same where `Architecture.net_id` is.

    64 bits: among n networks two have one by chance with probability n^2 / 2^65.

    Args:
        columns: of feasible architectures (`network.columns`).
        rows: how many.
    """
    names = [*_FILTERS, *(name for name in OVERRIDES if name in columns)]
    spelled = _mixed(columns, [n for n in names if np.ndim(columns[n])], rows)
    codes, _, first = first_of_each(spelled)
    keys = _of_filters(take_rows(columns, first), len(first))[codes]
    for name in _AS_THEY_STAND:
        keys = _mix(keys, columns[name])
    return keys


def first_of_each(keys: Keys) -> tuple[NDArray[np.intp], Keys, NDArray[np.int64]]:
    """The number of each row's key among the distinct ones, these, and the row of each that comes
    first."""
    codes, distinct = pd.factorize(keys)
    first = np.empty(len(distinct), np.int64)
    first[codes[::-1]] = np.arange(len(keys))[::-1]
    return codes, distinct, first


def _of_filters(c: Columns, rows: int) -> Keys:
    """A number for the filters and bypasses of all layers, after every rounding."""
    channels = scaled_width(c["stem_width"], c["width_multiplier"])
    keys = _mix(np.zeros(rows, np.uint64), channels)
    for layer in range(2, int(np.max(c["fires"], initial=0)) + 2):
        active = c["fires"] > layer - 2
        squeeze, outputs, expand3x3 = fire_filters(c, layer)
        identity, projection = bypassed(of_fire(c, layer, "bypass"), channels, outputs)
        longer = keys
        for value in (squeeze, outputs, expand3x3, identity + 2 * projection):
            longer = _mix(longer, value)
        keys = np.where(active, longer, keys)  # whatever the longest network beside it is
        channels = np.where(active, outputs, channels)
    return keys


def _mixed(columns: Columns, names: list[str], rows: int) -> Keys:
    keys = np.zeros(rows, np.uint64)
    for name in names:
        keys = _mix(keys, columns[name])
    return keys


def _mix(keys: Keys, values: Any) -> Keys:
    """`keys` and the bits of a column, scattered over 64 bits (the finaliser of SplitMix64: Steele,
    Lea and Flood, OOPSLA 2014)."""
    bits = np.asarray(values, np.float64)
    mixed = (keys ^ np.where(bits == 0, 0.0, bits).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
