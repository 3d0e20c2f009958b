"""How a network is trained: two named recipes, and the reasons.

The paper's network has no BatchNorm and a ReLU after its last convolution, and both make it easy
to kill. What `default` does about it, and why:

- Every convolution without BatchNorm starts so that, on a first batch of training images, each of
  its filters has mean 0 and variance 1 (Krahenbuhl et al., 2016; Mishkin and Matas, 2016). A
  squeeze layer of 4 filters cannot afford two that are dead or alike in scale.
- The bias of the last convolution starts at 4, not 0. The softmax does not see a shift of all
  logits, but the ReLU does: at 0 about half of each class's positions start behind it, and a
  class whose every position falls behind it never learns again.
- AdamW (betas 0.9 and 0.99, weight decay 0.05), a linear warm-up over the first fifth of the
  steps, then a linear decay to 0. Its steps do not depend on the scale of the gradients, which
  without BatchNorm differs by orders of magnitude between layers and between architectures: one
  learning rate serves all of them, where SGD's has to be found for each.
- The gradient's norm is clipped to 1: without BatchNorm the first steps may be wild.

`paper` is what the authors published for ImageNet, unchanged: SGD with momentum 0.9, weight decay
2e-4, learning rate 0.04 with linear decay, the initial weights of torchvision's module, nothing
against divergence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .augment import Augmentation
from .model import SqueezeNet

RecipeName = Literal["default", "paper"]
Precision = Literal["float32", "bfloat16"]

_WARMUP = 0.2
_LOGIT_BIAS = 4.0
_EPSILON = 1e-3


@dataclass(frozen=True)
class Recipe:
    """What the user sets of the training; the module says the rest.

    `learning_rate` is the peak of the schedule; None is the recipe's own. `precision` is that of
    convolutions; weights, losses and updates are always float32.
    """

    name: RecipeName = "default"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float | None = None
    label_smoothing: float = 0.0
    augmentation: Augmentation = "shift"
    precision: Precision = "float32"

    @property
    def peak_rate(self) -> float:
        """The highest learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 0.04 if self.name == "paper" else 0.003

    @property
    def clip(self) -> float | None:
        """The largest norm that a gradient keeps."""
        return None if self.name == "paper" else 1.0


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` of `steps`."""
    warmup = 1.0 if recipe.name == "paper" else max(1.0, _WARMUP * steps)
    return min((step + 1) / warmup, (steps - step) / max(1.0, steps - warmup))


def optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of the recipe over all weights of `net`."""
    weights, rate = net.parameters(), recipe.peak_rate
    if recipe.name == "paper":
        return torch.optim.SGD(weights, rate, momentum=0.9, weight_decay=2e-4, fused=True)
    return torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=0.05, fused=True)


@torch.no_grad()
def initialise(net: SqueezeNet, images: Tensor, recipe: Recipe) -> None:
    """Change the initial weights as the recipe says; `images` is a normalised training batch."""
    if recipe.name == "paper":
        return
    last = net.classifier.get_submodule("1")
    hooks = [
        module.register_forward_hook(_standardise)
        for module in net.modules()
        if isinstance(module, nn.Conv2d) and module.bias is not None and module is not last
    ]
    training = net.training
    net.eval()
    net(images)
    net.train(training)
    for hook in hooks:
        hook.remove()
    nn.init.constant_(net.classifier.get_parameter("1.bias"), _LOGIT_BIAS)


def _standardise(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Scale the filters to mean 0 and variance 1 of `output`, and `output` with them."""
    assert module.bias is not None
    mean, std = output.mean((0, 2, 3)), output.std((0, 2, 3)).clamp(min=_EPSILON)
    module.weight.div_(std.view(-1, 1, 1, 1))
    module.bias.sub_(mean).div_(std)
    return (output - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
