"""What an int8 network needs on a microcontroller: against a liveness simulation over the graph
that torch traces, and against the files that ONNX Runtime quantises."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import fx, nn

import sqzexplore as sqz
from helpers.strategies import architectures, fits, on_small_images
from sqzexplore.census.census import take_census
from sqzexplore.census.query import Query
from sqzexplore.space.constraints import Expression
from sqzexplore.spec.load import parse_spec

#: What is no operation of an int8 network: part of the convolution before, or another view of it.
FUSED = (nn.ReLU, nn.BatchNorm2d, nn.Identity, nn.functional.dropout, torch.flatten)
WRITES = (nn.Conv2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, torch.cat, operator.add)


class Sizes(fx.Interpreter):
    """Runs a traced network on a batch of no images; a node keeps how many elements an image's
    value has there."""

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        n.meta["elements"] = prod(value.shape[1:])
        return value


def graph_peak(net: nn.Module, channels: int, size: int) -> tuple[int, str]:
    """Run the traced graph in its order with one buffer for every tensor that an operation writes,
    each freed after its last reader; the most bytes held at once, and the operation at which."""
    graph = fx.Tracer().trace(net)  # no module of it: its code would be made and compiled
    with torch.no_grad():
        Sizes(net, graph=graph).run(torch.empty(0, channels, size, size))
    buffer: dict[fx.Node, fx.Node] = {}  # of every value, the node that wrote its memory
    readers: dict[fx.Node, list[fx.Node]] = {}
    operations: list[fx.Node] = []
    for node in graph.nodes:
        if node.op == "output":
            continue
        what = type(net.get_submodule(node.target)) if node.op == "call_module" else node.target
        reads = node.all_input_nodes
        if what in FUSED:
            buffer[node] = buffer[reads[0]]
            continue
        assert node.op == "placeholder" or what in WRITES, node.format_node()
        buffer[node] = node
        readers[node] = [node]
        for read in reads:
            readers[buffer[read]].append(node)
        operations.append(node)
    held: dict[fx.Node, int] = {}
    peak, where = 0, ""
    for node in operations:
        held[node] = node.meta["elements"]
        if sum(held.values()) > peak:
            peak, where = sum(held.values()), node.name
        held = {n: size for n, size in held.items() if n not in readers or readers[n][-1] != node}
    return peak, where


def flash(net: nn.Module) -> int:
    """Every convolution has a bias once BatchNorm is folded into it."""
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    return sum(m.weight.numel() + 4 * len(m.weight) + 4 * len(m.weight) for m in convolutions)


WIDE_STEM = sqz.Architecture(
    stem_width=400, base_expand=16, expand_increment=0, fires=1, pool_after=()
)


@settings(max_examples=300, deadline=None)
@given(
    on_small_images()
    | st.tuples(architectures(), st.integers(32, 256)).filter(lambda case: fits(*case))
)
@example((sqz.Architecture(), 224))
@example((sqz.Architecture(bypass="complex"), 224))
@example((WIDE_STEM, 64))
@example((sqz.Architecture(num_classes=20_000, pool_after=(1, 2, 3, 4, 5)), 100))
def test_both_equal_the_traced_graph(case: tuple[sqz.Architecture, int]) -> None:
    architecture, size = case
    net = sqz.build(architecture).eval()
    counted = sqz.cost(architecture, size)
    assert counted.int8_peak_bytes == graph_peak(net, architecture.in_channels, size)[0]
    assert counted.int8_flash_bytes == flash(net)


@settings(max_examples=40, deadline=None)
@given(st.lists(architectures(max_fires=6), min_size=2, max_size=8), st.integers(64, 160))
def test_rows_of_a_table_do_not_touch_each_other(rows: list[sqz.Architecture], size: int) -> None:
    """Shorter networks beside longer ones, with a bypass and without, overridden or not."""
    rows = [a for a in rows if fits(a, size)]
    assume(rows)
    table = sqz.cost_table(rows, size)
    nets = [sqz.build(a).eval() for a in rows]
    peaks = [graph_peak(net, a.in_channels, size)[0] for net, a in zip(nets, rows, strict=True)]
    assert table["int8_peak_bytes"].tolist() == peaks
    assert table["int8_flash_bytes"].tolist() == [flash(net) for net in nets]


def test_by_hand() -> None:
    """v1.0 at 224 pixels: maps of 109, 54, 27 and 13 pixels a side."""
    v10 = sqz.preset("squeezenet1_0")
    # Fire 4, all of it at 54x54: both branches, together 256 channels, and their concatenation.
    assert sqz.cost(v10).int8_peak_bytes == 2 * 256 * 54 * 54
    assert graph_peak(sqz.build(v10).eval(), 3, 224) == (2 * 256 * 54 * 54, "cat_2")
    # Its addition reads two tensors of them and writes a third; in float32 it works in place.
    bypassed = sqz.cost(v10.replace(bypass="complex"))
    assert bypassed.int8_peak_bytes == 3 * 256 * 54 * 54
    assert bypassed.peak_activation_bytes == 4 * (128 + 2 * 256) * 54 * 54
    channels = 96 + 2 * (16 + 128) + 2 * (32 + 256) + 2 * (48 + 384) + 2 * (64 + 512) + 1000
    assert sqz.cost(v10).int8_flash_bytes == (1_248_424 - channels) + 8 * channels
    # BatchNorm leaves nothing but a bias that the convolution has anyway.
    assert sqz.cost(v10.replace(batch_norm=True)).int8_flash_bytes == sqz.cost(v10).int8_flash_bytes


CENSUS = """
name: budgets
space:
  squeeze_ratio: [0.125, 0.5]
  bypass: [none, simple, complex]
  width_multiplier: [0.25, 0.5, 1.0]
  pool_after: [[1, 3, 5], [1, 4, 8]]
  batch_norm: [false, true]
constraints: ["int8_flash_bytes < 1_000_000"]
input_size: 96
"""


def test_a_census_and_constraints_keep_to_budgets() -> None:
    space = parse_spec(CENSUS).design_space
    unbound = parse_spec(CENSUS.replace("constraints", "# ")).design_space
    every = [unbound.architecture(row) for row in range(unbound.size)]
    budget = 110_000
    fitting = []
    for architecture in every:
        net = sqz.build(architecture).eval()
        if flash(net) < 1_000_000:
            peak = graph_peak(net, 3, 96)[0]
            if peak <= budget:
                fitting.append((peak, flash(net)))
    where = Expression(f"int8_peak_bytes <= {budget}")
    names = ("int8_peak_bytes", "int8_flash_bytes")
    taken = take_census(space, Query(where, sort=names, top=10**3, minimize=names, spellings=True))
    assert 0 < len(fitting) < len(every)
    assert [*taken.top[list(names)].itertuples(index=False, name=None)] == sorted(fitting)
    least = {
        one
        for one in fitting
        if not any(a <= one[0] and b <= one[1] and (a, b) != one for a, b in fitting)
    }
    assert {*taken.front[list(names)].itertuples(index=False, name=None)} == least


# --- what ONNX Runtime writes --------------------------------------------------------------------


class Noise(CalibrationDataReader):
    """Four images for calibration."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        generator = np.random.default_rng(0)
        self._rest: Iterator[dict[str, np.ndarray]] = iter(
            [{"images": generator.random(shape, dtype=np.float32)} for _ in range(4)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)


def quantised(architecture: sqz.Architecture, size: int, folder: Path) -> onnx.ModelProto:
    """The network as ONNX Runtime's static quantisation writes it: per channel, QDQ."""
    image = torch.zeros(1, architecture.in_channels, size, size)
    plain, ready, done = (folder / f"{name}.onnx" for name in ("plain", "ready", "done"))
    net = sqz.build(architecture).eval()
    for module in net.modules():
        if getattr(module, "bias", None) is not None:  # a bias of zeros may not be written
            nn.init.uniform_(module.bias, 0.1, 0.2)
    logging.disable(logging.WARNING)
    try:
        torch.onnx.export(net, (image,), plain, dynamo=True, input_names=["images"], verbose=False)
        quant_pre_process(str(plain), str(ready))
        quantize_static(
            *(str(ready), str(done), Noise(tuple(image.shape))),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.shape_inference.infer_shapes(onnx.load(done))


def stored(graph: onnx.GraphProto) -> int:
    """Bytes of what every convolution reads: int8 weights, int32 bias, a scale a channel."""
    made_by = {node.output[0]: node for node in graph.node}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    total = 0
    for node in (n for n in graph.node if n.op_type == "Conv"):
        weights, scales, _ = (constants.get(n) for n in made_by[node.input[1]].input)
        bias = constants[made_by[node.input[2]].input[0]]
        assert weights.data_type == onnx.TensorProto.INT8
        assert bias.data_type == onnx.TensorProto.INT32
        assert scales.data_type == onnx.TensorProto.FLOAT
        total += prod(weights.dims) + 4 * prod(bias.dims) + 4 * prod(scales.dims)
    return total


def file_peak(graph: onnx.GraphProto) -> int:
    """Most int8 elements alive at once, in the order of the file; a tensor is its quantised form,
    whatever quantises, dequantises or rectifies it is part of what computes it."""
    same = {
        "QuantizeLinear",
        "DequantizeLinear",
        "Relu",
        "Reshape",
        "Flatten",
        "Identity",
        "Squeeze",
    }
    sizes = {
        value.name: prod(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    constants = {tensor.name for tensor in graph.initializer}
    of = {"images": "images"}
    order: list[tuple[set[str], str]] = []
    for node in graph.node:
        reads = [of[name] for name in node.input if name in of]
        if not reads:  # a dequantised constant
            assert {*node.input} <= constants
            continue
        if node.op_type in same:
            of[node.output[0]] = reads[0]
            continue
        of[node.output[0]] = node.output[0]
        order.append(({*reads}, node.output[0]))
    end = {name: i for i, (reads, writes) in enumerate(order) for name in (*reads, writes)}
    start = {"images": 0} | {writes: i for i, (_, writes) in enumerate(order)}
    return max(sum(sizes[n] for n in end if start[n] <= i <= end[n]) for i in range(len(order)))


SMALL = sqz.Architecture(
    width_multiplier=0.1, fires=4, pool_after=(1, 3), stem_kernel=3, num_classes=7
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        SMALL,
        SMALL.replace(bypass="complex", batch_norm=True),
        SMALL.replace(bypass="simple", fraction_3x3=1.0, squeeze_ratio=0.5),
    ],
    ids=["plain", "complex", "one branch"],
)
def test_both_equal_the_file_that_onnx_runtime_quantises(
    architecture: sqz.Architecture, tmp_path: Path
) -> None:
    graph = quantised(architecture, 48, tmp_path).graph
    counted = sqz.cost(architecture, 48)
    assert counted.int8_flash_bytes == stored(graph)
    assert counted.int8_peak_bytes == file_peak(graph)
