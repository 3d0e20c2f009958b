"""The inference form of a SqueezeNet: the same outputs, fewer passes over memory.

BatchNorm is folded into its convolution (Jacob et al., arXiv:1712.05877, section 3.2), ReLU and
additions are part of the convolution where the device's library has such an operation (`kernels`),
dropout is gone, and a Fire's expand branches are written in one of three ways:

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

from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..device_errors import is_out_of_memory
from .kernels import Kernel, agrees, kernels_for, plain
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
        kernel: what computes a convolution, its addition and its ReLU.
        memory_format: of the weights; the images should have the same.
    """

    def __init__(
        self,
        net: SqueezeNet,
        expand: Expand = "concatenated",
        kernel: Kernel = plain,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        super().__init__()
        self.expand, self.kernel = expand, kernel
        conv = partial(_Conv, kernel, memory_format)
        self.steps = nn.ModuleList()
        widths = [net.architecture.in_channels]
        modules = list(net.features)
        for index, module in enumerate(modules):
            if isinstance(module, nn.Conv2d):
                norm = modules[index + 1] if index + 1 < len(modules) else None
                self.steps.append(conv(*_folded(module, norm), module, widths))
                widths = [module.out_channels]
            elif isinstance(module, Fire):
                fire = _Fire(module, expand, widths, conv)
                self.steps.append(fire)
                widths = fire.widths
            elif isinstance(module, nn.MaxPool2d):
                self.steps.append(_Pool())
        last = net.classifier[1]
        assert isinstance(last, nn.Conv2d)
        self.steps.append(conv(*_folded(last, None), last, widths))

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
        kernel: Kernel,
        memory_format: torch.memory_format,
        weight: Tensor,
        bias: Tensor,
        like: nn.Conv2d,
        widths: list[int],
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.kernel = kernel
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
            sum_ = self.kernel(x, weight, bias, self.stride, self.padding, sum_, relu)
        assert sum_ is not None
        return [sum_]


class _Fire(nn.Module):
    def __init__(
        self, fire: Fire, expand: Expand, widths: list[int], conv: Callable[..., _Conv]
    ) -> None:
        super().__init__()
        squeeze = fire.squeeze
        self.squeeze = conv(*_folded(squeeze, fire.squeeze_norm), squeeze, widths)
        branches: list[tuple[Tensor, Tensor, nn.Conv2d]] = []
        for name in ("expand1x1", "expand3x3"):
            branch = getattr(fire, name)
            if branch is not None:
                branches.append((*_folded(branch, getattr(fire, f"{name}_norm")), branch))
        if len(branches) == 2 and expand == "embedded":
            (one, bias1, _), (three, bias3, like) = branches
            branches = [
                (torch.cat([F.pad(one, (1, 1, 1, 1)), three]), torch.cat([bias1, bias3]), like)
            ]
        self.branches = nn.ModuleList(
            conv(weight, bias, like, [squeeze.out_channels]) for weight, bias, like in branches
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
            self.bypass.extend(conv(w, b, fire.bypass, widths, relu=False) for w, b in parts)

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
    timed = _timed_forms(net, images, memory_format, seconds)
    fastest = min(timed, key=itemgetter(0), default=None)
    if fastest is None:
        raise RuntimeError("no inference form runs here with the module's logits")
    return fastest[1]


def _timed_forms(
    net: SqueezeNet,
    images: Tensor,
    memory_format: torch.memory_format,
    seconds: Callable[[nn.Module], float],
) -> Iterator[tuple[float, InferenceForm]]:
    """The forms that run here with the module's logits, each with how long it takes, s."""
    stages = net.architecture.fire_stages()
    branched = any(stage.expand1x1 and stage.expand3x3 for stage in stages)
    expected = net(images[:2])
    for kernel in kernels_for(images.device, images.dtype):
        runs = False
        for expand in EXPANDS if branched else ("concatenated",):
            form = InferenceForm(net, expand, kernel, memory_format)
            try:
                if not agrees(form(images[:2]), expected):
                    continue
                took = seconds(form)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                continue  # no such operation for this type or device
            runs = True
            yield took, form
        if runs and images.device.type == "cpu":
            return  # where oneDNN fuses, it is never slower
