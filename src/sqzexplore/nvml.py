"""What a GPU's own sensors say, through NVML: clock, temperature, energy, power limit, driver.

NVML comes with nvidia-ml-py (extra `gpu`). Without it, without a GPU, or where the driver gives a
reading to no one (a MIG slice, an old card), that reading is missing, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Sensors:
    """The sensors of a torch device; of a CPU, none."""

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        if device.type != "cuda":
            return
        with suppress(Exception):  # not installed, no driver, not permitted
            import pynvml
            import torch

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

    def driver(self) -> str | None:
        """Version of the driver."""
        return self._said(lambda n: n.nvmlSystemGetDriverVersion())

    def state(self) -> dict[str, float | str | None]:
        """What decides a GPU's speed beside its name: driver, power limit (W), the clock of the
        multiprocessors now and at most (MHz). Nothing where there is none to ask."""
        if self._nvml is None:
            return {}
        limit_mw = self._read(lambda n: n.nvmlDeviceGetEnforcedPowerLimit(self._handle))
        return {
            "gpu_driver": self.driver(),
            "gpu_power_limit_w": None if limit_mw is None else limit_mw / 1e3,
            "gpu_clock_mhz": self.clock_mhz(),
            "gpu_clock_mhz_max": self._read(
                lambda n: n.nvmlDeviceGetMaxClockInfo(self._handle, n.NVML_CLOCK_SM)
            ),
        }

    def _read(self, reading: Callable[[Any], float]) -> float | None:
        value = self._said(reading)
        return None if value is None else float(value)

    def _said(self, reading: Callable[[Any], Any]) -> Any:
        if self._nvml is None:
            return None
        try:
            return reading(self._nvml)
        except self._nvml.NVMLError:
            return None
