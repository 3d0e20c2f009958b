"""A network in 8-bit integers, as ONNX Runtime quantises and runs it (static, QDQ).

Activations are unsigned, weights signed, each with a scale and an offset that calibration images
decide (Jacob et al., arXiv:1712.05877); weights have a scale a filter, or one a layer.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .onnx import INPUT, OUTPUT, as_onnx, traced

_BATCH = 32


def quantised(net: nn.Module, images: Tensor, schemes: Sequence[str]) -> Iterator[bytes]:
    """ONNX files of a network in 8-bit integers, one a scheme.

    Where this machine's kernels saturate (`saturates`) the weights keep 7 bits.

    Args:
        net: in evaluation mode, on the CPU.
        images: N x channels x side x side, normalised: their activations decide the ranges.
        schemes: how weights are scaled: per_channel or per_tensor.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        as_onnx(traced(net, images.shape[1], images.shape[2])).save(plain)
        yield from quantised_file(plain, images, schemes)


def quantised_file(plain: Path, images: Tensor, schemes: Sequence[str]) -> Iterator[bytes]:
    """As `quantised`, of a network's ONNX file."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready, file = (str(Path(folder) / f"{name}.onnx") for name in ("ready", "int8"))
        quant_pre_process(str(plain), ready)  # folds BatchNorm, or it is quantised by itself
        for scheme in schemes:
            quantize_static(
                ready,
                file,
                _Images(images),
                quant_format=QuantFormat.QDQ,
                per_channel=scheme == "per_channel",
                reduce_range=saturates(),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            yield Path(file).read_bytes()


class InRuntime(nn.Module):
    """An ONNX file as a module that ONNX Runtime runs on the CPU.

    Args:
        content: the file: N x channels x side x side `images` -> N x classes `logits`.
        integers: whether quantised operations run on integers, as in deployment, or each on the
            float values that its integers stand for.
    """

    def __init__(self, content: bytes, integers: bool = True) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not integers:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )

    def forward(self, images: Tensor) -> Tensor:
        """N x channels x side x side -> N x classes logits, on the device of the images."""
        given = {INPUT: images.contiguous().cpu().numpy()}
        (logits,) = self._session.run([OUTPUT], given)
        return torch.from_numpy(logits).to(images.device)


@cache
def saturates() -> bool:
    """Whether sums of two 8-bit products overflow 16 bits in this machine's kernels, as they do on
    x86 processors without VNNI: found by a convolution whose true result is known."""
    from onnx import TensorProto, helper, numpy_helper

    channels, largest = 32, np.float32(255 * 127)
    tensors: dict[str, NDArray[Any]] = {
        "one": np.array(1, np.float32),
        "step": np.array(channels * largest / 255, np.float32),
        "zero": np.array(0, np.uint8),
        "signed_zero": np.array(0, np.int8),
        "weights": np.full((8, channels, 1, 1), 127, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", [INPUT, "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "signed_zero"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "step", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "step", "zero"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "saturates",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", channels, 4, 4])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", 8, 4, 4])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    found = InRuntime(model.SerializeToString())(torch.full((1, channels, 4, 4), 255.0))
    return not np.allclose(found.numpy(), channels * largest, rtol=0.01)


class _Images:
    """Calibration images in batches, as ONNX Runtime asks for them."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter(images.split(_BATCH))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.numpy()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ONNX Runtime's advice, which speaks of what is done here already."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
