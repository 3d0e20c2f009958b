"""Whether a pass fits into the machine's memory."""

from __future__ import annotations

import psutil

from ..network.architecture import Architecture
from ..network.cost import cost
from .settings import ITEM_BYTES, Settings


def check_memory(architecture: Architecture, settings: Settings) -> None:
    """Linux promises memory that it does not have, and ends the process when it is used.

    Raises:
        MemoryError: a pass needs more than is available.
    """
    available = psutil.virtual_memory().available
    item = ITEM_BYTES[settings.dtype]
    activations = cost(architecture, settings.input_size).peak_activation_bytes // 4
    image = architecture.in_channels * settings.input_size**2
    needed = settings.batch * item * (activations + 2 * image)
    if needed > available:
        raise MemoryError(
            f"a pass needs about {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available"
        )
