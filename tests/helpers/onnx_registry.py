"""torch makes its table of ONNX functions anew for every export, for half a second: here once."""

from __future__ import annotations

from functools import cache

from torch.onnx._internal.exporter._registration import ONNXRegistry


def keep() -> None:
    """From now on, in this process and those that are forked from it."""
    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))
