"""1x1 convolutions as matrix products: the same numbers, and nothing of it left in the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sqzexplore as sqz
from sqzexplore.train.pointwise import as_convolutions, as_products


@pytest.mark.parametrize("batch_norm", [False, True])
def test_products_are_the_convolutions(batch_norm: bool) -> None:
    architecture = sqz.Architecture(
        width_multiplier=0.1, fires=4, pool_after=(1, 3), bypass="complex", batch_norm=batch_norm
    )
    torch.manual_seed(0)
    net = sqz.build(architecture.replace(dropout=0.0)).double()
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(3, 3, 64, 64).double().contiguous(memory_format=torch.channels_last)
    names = set(net.state_dict())

    def outcome() -> list[torch.Tensor]:
        net.zero_grad()
        logits = net(images)
        logits.square().sum().backward()
        return [logits.detach(), *(w.grad.clone() for w in net.parameters() if w.grad is not None)]

    expected = outcome()
    pointwise = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    calls: list[int] = []
    handles = [m.register_forward_hook(lambda *_: calls.append(1)) for m in pointwise]
    as_products(net)
    assert all("forward" in vars(m) for m in pointwise)
    found = outcome()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
        assert one.is_contiguous(memory_format=torch.channels_last) or one.ndim < 4
    assert len(calls) == len(pointwise)  # hooks still see each of them
    assert set(net.state_dict()) == names
    with torch.no_grad():
        torch.testing.assert_close(net(images), expected[0])
    as_convolutions(net)
    assert not any("forward" in vars(m) for m in net.modules())
    for handle in handles:
        handle.remove()
