"""Whether a pass fits into the machine's memory, and whether it has to fetch it again."""

from __future__ import annotations

import psutil
import torch

from ..malloc import keep_freed_memory
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


def cache_memory(device: torch.device) -> bool:
    """Have memory that a pass frees stay for the next, as a GPU's always does; whether it does.

    Else a pass is as fast as the kernel's page faults are, and these depend on what else the
    process has done, and on the machine.
    """
    return device.type == "cuda" or keep_freed_memory()
