"""A convolution with the addition and the ReLU that follow it, as each of torch's libraries has it.

A kernel takes images and weights as `torch.nn.functional.conv2d` does and gives ReLU(`sum_` +
convolution), N x K x P x Q; `sum_`, of that shape, may be overwritten.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device_errors import is_out_of_memory

#: `kernel(x, weight, bias, stride, padding, sum_, relu)`.
Kernel = Callable[
    [Tensor, Tensor, Tensor | None, list[int], list[int], Tensor | None, bool], Tensor
]


def plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    sum_: Tensor | None,
    relu: bool,
) -> Tensor:
    """Up to three operations, on every device."""
    out = F.conv2d(x, weight, bias, stride, padding)
    if sum_ is not None:
        out = sum_.add_(out)
    return out.relu_() if relu else out


def onednn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    sum_: Tensor | None,
    relu: bool,
) -> Tensor:
    """One operation of oneDNN, on a CPU."""
    shape, end = (padding, stride, [1, 1], 1), "relu" if relu else "none"
    if sum_ is None:
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *shape, end, [], "")
    if torch.compiler.is_compiling():  # which cannot trace the operation that adds in place
        return plain(x, weight, bias, stride, padding, sum_, relu)
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        sum_, x, weight, bias, *shape, "add", 1.0, end if relu else None, [], ""
    )


def cudnn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    sum_: Tensor | None,
    relu: bool,
) -> Tensor:
    """One operation of cuDNN, on a GPU, where there is a ReLU."""
    if not relu:
        return plain(x, weight, bias, stride, padding, sum_, relu)
    if sum_ is None:
        return torch.cudnn_convolution_relu(x, weight, bias, stride, padding, [1, 1], 1)
    return torch.cudnn_convolution_add_relu(x, weight, sum_, 1.0, bias, stride, padding, [1, 1], 1)


def kernels_for(device: torch.device, dtype: torch.dtype) -> tuple[Kernel, ...]:
    """The kernels that torch has for numbers of this type on this device: a fused one first,
    `plain` last."""
    if device.type == "cuda" and torch.backends.cudnn.is_available():
        tf32 = torch.backends.cudnn.allow_tf32
        return (cudnn, plain) if _ignores_old_output(device, dtype, tf32) else (plain,)
    return (onednn, plain) if device.type == "cpu" and _onednn_fuses(dtype) else (plain,)


def _onednn_fuses(dtype: torch.dtype) -> bool:
    """Whether oneDNN has fused operations for numbers of this type.

    Of bfloat16 and float16 they need a processor that has the right instructions; this is the
    question that torch asks before it raises.
    """
    operations = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(operations, "_convolution_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(operations._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(operations._is_mkldnn_fp16_supported())
    return dtype == torch.float32


#: Channels in, kernel, stride, padding of the convolutions that are tried.
_TRIED = ((16, 1, 1, 0), (16, 3, 1, 1), (3, 7, 2, 0))


@lru_cache(maxsize=16)
def _ignores_old_output(device: torch.device, dtype: torch.dtype, allow_tf32: bool) -> bool:
    """Whether a fused convolution of cuDNN leaves alone what its output's memory held before.

    torch hands it its output, not yet written, as an addend with the factor 0: an algorithm that
    multiplies makes NaN of the NaN that may stand there (and ReLU perhaps 0 of that). The flag
    `allow_tf32`, which is set already, is an argument because the algorithms are others with it.
    """
    layouts = (torch.channels_last, torch.contiguous_format)
    generator = torch.Generator(device).manual_seed(0)
    for (channels, kernel, stride, padding), layout in itertools.product(_TRIED, layouts):
        x, weight = (
            torch.randn(shape, device=device, generator=generator).to(dtype, memory_format=layout)
            for shape in ((4, channels, 24, 24), (32, channels, kernel, kernel))
        )
        bias = torch.zeros(32, device=device, dtype=dtype)
        strides, paddings = [stride] * 2, [padding] * 2
        expected = F.conv2d(x, weight, bias, strides, paddings).relu()
        for _ in range(3):  # the first one also chooses the algorithm
            nans = [torch.full_like(expected, math.nan) for _ in range(8)]
            del nans  # whose memory the next tensor of the size is given
            try:
                out = torch.cudnn_convolution_relu(x, weight, bias, strides, paddings, [1, 1], 1)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                break  # no such operation: `fastest_form` finds out too
            if not agrees(out, expected):
                return False
    return True


#: The largest difference of two logits that rounding explains, relative to the largest logit.
_ROUNDING = {torch.float32: 0.01, torch.float16: 0.02, torch.bfloat16: 0.1}  # float32: as TF32


def agrees(logits: Tensor, expected: Tensor) -> bool:
    """Whether two results of one type differ by no more than rounding explains."""
    if not expected.isfinite().all():  # random weights can overflow float16: nothing to compare
        return True
    error = (logits.float() - expected.float()).abs().max()
    return bool(error <= _ROUNDING[logits.dtype] * expected.float().abs().max() + 1e-6)
