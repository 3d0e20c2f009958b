"""Networks in the runtimes that people deploy: ONNX Runtime and OpenVINO on a CPU.

The network is written as ONNX once, with the weights of seed 0; its outputs are compared with
PyTorch's before anything is timed. In 8-bit integers it is quantised statically on random images:
how fast it runs does not depend on what its weights are.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, shown
from ..files import write_atomically
from ..network.architecture import Architecture
from ..network.int8 import InRuntime, quantised_file
from ..network.module import SqueezeNet
from ..network.onnx import INPUT, OUTPUT, as_onnx, require_onnx, traced
from .memory import check_memory
from .runner import Passes, Runner, built, images_for
from .settings import RUNTIME_DTYPES, Settings

#: The largest difference to PyTorch's outputs (of int8: to the values that its integers stand for),
#: as a share of the largest of these.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "int8": 0.1}
#: Images that are compared, and that decide the ranges of int8 activations.
_COMPARED = 8
#: Where ONNX files are kept for every process that measures the same networks.
_files: Path | None = None


class Disagrees(RuntimeError):
    """A runtime gives other outputs than PyTorch does."""


def keep_files_in(folder: Path) -> None:
    """Write ONNX files into a folder, and read those that are there."""
    global _files
    _files = folder


def check_runtimes(
    runtimes: Sequence[str], dtypes: Sequence[str], device: torch.device, key_path: str
) -> None:
    """Refuse runtimes that are not installed or not for `device`, and dtypes that none has;
    `key_path` stands before the key's name in the message.

    Raises:
        UserError: with the command that installs what is missing.
    """
    for runtime in runtimes:
        if runtime != "torch" and device.type != "cpu":
            raise UserError(f"{key_path}runtime: found {runtime}, expected torch on {device}")
        if not set(dtypes) & set(RUNTIME_DTYPES[runtime]):
            raise UserError(
                f"{key_path}dtype: found {', '.join(dtypes)}, expected one that {runtime} has: "
                f"{', '.join(RUNTIME_DTYPES[runtime])}"
            )
        if runtime != "torch":
            require_onnx(f"{key_path}runtime: {runtime}")
        if runtime == "openvino" and importlib.util.find_spec(runtime) is None:
            raise UserError(
                f'{key_path}runtime: openvino needs openvino: pip install "sqzexplore[runtimes]"'
            )
    for dtype in dtypes:
        if not any(dtype in RUNTIME_DTYPES[runtime] for runtime in runtimes):
            having = [name for name, own in RUNTIME_DTYPES.items() if dtype in own]
            raise UserError(
                f"{key_path}dtype: found {shown(dtype)}, which no runtime of {', '.join(runtimes)} "
                f"has; expected {' or '.join(having)} among them"
            )


def runner_for(architecture: Architecture, settings: Settings) -> Passes:
    """A network ready to run at some settings.

    Raises:
        torch.OutOfMemoryError, MemoryError: it does not fit.
        Disagrees: its outputs are not PyTorch's.
    """
    if settings.runtime == "torch":
        return Runner(architecture, settings)
    return RuntimeRunner(architecture, settings)


class RuntimeRunner(Passes):
    """A network that ONNX Runtime or OpenVINO runs, on several input buffers by turns.

    Args:
        architecture: what it is; its weights are those of seed 0.
        settings: how it runs, on a CPU; torch's number of threads is the runtime's.
    """

    def __init__(self, architecture: Architecture, settings: Settings) -> None:
        check_memory(architecture, settings)
        images = images_for(architecture, settings)
        net = cast(SqueezeNet, built(architecture).eval())
        content = graph(architecture, net, settings)
        make = {"onnxruntime": _onnxruntime, "openvino": _openvino}[settings.runtime]
        run = make(content, tuple(images[0].shape), settings.dtype)
        self.largest_difference = _difference(run, net, content, images[0], settings)
        self.runtime_version = (
            f"{settings.runtime} {importlib.metadata.version(settings.runtime).partition('-')[0]}"
        )
        passes = [partial(run, image.numpy()) for image in images]
        super().__init__(settings, passes)
        passes[0]()
        passes[-1]()


def _share_of_largest(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value expected; 0 where both are all 0,
    since random weights may let nothing through."""
    error, largest = (float(values.abs().max()) for values in (found - expected, expected))
    if error == 0:
        return 0.0
    return error / largest if largest else math.inf


@torch.inference_mode()
def _difference(
    run: Callable[[Any], Any], net: SqueezeNet, content: bytes, images: Tensor, settings: Settings
) -> float:
    """Of a runtime's outputs to what they should be, as a share of the largest.

    Raises:
        Disagrees: it is more than the tolerance.
    """
    found = torch.from_numpy(np.asarray(run(images.numpy())))[:_COMPARED]
    some = images[:_COMPARED]
    expected = InRuntime(content, integers=False)(some) if settings.dtype == "int8" else net(some)
    worst = _share_of_largest(found, expected)
    allowed = _TOLERANCE[settings.dtype]
    if not worst <= allowed:
        raise Disagrees(
            f"{settings.runtime}, {settings.dtype}: outputs differ by {worst:.2g} of the largest, "
            f"expected at most {allowed:g}"
        )
    return worst


def graph(architecture: Architecture, net: SqueezeNet, settings: Settings) -> bytes:
    """The ONNX file of a network, made once for all batches, runtimes and processes."""
    return _graph_file(architecture, net, settings).read_bytes()


def _graph_file(architecture: Architecture, net: SqueezeNet, settings: Settings) -> Path:
    key = (architecture.net_id, settings.input_size, settings.dtype == "int8", torch.__version__)
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
    folder = _files or _own_folder()
    file = folder / f"{name}.onnx"
    if not file.exists():
        write_atomically(file, _written(architecture, net, settings))
    return file


def _written(architecture: Architecture, net: SqueezeNet, settings: Settings) -> bytes:
    channels, side = architecture.in_channels, settings.input_size
    if settings.dtype == "int8":
        images = torch.randn(
            _COMPARED, channels, side, side, generator=torch.Generator().manual_seed(1)
        )
        plain = _graph_file(architecture, net, replace(settings, dtype="float32"))
        return next(iter(quantised_file(plain, images, ["per_channel"])))
    content: bytes = as_onnx(traced(net, channels, side)).model_proto.SerializeToString()
    return content


@cache
def _own_folder() -> Path:
    _keep.append(tempfile.TemporaryDirectory(prefix="sqzexplore-onnx-"))
    return Path(_keep[-1].name)


#: Folders that go with this process.
_keep: list[tempfile.TemporaryDirectory[str]] = []


def _onnxruntime(content: bytes, shape: tuple[int, ...], dtype: str) -> Callable[[Any], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("batch", shape[0])
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


class _SignalStack(ctypes.Structure):
    """Linux's `stack_t`."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """The memory in which this thread handles signals stays what it was.

    OpenVINO sets its own, and puts it back when its last network goes: if another thread lets go of
    that, not here, and the next signal that Python handles, Ctrl-C for one, ends the process.
    """
    if sys.platform != "linux":
        yield
        return
    before = _SignalStack()
    sigaltstack = ctypes.CDLL(None).sigaltstack
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)


def _openvino(content: bytes, shape: tuple[int, ...], dtype: str) -> Callable[[Any], Any]:
    import openvino

    wanted = "bf16" if dtype == "bfloat16" else "f32"
    core = openvino.Core()
    model = core.read_model(content)
    model.reshape([*shape])
    requested = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": wanted,
    }
    with _signal_stack_kept():
        compiled = core.compile_model(model, "CPU", requested)
    used = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
    if wanted == "bf16" and "bf16" not in used and "bfloat16" not in used:
        raise RuntimeError(f"openvino computes bfloat16 as {used} on this processor")
    request = compiled.create_infer_request()
    return lambda images: request.infer([images], share_inputs=True)[0]
