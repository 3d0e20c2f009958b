"""A training step against torch's own optimizers, with the numbers of docs/training.md."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import sqzexplore as sqz
from sqzexplore.data.images import ImageData, Split, load
from sqzexplore.data.open import open_data
from sqzexplore.train.loop import Training
from sqzexplore.train.recipe import Recipe

NET = sqz.Architecture(
    **{"width_multiplier": 0.25, "fires": 3, "squeeze_ratio": 1.0, "pool_after": (1, 3)},
    **{"bypass": "complex", "dropout": 0.0},
    **{"in_channels": 1, "num_classes": 10},
)


@pytest.fixture(scope="module")
def data() -> ImageData:
    digits = load(open_data("digits"), 32)
    few = Split(digits.train.images[:96], digits.train.labels[:96])
    return replace(digits, train=few, augmentation="none")


def optimizer(net: torch.nn.Module, recipe: str) -> tuple[torch.optim.Optimizer, list[float]]:
    """As the page describes it, with the rates of three of fifteen steps."""
    weights = [w for w in net.parameters() if w.ndim > 1]
    vectors = [w for w in net.parameters() if w.ndim <= 1]
    if recipe == "paper":
        sgd = torch.optim.SGD([*weights, *vectors], momentum=0.9, weight_decay=2e-4)
        return sgd, [0.04 * 32 / 512 * share for share in (1.0, 1.0, 13 / 14)]
    groups = [{"params": weights, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99)), [0.005 * share / 3 for share in (1, 2, 3)]


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("default", {}),
        ("default", {"label_smoothing": 0.1}),
        ("default", {"precision": "bfloat16"}),
        ("paper", {}),
    ],
)
def test_a_step_is_that_of_the_documented_recipe(
    recipe: str, more: dict[str, Any], data: ImageData
) -> None:
    how = Recipe(recipe=recipe, epochs=5, batch_size=32, augmentation="none", **more)
    training = Training(NET, data, how, 7)
    net = copy.deepcopy(training.net).train()
    rule, rates = optimizer(net, recipe)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(7 * 1_000_003 + 1))
    norms = []
    for rate, which in zip(rates, order.split(32), strict=True):
        pixels = (data.train.images[which].float() - data.mean) / data.std
        with torch.autocast("cpu", torch.bfloat16, enabled="precision" in more):
            logits = net(pixels.permute(0, 3, 1, 2)).float()
        labels, smoothing = data.train.labels[which].long(), more.get("label_smoothing", 0.0)
        rule.zero_grad()
        F.cross_entropy(logits, labels, label_smoothing=smoothing).backward()
        if recipe == "default":
            norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)))
        for group in rule.param_groups:
            group["lr"] = rate
        rule.step()
        training.turn()
        for ours, own in zip(training.net.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)
    assert recipe == "paper" or max(norms) > 1, "clipping is met"
