"""Networks that have a name."""

from __future__ import annotations

from typing import Any

from ..errors import UserError, nearest, shown
from .architecture import Architecture

PRESETS: dict[str, Architecture] = {
    "squeezenet1_0": Architecture(),
    "squeezenet1_1": Architecture(stem_width=64, stem_kernel=3, pool_after=(1, 3, 5)),
    # For 32x32 images: v1.1's Fires at full resolution first, BatchNorm and bypass to train well.
    "squeezenet_cifar": Architecture(
        stem_width=64,
        stem_kernel=3,
        stem_stride=1,
        stem_padding=1,
        pool_after=(1, 3, 5),
        bypass="simple",
        batch_norm=True,
        num_classes=10,
    ),
}


def preset(name: str, **changes: Any) -> Architecture:
    """The Architecture known as `name`, with `changes`.

    Raises:
        UserError: there is no such preset.
        pydantic.ValidationError: a change is no valid field or value.
    """
    if name not in PRESETS:
        raise UserError(
            f"no preset {shown(name)}; the presets are {', '.join(PRESETS)}{nearest(name, PRESETS)}"
        )
    return PRESETS[name].replace(**changes)
