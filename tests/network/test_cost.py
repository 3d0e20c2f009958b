"""Counts are integers, equal to what independent parts count on real modules."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

import sqzexplore as sqz
from helpers import independent
from helpers.strategies import architectures, fits, input_sizes, on_small_images
from sqzexplore.errors import CostOverflow, FeatureMapVanishes, UserError
from sqzexplore.network.cost import COST_COLUMNS


def test_known_numbers() -> None:
    v10, v11 = sqz.preset("squeezenet1_0"), sqz.preset("squeezenet1_1")
    assert sqz.cost(v10).params == 1_248_424
    assert sqz.cost(v11).params == 1_235_496
    assert sqz.cost(v10).macs == 818_924_576
    assert sqz.cost(v10).flops == 1_637_849_152
    assert sqz.cost(v10).size_mb == 4.993696
    assert sqz.cost(v10.replace(bypass="simple")).params == 1_248_424
    assert sqz.cost(v10.replace(bypass="complex")).params == 1_589_672


@pytest.mark.parametrize(
    ("ratio", "params"),
    [(0.125, 1_248_424), (0.25, 1_967_080), (0.5, 3_404_392), (0.75, 4_841_704), (1.0, 6_279_016)],
)
def test_squeeze_ratio(ratio: float, params: int) -> None:
    assert sqz.cost(sqz.Architecture(squeeze_ratio=ratio)).params == params


@pytest.mark.parametrize(
    ("fraction", "params"),
    [(0.01, 1_478_248), (0.25, 2_421_352), (0.5, 3_404_392), (0.75, 4_387_432), (0.99, 5_330_536)],
)
def test_fraction_3x3(fraction: float, params: int) -> None:
    architecture = sqz.Architecture(squeeze_ratio=0.5, fraction_3x3=fraction)
    assert sqz.cost(architecture).params == params


def flops_of_one(
    images: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object
) -> int:
    """torch's own count of a convolution, of one image where the batch has none."""
    return conv_flop_count([1, *images[1:]], weight, out_shape)


@settings(max_examples=300, deadline=None)
@given(architectures(), input_sizes)
def test_totals_and_layers_equal_the_module(architecture: sqz.Architecture, size: int) -> None:
    """Against torch's counters on the built module, and against an independent network."""
    assume(fits(architecture, size))
    cost = sqz.cost(architecture, size)
    net, other = sqz.build(architecture).eval(), independent.network(architecture).eval()
    assert cost.params == sum(p.numel() for p in net.parameters())
    assert cost.params == sum(p.numel() for p in other.parameters())
    shapes: list[tuple[int, ...]] = []
    for module in net.features:
        if not isinstance(module, torch.nn.ReLU | torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    mapping = {torch.ops.aten.convolution: flops_of_one}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        independent.go_through(net, architecture.in_channels, size)
    assert cost.flops == counter.get_total_flops() == 2 * cost.macs
    counts = independent.convolution_counts(other, architecture.in_channels, size)
    assert cost.macs == sum(macs for macs, _ in counts.values())
    assert cost.activations == sum(elements for _, elements in counts.values())
    assert cost.peak_activation_bytes == independent.peak_activation_bytes(architecture, size)

    by_module: dict[str, int] = defaultdict(int)
    for name, (macs, _) in counts.items():
        by_module[".".join(name.split(".")[:2])] += macs
    layers = [layer for layer in cost.layers if "pool" not in layer.name]
    assert [layer.macs for layer in layers] == list(by_module.values())
    assert [layer.output_shape for layer in cost.layers[:-2]] == shapes
    for total in ("params", "macs", "activations"):
        assert sum(getattr(layer, total) for layer in cost.layers) == getattr(cost, total)


def smooth(net: torch.nn.Module) -> None:
    """Make every derivative non-zero: no dead ReLU, no pixel that is nowhere the greatest, and no
    bias or BatchNorm that is zero or one."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.Softplus())
            if isinstance(child, torch.nn.MaxPool2d):
                setattr(module, name, torch.nn.AvgPool2d(3, 2, ceil_mode=True))
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        if getattr(module, "bias", None) is not None:
            torch.nn.init.normal_(module.bias, 0.0, 0.1)


def weights_with_a_gradient(net: torch.nn.Module, images: torch.Tensor) -> int:
    net.zero_grad()
    logits = net(images)
    (logits * torch.randn_like(logits)).sum().backward()
    return sum(int(torch.count_nonzero(p.grad)) for p in net.parameters())


@settings(max_examples=150, deadline=None)
@given(on_small_images(), st.integers(0, 2**31))
def test_living_parameters_are_those_with_a_gradient(
    on_small_image: tuple[sqz.Architecture, int], seed: int
) -> None:
    """Against autograd: all of them have one in a smooth network, no other has one in any."""
    architecture, size = on_small_image
    torch.manual_seed(seed)
    net = sqz.build(architecture).double().eval()
    images = torch.rand(3, architecture.in_channels, size, size, dtype=torch.float64) + 0.1
    live = sqz.cost(architecture, size).live_params
    assert weights_with_a_gradient(net, images) <= live
    smooth(net)
    assert weights_with_a_gradient(net, images) == live
    other = independent.network(architecture).eval()
    assert live == independent.live_params(other, architecture.in_channels, size)[0]


@pytest.mark.parametrize(
    ("pools", "dead"),
    [
        *(((1, 2, 3), 29_696), ((1, 3, 5), 25_600), ((1, 4, 8), 8_192), ((4, 6, 8), 8_192)),
        *(((1, 6, 9), 0), ((6, 8, 9), 0)),
    ],
)
def test_dead_weights_of_the_pooling_sweep(pools: tuple[int, ...], dead: int) -> None:
    """As counted with torch's gradients of the 48,106 parameters that are trained on the digits."""
    trained = sqz.Architecture(
        pool_after=pools, width_multiplier=0.25, in_channels=1, num_classes=10
    )
    counted = sqz.cost(trained, 32)
    assert (counted.params, counted.params - counted.live_params) == (48_106, dead)


def live_taps(kernel: int, stride: int, padding: int, size: int) -> int:
    """Taps of one axis that meet a pixel at some position of the kernel."""
    starts = range(-padding, size + padding - kernel + 1, stride)
    return sum(any(0 <= start + tap < size for start in starts) for tap in range(kernel))


def test_living_taps_of_every_small_stem() -> None:
    """Any kernel, stride and padding, on any image: all of the small ones."""
    for size in range(1, 9):
        stems = itertools.product(range(1, 11), range(1, 10), range(9))
        rows = [(k, s, p, live_taps(k, s, p, size)) for k, s, p in stems if k <= size + 2 * p]
        frame = pd.DataFrame(rows, columns=["stem_kernel", "stem_stride", "stem_padding", "live"])
        one = frame.assign(fires=1, pool_after="", fraction_3x3=0.0, stem_width=2, in_channels=3)
        table = sqz.cost_table(one, size)
        dead = 2 * 3 * (frame["stem_kernel"] ** 2 - frame["live"] ** 2)
        assert (table["params"] - table["live_params"]).tolist() == dead.tolist()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.integers(1, 100), st.integers(0, 150), st.integers(1, 200))
def test_living_taps_of_a_large_stem(kernel: int, stride: int, padding: int, size: int) -> None:
    assume(kernel <= size + 2 * padding)
    stem = {"stem_kernel": kernel, "stem_stride": stride, "stem_padding": padding}
    one = sqz.Architecture(fires=1, pool_after=(), fraction_3x3=0.0, stem_width=1, **stem)
    counted = sqz.cost(one, size)
    dead = 3 * (kernel**2 - live_taps(kernel, stride, padding, size) ** 2)
    assert counted.params - counted.live_params == dead


@settings(max_examples=200, deadline=None)
@given(architectures(), st.integers(1, 60))
def test_a_vanishing_map_is_an_error_exactly_where_torch_refuses(
    architecture: sqz.Architecture, size: int
) -> None:
    net = independent.network(architecture).eval()
    try:
        independent.go_through(net, architecture.in_channels, size)
    except RuntimeError:
        with pytest.raises(FeatureMapVanishes, match=r"vanishes at (conv1|maxpool)"):
            sqz.cost(architecture, size)
    else:
        sqz.cost(architecture, size)


def test_the_error_says_at_which_layer() -> None:
    with pytest.raises(FeatureMapVanishes, match=r"vanishes at maxpool8 \(after fire8\)"):
        sqz.cost(sqz.preset("squeezenet1_0"), 20)
    with pytest.raises(FeatureMapVanishes, match="vanishes at conv1"):
        sqz.cost(sqz.preset("squeezenet1_0"), 6)


@settings(max_examples=30, deadline=None)
@given(st.lists(architectures(), min_size=1, max_size=20), st.integers(128, 256))
def test_a_table_is_its_rows(rows: list[sqz.Architecture], size: int) -> None:
    rows = [a for a in rows if fits(a, size)]
    assume(rows)
    frame = pd.DataFrame([a.model_dump() for a in rows], index=range(7, 7 + len(rows)))
    expected = [sqz.cost(a, size).totals() for a in rows]
    for pools in (tuple, list, lambda p: ",".join(map(str, p))):
        table = sqz.cost_table(frame.assign(pool_after=frame["pool_after"].map(pools)), size)
        assert table.to_dict("records") == expected
        assert list(table.index) == list(frame.index)
    assert sqz.cost_table(rows, size).to_dict("records") == expected
    staged = sqz.cost_table(rows, size, per_stage=True)
    for total in ("params", "macs", "activations"):
        parts = [name for name in staged if name.endswith(f".{total}")]
        assert (staged[parts].sum(axis=1) == staged[total]).all()
    for i, architecture in enumerate(rows):
        for layer in sqz.cost(architecture, size).layers:
            if layer.name.startswith("fire"):
                assert staged[f"{layer.name}.macs"][i] == layer.macs


def test_an_empty_table() -> None:
    table = sqz.cost_table(pd.DataFrame({"squeeze_ratio": np.array([], dtype=float)}))
    assert list(table) == list(COST_COLUMNS)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("squeeze_ratio", [0.5, 0.0], "'squeeze_ratio': found 0.0, expected a number > 0"),
        ("squeeze_ratio", [0.5, np.nan], "no gaps"),
        ("squeeze_ratio", ["a", "b"], "expected float"),
        ("fires", [8.0, 7.5], "expected int"),
        ("fires", [8, 0], "found 0"),
        ("bypass", ["none", "simpel"], "found 'simpel'"),
        ("pool_after", ["1,4,8", "1,4,99"], "no layer 99"),
        ("pool_after", ["1,4,8", "1,4,9,11"], "row 1: .*no layer 11"),
        ("pool_after", [(1,), (1, 2, 3, 4, 5, 6, 7, 8)], "row 1: the feature map vanishes"),
        ("pool_after", ["4", 4.5], "found 4.5"),
        ("batch_norm", [0, 1], "expected bool"),
        ("fire5.expand_filters", ["abc"], "'fire5.expand_filters': found 'abc', expected an integ"),
        ("fire5.expand_filters", ["128"], "found '128', expected an integer"),
        ("fire5.expand_filters", [128.0, 128.5], "found 128.5, expected an integer"),
        ("fire5.expand_filters", [[128]], "expected an integer"),
        ("overrides", ["fire5.expand_filters=abc"], "found 'abc', expected an integer"),
    ],
)
def test_a_table_with_a_bad_value(column: str, values: list, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        sqz.cost_table(pd.DataFrame({column: values}))


def test_overflow_is_an_error() -> None:
    wide = sqz.Architecture(base_expand=1_000_000, width_multiplier=1000.0)
    with pytest.raises(CostOverflow, match="2\\*\\*53"):
        sqz.cost(wide)


def test_the_largest_exact_counts_are_exact() -> None:
    """Python's integers, which do not round, agree just below the limit."""
    a = sqz.Architecture(
        base_expand=900_000, expand_increment=0, squeeze_ratio=1.0, fires=3, pool_after=(1,)
    )
    counts = independent.plan(a.model_dump())[1]
    expected = 96 * 3 * 49 + 96 + 900_000 * 1000 + 1000
    for cin, s, e1, e3 in counts:
        expected += cin * s + s + s * e1 + e1 + 9 * s * e3 + e3
    assert sqz.cost(a, 16).params == expected > 2**43


def test_an_overflow_names_the_architecture() -> None:
    rows = pd.DataFrame({"base_expand": [128, 1_000_000], "width_multiplier": [1.0, 1000.0]})
    with pytest.raises(CostOverflow, match=r"params of .* base_expand=1000000, width_multiplier"):
        sqz.cost_table(rows)
    # A map that vanishes has no cost that could be too large.
    with pytest.raises(UserError, match="row 1: the feature map vanishes"):
        sqz.cost_table(rows.assign(stem_kernel=[3, 10_000]), 64)


def test_tables_of_nothing_and_of_one() -> None:
    assert len(sqz.cost_table([])) == 0
    assert len(sqz.cost_table(pd.DataFrame({"fires": pd.Series([], dtype=int)}))) == 0
    assert sqz.cost_table(sqz.Architecture())["params"].tolist() == [1_248_424]
    with pytest.raises(UserError, match="column 'fires': found object"):
        sqz.cost_table(pd.DataFrame({"fires": pd.Series([8, "x"], dtype=object)}))


@pytest.mark.parametrize("size", [0, -1, 2.0, True, 10**9])
def test_bad_input_size(size: object) -> None:
    with pytest.raises(UserError, match="input size"):
        sqz.cost(sqz.Architecture(), size)
