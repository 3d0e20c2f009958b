"""The inference form of a SqueezeNet: the same outputs, fewer passes over memory.

BatchNorm is folded into its convolution (Jacob et al., arXiv:1712.05877, section 3.2), ReLU and
additions are part of the convolution where the device's library has such an operation (oneDNN,
cuDNN), dropout is gone, and a Fire's expand branches are written in one of three ways:

- **concatenated** - two convolutions, and the concatenation's copy, as the module does;
- **embedded** - one 3x3 convolution, whose 1x1 filters stand at the centre of a zero kernel: no
  copy, one launch, 9 times the arithmetic of the 1x1 filters;
- **split** - no concatenation at all: the feature map stays two tensors, max pooling and bypasses
  work on each, and the next 1x1 convolution is the sum of its two halves.

Which is fastest depends on device, batch and architecture; `fastest_form` measures.

Tolerance: sums are taken in another order, so that outputs differ from the module's by rounding.
In float32 by at most 1e-4 + 1e-4 |y| where activations are of order 1 (a property test over the
whole space), in bfloat16 and float16 by a few units of their last place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..device_errors import is_out_of_memory
from .module import Fire, SqueezeNet

Expand = Literal["concatenated", "embedded", "split"]
EXPANDS: tuple[Expand, ...] = get_args(Expand)

#: A feature map: its channels in one tensor, or in the two of a Fire's expand branches.
Features = list[Tensor]


class InferenceForm(nn.Module):
    """A SqueezeNet for inference: N x in_channels x H x W -> N x num_classes logits.

    The weights are copies, folded, of the type and on the device of the network's, in the order
    of `memory_format`.

    Args:
        net: the network, which stays as it is; its BatchNorms' running statistics are used.
        expand: how the expand branches are written.
        memory_format: of the weights; the images should have the same.
    """

    def __init__(
        self,
        net: SqueezeNet,
        expand: Expand = "concatenated",
        fused: bool = False,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        super().__init__()
        self.expand, self.fused = expand, fused
        self.steps = nn.ModuleList()
        widths = [net.architecture.in_channels]
        modules = list(net.features)
        for index, module in enumerate(modules):
            if isinstance(module, nn.Conv2d):
                norm = modules[index + 1] if index + 1 < len(modules) else None
                self.steps.append(
                    _Conv(*_folded(module, norm), module, widths, memory_format, fused)
                )
                widths = [module.out_channels]
            elif isinstance(module, Fire):
                fire = _Fire(module, expand, widths, memory_format, fused)
                self.steps.append(fire)
                widths = fire.widths
            elif isinstance(module, nn.MaxPool2d):
                self.steps.append(_Pool())
        last = net.classifier[1]
        assert isinstance(last, nn.Conv2d)
        self.steps.append(_Conv(*_folded(last, None), last, widths, memory_format, fused))

    def forward(self, images: Tensor) -> Tensor:
        """N x in_channels x H x W -> N x num_classes logits."""
        features = [images]
        for step in self.steps:
            features = step(features)
        return torch.flatten(F.adaptive_avg_pool2d(features[0], 1), 1)


class _Conv(nn.Module):
    """A convolution and its ReLU; of a feature map in two tensors, the sum of two convolutions."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        like: nn.Conv2d,
        widths: list[int],
        memory_format: torch.memory_format,
        fused: bool,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.fused = fused
        self.stride, self.padding = [*like.stride], [int(side) for side in like.padding]
        self.relu = relu
        self.weights = nn.ParameterList(
            nn.Parameter(part.contiguous(memory_format=memory_format), requires_grad=False)
            for part in weight.split(widths, 1)
        )
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, features: Features, sum_: Tensor | None = None) -> Features:
        """The convolution of `features`, added to `sum_`, which may be overwritten."""
        last = len(features) - 1
        for index, (x, weight) in enumerate(zip(features, self.weights, strict=True)):
            bias, relu = (self.bias, self.relu) if index == last else (None, False)
            sum_ = convolve(x, weight, bias, self.stride, self.padding, sum_, relu, self.fused)
        assert sum_ is not None
        return [sum_]


class _Fire(nn.Module):
    def __init__(
        self,
        fire: Fire,
        expand: Expand,
        widths: list[int],
        memory_format: torch.memory_format,
        fused: bool,
    ) -> None:
        super().__init__()
        squeeze = fire.squeeze
        self.squeeze = _Conv(
            *_folded(squeeze, fire.squeeze_norm), squeeze, widths, memory_format, fused
        )
        branches: list[tuple[Tensor, Tensor, nn.Conv2d]] = []
        for name in ("expand1x1", "expand3x3"):
            conv = getattr(fire, name)
            if conv is not None:
                branches.append((*_folded(conv, getattr(fire, f"{name}_norm")), conv))
        if len(branches) == 2 and expand == "embedded":
            (one, bias1, _), (three, bias3, like) = branches
            branches = [
                (torch.cat([F.pad(one, (1, 1, 1, 1)), three]), torch.cat([bias1, bias3]), like)
            ]
        self.branches = nn.ModuleList(
            _Conv(weight, bias, like, [squeeze.out_channels], memory_format, fused)
            for weight, bias, like in branches
        )
        self.concatenated = len(branches) == 2 and expand == "concatenated"
        self.widths = [len(bias) for _, bias, _ in branches]
        if self.concatenated:
            self.widths = [sum(self.widths)]
        self.identity = isinstance(fire.bypass, nn.Identity)
        self.bypass = nn.ModuleList()
        if isinstance(fire.bypass, nn.Conv2d):
            weight, bias = _folded(fire.bypass, fire.bypass_norm)
            parts = zip(weight.split(self.widths), bias.split(self.widths), strict=True)
            self.bypass.extend(
                _Conv(w, b, fire.bypass, widths, memory_format, fused, relu=False) for w, b in parts
            )

    def forward(self, features: Features) -> Features:
        squeezed = self.squeeze(features)
        out = [branch(squeezed)[0] for branch in self.branches]
        if self.concatenated:
            out = [torch.cat(out, 1)]
        if self.identity:
            out = [y.add_(x) for y, x in zip(out, self._beside(features), strict=True)]
        if self.bypass:
            out = [conv(features, y)[0] for conv, y in zip(self.bypass, out, strict=True)]
        return out

    def _beside(self, features: Features) -> Features:
        """The same channels cut as this Fire's branches are: the stem is one tensor, and another
        Fire may have another share of 3x3 filters."""
        if [x.shape[1] for x in features] == self.widths:
            return features
        whole = features[0] if len(features) == 1 else torch.cat(features, 1)
        return list(whole.split(self.widths, 1))


class _Pool(nn.Module):
    def forward(self, features: Features) -> Features:
        return [F.max_pool2d(x, 3, stride=2, ceil_mode=True) for x in features]


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    sum_: Tensor | None,
    relu: bool,
    fused: bool,
) -> Tensor:
    """ReLU(`sum_` + convolution of `x`), in one operation if `fused`; `sum_` may be overwritten."""
    if sum_ is not None and torch.compiler.is_compiling():
        fused = False  # torch cannot trace the operation that adds in place
    if fused and x.device.type == "cpu":
        shape, end = (padding, stride, [1, 1], 1), "relu" if relu else "none"
        if sum_ is None:
            return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *shape, end, [], "")
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            sum_, x, weight, bias, *shape, "add", 1.0, end if relu else None, [], ""
        )
    if fused and relu:
        if sum_ is None:
            return torch.cudnn_convolution_relu(x, weight, bias, stride, padding, [1, 1], 1)
        return torch.cudnn_convolution_add_relu(
            x, weight, sum_, 1.0, bias, stride, padding, [1, 1], 1
        )
    out = F.conv2d(x, weight, bias, stride, padding)
    if sum_ is not None:
        out = sum_.add_(out)
    return out.relu_() if relu else out


def _folded(conv: nn.Conv2d, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of `conv` followed by `norm`, if that is a BatchNorm; in float32 inside."""
    weight = conv.weight.detach().float()
    bias = torch.zeros(len(weight)).to(weight) if conv.bias is None else conv.bias.detach().float()
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach().float() / torch.sqrt(norm.running_var.float() + norm.eps)
        weight = weight * scale.reshape(-1, 1, 1, 1)
        bias = (bias - norm.running_mean.float()) * scale + norm.bias.detach().float()
    return weight.to(conv.weight.dtype), bias.to(conv.weight.dtype)


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has fused operations for numbers of this type on this device.

    On a CPU they are oneDNN's. Of bfloat16 and float16 they need a processor that has the right
    instructions; this is the question that torch asks before it raises.
    """
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        return cudnn.is_available() and _ignores_old_output(device, dtype, cudnn.allow_tf32)
    onednn = torch.ops.mkldnn
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(onednn, "_convolution_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(onednn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(onednn._is_mkldnn_fp16_supported())
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
            if not _agrees(out, expected):
                return False
    return True


def fastest_form(
    net: SqueezeNet,
    images: Tensor,
    memory_format: torch.memory_format,
    seconds: Callable[[nn.Module], float],
) -> InferenceForm:
    """The inference form of `net` that is the fastest on these images.

    A form that its library refuses, or whose logits are not the module's, is no candidate.

    Args:
        net: in evaluation mode, on the device and of the type of `images`.
        images: N x in_channels x H x W, in `memory_format`.
        memory_format: of the weights.
        seconds: how long one pass of a module takes on `images`.

    Raises:
        torch.OutOfMemoryError: they do not fit the device.
    """
    stages = net.architecture.fire_stages()
    branched = any(stage.expand1x1 and stage.expand3x3 for stage in stages)
    expands: tuple[Expand, ...] = EXPANDS if branched else ("concatenated",)
    expected = net(images[:2])
    best: tuple[float, InferenceForm] | None = None
    for fused in (True, False) if can_fuse(images.device, images.dtype) else (False,):
        if not fused and best is not None and images.device.type == "cpu":
            break  # where oneDNN fuses, it is never slower
        for expand in expands:
            form = InferenceForm(net, expand, fused, memory_format)
            try:
                if not _agrees(form(images[:2]), expected):
                    continue
                took = seconds(form)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                continue  # no such operation for this type or device
            if best is None or took < best[0]:
                best = (took, form)
    if best is None:
        raise RuntimeError("no inference form runs here with the module's logits")
    return best[1]


#: The largest difference of two logits that rounding explains, relative to the largest logit.
_ROUNDING = {torch.float32: 0.01, torch.float16: 0.02, torch.bfloat16: 0.1}  # float32: as TF32


def _agrees(logits: Tensor, expected: Tensor) -> bool:
    if not expected.isfinite().all():  # random weights can overflow float16: nothing to compare
        return True
    error = (logits.float() - expected.float()).abs().max()
    return bool(error <= _ROUNDING[logits.dtype] * expected.float().abs().max() + 1e-6)
