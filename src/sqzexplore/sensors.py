"""What a GPU's own sensors say, through NVML: clock, temperature, energy.

NVML comes with nvidia-ml-py (extra `gpu`). Without it, without a GPU, or where the driver gives a
reading to no one (a MIG slice, an old card), that reading is missing, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch


class Sensors:
    """The sensors of a torch device; of a CPU, none."""

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        if device.type != "cuda":
            return
        with suppress(Exception):  # not installed, no driver, not permitted
            import pynvml

            pynvml.nvmlInit()
            # By UUID: torch's numbers follow CUDA_VISIBLE_DEVICES, NVML's do not.
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            self._nvml = pynvml

    def clock_mhz(self) -> float | None:
        """Clock of the multiprocessors, MHz."""
        return self._read(lambda n: n.nvmlDeviceGetClockInfo(self._handle, n.NVML_CLOCK_SM))

    def temperature_c(self) -> float | None:
        """Temperature of the GPU, degrees Celsius."""
        return self._read(
            lambda n: n.nvmlDeviceGetTemperature(self._handle, n.NVML_TEMPERATURE_GPU)
        )

    def energy_mj(self) -> float | None:
        """Energy that the board has used since the driver was loaded, millijoules."""
        return self._read(lambda n: n.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def _read(self, reading: Callable[[Any], float]) -> float | None:
        if self._nvml is None:
            return None
        try:
            return float(reading(self._nvml))
        except self._nvml.NVMLError:
            return None
