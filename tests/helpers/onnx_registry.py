"""What torch makes anew for every export, such as its table of ONNX functions: here once."""

from __future__ import annotations

from functools import cache

from torch._export import utils
from torch.export import decomp_utils, exported_program
from torch.onnx._internal.exporter._registration import ONNXRegistry


def keep() -> None:
    """From now on, in this process and those that are forked from it."""
    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))
    composite = cache(utils._collect_all_valid_cia_ops)
    decomp_utils._collect_all_valid_cia_ops = composite
    exported_program._collect_all_valid_cia_ops = composite
