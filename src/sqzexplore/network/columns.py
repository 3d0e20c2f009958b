"""Architectures as columns: one array a metaparameter, for arithmetic over millions of them.

Numbers are float64 (exact for every integer a field takes), `pool_after` is a bit mask in int64
(bit `layer` is set), `bypass` an index into `BYPASSES`, `batch_norm` 0 or 1. A scalar stands for
a field that is the same in every row. What a single Fire overrides has a column of its own, such
as `fire5.squeeze_ratio`, if any row has it; NaN is in the rows that have it not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .architecture import FIELDS, KEYS, Architecture
from .overrides import BYPASSES, OVERRIDES
from .rules import expand3x3_filters, expand_filters, scaled_width, squeeze_filters

Columns = Mapping[str, Any]


def encode(key: str, values: Iterable[Any]) -> NDArray[Any]:
    """Valid values of one field, or of one override (None where there is none), as a column."""
    if key == "pool_after":
        return np.array([sum(1 << layer for layer in v) for v in values], dtype=np.int64)
    if KEYS[key] is str:
        values = [None if v is None else BYPASSES.index(v) for v in values]
    return np.array(list(values), dtype=np.float64)  # None becomes NaN


def decode(key: str, value: Any) -> Any:
    """One number of a column as the value that the field, or the override, holds."""
    if key == "pool_after":
        mask = int(value)
        return tuple(layer for layer in range(1, mask.bit_length()) if mask >> layer & 1)
    if key in OVERRIDES and np.isnan(value):
        return None
    if KEYS[key] is str:
        return BYPASSES[int(value)]
    return KEYS[key](value)


def columns_of(architectures: list[Architecture]) -> dict[str, NDArray[Any]]:
    """Architectures as columns."""
    given = {key for a in architectures for key in a.overrides.flat()}
    keys = [*FIELDS, *(key for key in OVERRIDES if key in given)] if given else FIELDS
    return {key: encode(key, [a.get(key) for a in architectures]) for key in keys}


def override(c: Columns, key: str, otherwise: Any) -> Any:
    """The column of what `key` overrides: `otherwise` in the rows that do not override it."""
    given = c.get(key)
    return otherwise if given is None else np.where(np.isnan(given), otherwise, given)


def of_fire(c: Columns, layer: int, name: str) -> Any:
    """What Fire `layer` has, overridden or not: one of `OVERRIDABLE` as a column."""
    formula = (
        expand_filters(layer - 2, c["base_expand"], c["expand_increment"], c["increment_every"])
        if name == "expand_filters"
        else c[name]
    )
    return override(c, f"fire{layer}.{name}", formula)


def fire_filters(c: Columns, layer: int) -> tuple[Any, Any, Any]:
    """The filters of Fire `layer`: of its squeeze, of its expansion, and the 3x3 among those."""
    outputs = scaled_width(of_fire(c, layer, "expand_filters"), c["width_multiplier"])
    expand3x3 = expand3x3_filters(outputs, of_fire(c, layer, "fraction_3x3"))
    squeeze = squeeze_filters(outputs, of_fire(c, layer, "squeeze_ratio"))
    return squeeze, outputs, expand3x3


def bypassed(bypass: Any, in_channels: Any, out_channels: Any) -> tuple[Any, Any]:
    """In which rows a Fire is bypassed as it is, and by a 1x1 convolution (section 6).

    Args:
        bypass: what the Fire has, as a column holds it.
        in_channels: of the Fire.
        out_channels: of the Fire.
    """
    same = in_channels == out_channels
    return same & (bypass > 0), ~same & (bypass == BYPASSES.index("complex"))


def take_rows(columns: Columns, rows: Any) -> dict[str, Any]:
    """Some rows of columns: a row's number, a slice or what else indexes an array."""
    return {name: v if np.ndim(v) == 0 else v[rows] for name, v in columns.items()}


def architecture_at(columns: Columns, row: int) -> Architecture:
    """The Architecture of one row of columns."""
    return Architecture(**{k: decode(k, v) for k, v in take_rows(columns, row).items()})
