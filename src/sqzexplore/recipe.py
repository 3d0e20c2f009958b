"""How a network is trained: two named recipes, and the reasons.

The paper's network has no BatchNorm and a ReLU after its last convolution, and both make it easy
to kill. What `default` does about it, and why:

- AdamW (betas 0.9 and 0.99, weight decay 0.05), a linear warm-up over the first fifth of the
  steps, then a linear decay to 0. Its steps do not depend on the scale of the gradients, which
  without BatchNorm differs by orders of magnitude between layers and between architectures: one
  learning rate serves all of them, where SGD's has to be found for each.
- The bias of the last convolution starts at 4, not 0. The softmax does not see a shift of all
  logits, but the ReLU does: at 0 about half of each class's positions start behind it, and a
  class whose every position falls behind it never learns again.
- In a Fire with a bypass, the expand branches start with half their variance, and a bypass
  convolution (which no ReLU follows) with a quarter, so that the sum has the variance of its input.
  Otherwise it doubles or triples from Fire to Fire, and the complex bypass dies in the first epoch.
- The gradient's norm is clipped to 1: without BatchNorm the first steps may be wild.

`paper` is what the authors published for ImageNet, unchanged: SGD with momentum 0.9, weight decay
2e-4, learning rate 0.04 with linear decay, the initial weights of torchvision's module, nothing
against divergence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .augment import Augmentation
from .model import Fire, SqueezeNet

RecipeName = Literal["default", "paper"]
Precision = Literal["float32", "bfloat16"]

_WARMUP = 0.2
_LOGIT_BIAS = 4.0


@dataclass(frozen=True)
class Recipe:
    """What the user sets of the training; the module says the rest.

    `learning_rate` is the peak of the schedule; None is the recipe's own. `augmentation` None is
    what suits the data. `precision` is that of
    convolutions; weights, losses and updates are always float32.
    """

    recipe: RecipeName = "default"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float | None = None
    label_smoothing: float = 0.0
    augmentation: Augmentation | None = None
    precision: Precision = "float32"

    @property
    def peak_rate(self) -> float:
        """The highest learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 0.04 if self.recipe == "paper" else 0.003

    @property
    def clip(self) -> float | None:
        """The largest norm that a gradient keeps."""
        return None if self.recipe == "paper" else 1.0


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` of `steps`."""
    warmup = 1.0 if recipe.recipe == "paper" else max(1.0, _WARMUP * steps)
    return min((step + 1) / warmup, (steps - step) / max(1.0, steps - warmup))


def optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of the recipe over all weights of `net`."""
    weights, rate = net.parameters(), recipe.peak_rate
    if recipe.recipe == "paper":
        return torch.optim.SGD(weights, rate, momentum=0.9, weight_decay=2e-4, fused=True)
    return torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=0.05, fused=True)


@torch.no_grad()
def initialise(net: SqueezeNet, recipe: Recipe) -> None:
    """Change the initial weights as the recipe says."""
    if recipe.recipe == "paper":
        return
    nn.init.constant_(net.classifier.get_parameter("1.bias"), _LOGIT_BIAS)
    for fire in net.modules():
        if isinstance(fire, Fire) and fire.bypass is not None:
            for branch in (fire.expand1x1, fire.expand3x3):
                if branch is not None:
                    branch.weight.mul_(math.sqrt(0.5))
            if isinstance(fire.bypass, nn.Conv2d):
                fire.bypass.weight.mul_(0.5)
