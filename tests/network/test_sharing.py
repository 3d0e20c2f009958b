"""Which networks one seed gives the same initial weights: looked at in the networks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sqzexplore as sqz
from helpers.strategies import architectures
from sqzexplore.network.sharing import shares_initial_weights


def weights(architecture: sqz.Architecture) -> list[torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [each.detach() for each in sqz.build(architecture).parameters()]


def alike(first: sqz.Architecture, second: sqz.Architecture) -> bool:
    ours, theirs = weights(first), weights(second)
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


@settings(max_examples=40, deadline=None)
@given(architectures(max_fires=4), st.integers(0, 5))
def test_sharing_is_what_the_weights_say(architecture: sqz.Architecture, change: int) -> None:
    small = architecture.replace(width_multiplier=min(architecture.width_multiplier, 0.1))
    other = [
        small.replace(pool_after=()),
        small.replace(bypass="none"),
        small.replace(bypass="complex"),
        small.replace(squeeze_ratio=small.squeeze_ratio / 2),
        small.replace(fraction_3x3=1 - small.fraction_3x3),
        small.replace(stem_stride=1),
    ][change]
    assert shares_initial_weights(small, other) == alike(small, other)


def test_pools_and_the_simple_bypass_share_them() -> None:
    plain = sqz.Architecture()
    assert shares_initial_weights(plain, plain.replace(pool_after=(6, 8, 9)))
    assert shares_initial_weights(plain, plain.replace(bypass="simple"))
    assert not shares_initial_weights(plain, plain.replace(bypass="complex"))
    assert not shares_initial_weights(plain, plain.replace(squeeze_ratio=0.25))
