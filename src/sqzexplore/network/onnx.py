"""A network as an ONNX graph (opset of torch's own exporter), and what that needs installed."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import UserError

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

#: What the extra `export` brings.
NEEDED = ("onnx", "onnxruntime", "onnxscript")
INPUT, OUTPUT = "images", "logits"


def require_onnx(what: str) -> None:
    """Refuse `what` where ONNX cannot be written or run.

    Raises:
        UserError: a package is missing; with the command that installs it.
    """
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise UserError(f'{what} needs {name}: pip install "sqzexplore[export]"')


def traced(net: nn.Module, channels: int, input_size: int) -> torch.export.ExportedProgram:
    """A network as a program of torch.export: N x channels x side x side -> N x classes, N left
    open.

    Args:
        net: in evaluation mode, on the CPU.
        channels: of its images.
        input_size: side of its images, pixels.
    """
    example = torch.zeros(2, channels, input_size, input_size)
    with _quiet():
        batch = torch.export.Dim("batch")
        program = torch.export.export(net, (example,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:  # the paths of this machine are nobody's business
        node.meta.pop("stack_trace", None)
    return program


def as_onnx(program: torch.export.ExportedProgram) -> ONNXProgram:
    """A traced network as an ONNX graph from `images` to `logits`."""
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert made is not None
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks on its own parts, and on operators that these networks lack."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(before)
