"""Fire and SqueezeNet: an `nn.Module` built from an Architecture, and nothing else.

Module names are torchvision's (`features.3.squeeze.weight`, `classifier.1.weight`), so that its
`state_dict` loads as it is where the architecture is v1.0 or v1.1 without bypass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .architecture import Architecture, FireStage
from .rules import scaled_width


class Dropout(nn.Dropout):
    """`nn.Dropout` whose masks come from `generator`, if it has one: then nothing that runs beside
    it in the process changes them."""

    generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, the same shape."""
        if self.generator is None or not self.training or not self.p:
            return super().forward(x)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept.div_(1 - self.p)


class Fire(nn.Module):
    """Squeeze (1x1), then expand (1x1 beside 3x3), concatenated (paper, section 3.2).

    A branch of 0 filters is `None`. A bypass (section 6) adds the input, or its 1x1 convolution,
    to the concatenated output.
    """

    def __init__(self, stage: FireStage, batch_norm: bool) -> None:
        super().__init__()
        self.squeeze = _conv(stage.in_channels, stage.squeeze, 1, batch_norm)
        self.squeeze_norm = _norm(stage.squeeze, batch_norm)
        self.expand1x1: nn.Conv2d | None = None
        self.expand3x3: nn.Conv2d | None = None
        if stage.expand1x1:
            self.expand1x1 = _conv(stage.squeeze, stage.expand1x1, 1, batch_norm)
            self.expand1x1_norm = _norm(stage.expand1x1, batch_norm)
        if stage.expand3x3:
            self.expand3x3 = _conv(stage.squeeze, stage.expand3x3, 3, batch_norm, padding=1)
            self.expand3x3_norm = _norm(stage.expand3x3, batch_norm)
        self.bypass: nn.Module | None = None
        if stage.bypass == "identity":
            self.bypass = nn.Identity()
        elif stage.bypass == "conv1x1":
            self.bypass = _conv(stage.in_channels, stage.out_channels, 1, batch_norm)
            self.bypass_norm = _norm(stage.out_channels, batch_norm)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W -> N x out_channels x H x W."""
        squeezed = self.activation(_normed(self.squeeze(x), self.squeeze_norm))
        branches = []
        if self.expand1x1 is not None:
            branches.append(_normed(self.expand1x1(squeezed), self.expand1x1_norm))
        if self.expand3x3 is not None:
            branches.append(_normed(self.expand3x3(squeezed), self.expand3x3_norm))
        out = torch.cat(branches, 1) if len(branches) == 2 else branches[0]
        out = self.activation(out)  # of the whole: the backward pass keeps no second copy
        if self.bypass is None:
            return out
        shortcut = self.bypass(x)
        if isinstance(self.bypass, nn.Conv2d):
            shortcut = _normed(shortcut, self.bypass_norm)
        return out + shortcut


class SqueezeNet(nn.Module):
    """The network of an Architecture: `features` (conv1, Fires, pools), then `classifier`.

    Weights start as torchvision's do: Kaiming uniform, the last convolution normal with standard
    deviation 0.01, biases 0.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        stages = architecture.fire_stages()
        self.features = nn.Sequential(*_trunk(architecture, stages))
        last = nn.Conv2d(stages[-1].out_channels, architecture.num_classes, 1)
        self.classifier = nn.Sequential(
            Dropout(architecture.dropout),
            last,
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module is last:
                    nn.init.normal_(module.weight, mean=0.0, std=0.01)
                else:
                    nn.init.kaiming_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W -> N x num_classes logits."""
        return torch.flatten(self.classifier(self.features(x)), 1)


def build(architecture: Architecture) -> SqueezeNet:
    """The network of `architecture`, freshly initialised from torch's global random state."""
    return SqueezeNet(architecture)


def _trunk(architecture: Architecture, stages: list[FireStage]) -> list[nn.Module]:
    a = architecture
    width = int(scaled_width(a.stem_width, a.width_multiplier))
    stem = nn.Conv2d(
        a.in_channels, width, a.stem_kernel, a.stem_stride, a.stem_padding, bias=not a.batch_norm
    )
    modules: list[nn.Module] = [stem]
    if a.batch_norm:
        modules.append(nn.BatchNorm2d(width))
    for layer in range(1, a.fires + 2):
        if layer > 1:
            modules.append(Fire(stages[layer - 2], a.batch_norm))
        if layer in a.pool_after:
            modules.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
        if layer == 1:  # after its pool: the same outputs and gradients, of a quarter of the values
            modules.append(nn.ReLU(inplace=True))
    return modules


def _conv(
    in_channels: int, out_channels: int, kernel: int, batch_norm: bool, padding: int = 0
) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=not batch_norm)


def _norm(channels: int, batch_norm: bool) -> nn.BatchNorm2d | None:
    return nn.BatchNorm2d(channels) if batch_norm else None


def _normed(x: Tensor, norm: nn.Module | None) -> Tensor:
    return x if norm is None else norm(x)
