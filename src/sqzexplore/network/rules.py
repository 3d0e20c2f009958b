"""The paper's rules (section 5.1): metaparameters -> numbers of filters and sizes of maps.

Over numbers or arrays alike; integers in float64, exact below 2**53.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def _round_half_up(x: Any) -> Any:
    return np.floor(x + 0.5)


def scaled_width(width: Any, width_multiplier: Any) -> Any:
    """Filters after the width multiplier: rounded half up, at least 1."""
    return np.maximum(1.0, _round_half_up(width * width_multiplier))


def expand_filters(
    index: Any, base_expand: Any, expand_increment: Any, increment_every: Any
) -> Any:
    """e_i = base_e + incr_e * floor(i / freq) of Fire `index`, counted from 0 (section 5.1)."""
    return base_expand + expand_increment * np.floor(index / increment_every)


def expand3x3_filters(expand: Any, fraction_3x3: Any) -> Any:
    """The 3x3 filters among `expand`; the rest are 1x1 (section 5.1)."""
    return _round_half_up(expand * fraction_3x3)


def squeeze_filters(expand: Any, squeeze_ratio: Any) -> Any:
    """s_i = SR * e_i, at least 1 (section 5.1)."""
    return np.maximum(1.0, _round_half_up(expand * squeeze_ratio))


def stem_output_size(input_size: Any, kernel: Any, stride: Any, padding: Any) -> Any:
    """Side of conv1's feature map in pixels; below 1 when the kernel does not fit."""
    return np.floor((input_size + 2 * padding - kernel) / stride) + 1


def pooled_size(size: Any) -> Any:
    """Side after 3x3/2 max pooling in ceil mode: ceil((size - 3) / 2) + 1, which is size // 2.

    A side of 1 gives 0: torch refuses to pool it.
    """
    return np.floor(size * 0.5)
