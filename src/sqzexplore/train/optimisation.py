"""The optimiser and the initial weights that a recipe asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..network.module import Fire, SqueezeNet
from .recipe import Recipe


def optimizer(weights: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of the recipe over `weights`.

    Its learning rate is a tensor on the device of the weights, one for all groups: a step that is
    replayed reads the rate that is written there.
    """
    method = recipe.method
    groups: list[dict[str, object]] = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": method.weight_decay},
        {
            "params": [w for w in weights if w.ndim <= 1],
            "weight_decay": method.weight_decay if method.decays_vectors else 0.0,
        },
    ]
    device = weights[0].device
    lr: Tensor = torch.tensor(recipe.peak_rate, device=device)
    if method.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr, momentum=method.betas[0], nesterov=method.nesterov, fused=True
        )
    capturable = device.type == "cuda"
    return torch.optim.AdamW(groups, lr, betas=method.betas, fused=True, capturable=capturable)


@torch.no_grad()
def initialise(net: SqueezeNet, recipe: Recipe) -> None:
    """Change the initial weights as the recipe says."""
    nn.init.constant_(net.classifier.get_parameter("1.bias"), recipe.method.logit_bias)
    if not recipe.method.scales_bypass:
        return
    for fire in net.modules():
        if isinstance(fire, Fire) and fire.bypass is not None:
            for branch in (fire.expand1x1, fire.expand3x3):
                if branch is not None:
                    branch.weight.mul_(math.sqrt(0.5))
            if isinstance(fire.bypass, nn.Conv2d):
                fire.bypass.weight.mul_(0.5)
