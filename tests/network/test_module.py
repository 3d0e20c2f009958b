"""The module: torchvision's names and logits, the space's shapes, the paper's initialisation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from torch import nn

import sqzexplore as sqz
from helpers import independent
from helpers.strategies import architectures, fits


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_a_torchvision_state_dict_gives_the_same_logits(name: str) -> None:
    architecture = sqz.preset(name)
    torch.manual_seed(1)
    other = independent.network(architecture).eval()
    net = sqz.build(architecture).eval()
    keys = list(other.state_dict())
    assert keys[:4] == [
        *("features.0.weight", "features.0.bias"),
        *("features.3.squeeze.weight", "features.3.squeeze.bias"),
    ]
    assert keys[-1] == "classifier.1.bias"
    net.load_state_dict(other.state_dict(), strict=True)
    for size in (224, 96):
        images = torch.randn(2, 3, size, size)
        with torch.inference_mode():
            torch.testing.assert_close(net(images), other(images), atol=1e-5, rtol=0)


@settings(max_examples=100, deadline=None)
@given(architectures(max_fires=6))
def test_every_architecture_computes_and_learns_what_the_independent_network_does(
    architecture: sqz.Architecture,
) -> None:
    assume(fits(architecture, 40))
    torch.manual_seed(0)
    net, other = sqz.build(architecture).eval(), independent.network(architecture).eval()
    ours = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    theirs = dict(other.named_modules())
    pairs: list[tuple[nn.Module, nn.Module]] = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            theirs[name].load_state_dict(module.state_dict())
            pairs.append((module, theirs[name]))
        if isinstance(module, nn.BatchNorm2d):
            for parameter in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(parameter, 0.5)
            twin = name
            if name.endswith("_norm"):
                fire, _, conv = name.removesuffix("_norm").rpartition(".")
                twin = f"{fire}.norms.{conv}"
            theirs[twin].load_state_dict(module.state_dict())
            pairs.append((module, theirs[twin]))
    assert len(ours) == sum(isinstance(m, nn.Conv2d | nn.BatchNorm2d) for m in theirs.values())
    images = torch.randn(2, architecture.in_channels, 40, 40)
    logits, expected = net(images), other(images)
    assert logits.shape == (2, architecture.num_classes)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    logits.sum().backward()
    expected.sum().backward()
    for mine, twin in pairs:
        for name, parameter in mine.named_parameters():
            gradient = twin.get_parameter(name).grad
            assert gradient is not None
            scale = gradient.abs().max().item()
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-4 * scale, rtol=1e-4)


@pytest.mark.parametrize(("fraction", "absent"), [(0.0, "expand3x3"), (1.0, "expand1x1")])
def test_a_branch_without_filters_is_absent(fraction: float, absent: str) -> None:
    net = sqz.build(sqz.Architecture(fraction_3x3=fraction))
    assert not any(absent in name for name in net.state_dict())
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("bypass", "identities", "convolutions"),
    [("none", [], []), ("simple", [3, 5, 7, 9], []), ("complex", [3, 5, 7, 9], [2, 4, 6, 8])],
)
def test_bypasses_stand_where_the_paper_draws_them(
    bypass: str, identities: list[int], convolutions: list[int]
) -> None:
    net = sqz.build(sqz.Architecture(bypass=bypass))
    fires = [m for m in net.features if hasattr(m, "squeeze")]
    kinds = {i: type(fire.bypass) for i, fire in enumerate(fires, start=2)}
    assert [i for i, kind in kinds.items() if kind is nn.Identity] == identities
    assert [i for i, kind in kinds.items() if kind is nn.Conv2d] == convolutions


def test_initialisation() -> None:
    torch.manual_seed(0)
    net = sqz.build(sqz.Architecture(bypass="complex"))
    for name, module in net.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        assert module.bias.abs().max() == 0
        if name == "classifier.1":
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.02)
            assert module.weight.mean().item() == pytest.approx(0.0, abs=1e-4)
        else:
            bound = math.sqrt(6 / module.weight[0].numel())  # Kaiming uniform, fan in, ReLU
            assert 0.98 * bound < module.weight.abs().max().item() <= bound


@pytest.mark.parametrize("bypass", ["none", "complex"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_gradient_reaches_every_parameter(bypass: str, batch_norm: bool) -> None:
    torch.manual_seed(0)
    net = sqz.build(sqz.Architecture(bypass=bypass, batch_norm=batch_norm, num_classes=5))
    nn.init.constant_(net.classifier[1].bias, 4.0)
    net(torch.randn(4, 3, 64, 64)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
