"""A network made ready to run on a device at some settings, and one pass of it timed."""

from __future__ import annotations

import math
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..network.architecture import Architecture
from ..network.inference import InferenceForm, fastest_form
from ..network.kernels import kernels_for, plain
from ..network.module import SqueezeNet, build
from . import statistics
from .clock import timer
from .interleave import BLOCK_MS, alternate
from .memory import check_memory
from .settings import COMPILED, GRAPHED, ITEM_BYTES, Settings

_BUFFER_BYTES, _MOST_BUFFERS = 2**26, 16  # more than a processor's last-level cache
_COMPARED_S, _LEAST_GAIN = 0.5, 1.02  # two forms of one network: time, and what is no accident


class Passes:
    """Passes of a network over its input buffers, by turns.

    Args:
        settings: how it runs.
        passes: one a buffer.
    """

    expand: str | None = None
    peak_memory_bytes: int | None = None
    #: To PyTorch's outputs, as a share of the largest; None where it is PyTorch.
    largest_difference: float | None = None
    runtime_version: str | None = None

    def __init__(self, settings: Settings, passes: Sequence[Callable[[], object]]) -> None:
        self.settings, self.device = settings, torch.device(settings.device)
        self._passes, self.buffers = passes, len(passes)
        self._next = 0

    def latency_ms(self) -> float:
        """Time of the next pass, ms."""
        work = self._passes[self._next]
        self._next = (self._next + 1) % self.buffers
        return timer(self.device)(work)

    def run_for(
        self, seconds: float, after_block: Callable[[int], object] = lambda passes: None
    ) -> tuple[int, float]:
        """Run without a pause for some time: the passes made, and the time they took, s.

        A GPU always has the next block of passes queued when it ends one.

        Args:
            seconds: for how long; at least one pass is made.
            after_block: called with the passes made so far after every block, one pass of each
                buffer; on a GPU some of the last block may still run.
        """
        queue = _Queue(self.device)
        passes, started = 0, time.perf_counter()
        while not passes or time.perf_counter() - started < seconds:
            self._passes[passes % self.buffers]()
            passes += 1
            if passes % self.buffers == 0:
                queue.end_block()
                after_block(passes)
        queue.drain()
        return passes, time.perf_counter() - started


class Runner(Passes):
    """A network ready to run at some settings, on several input buffers by turns.

    Args:
        architecture: what it is.
        settings: how it runs.
        module: what to run in place of the architecture's module, on the CPU, in float32.

    Raises:
        torch.OutOfMemoryError, MemoryError: it does not fit.
    """

    def __init__(
        self, architecture: Architecture, settings: Settings, module: nn.Module | None = None
    ) -> None:
        device = torch.device(settings.device)
        cuda = device.type == "cuda"
        before = torch.cuda.memory_allocated(device) if cuda else 0
        if not cuda:
            check_memory(architecture, settings)
        images = images_for(architecture, settings)
        net = network_for(module or built(architecture), settings, images[0])
        self.expand = "module" if settings.form == "inference" else None
        if isinstance(net, InferenceForm):
            self.expand = net.expand
        run = compiled(net) if settings.mode in COMPILED else net
        run(images[0])
        run(images[-1])
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        if settings.mode in GRAPHED:
            passes = captured(run, images)
        else:
            run(images[0])
            passes = [partial(run, image) for image in images]
        if cuda:
            torch.cuda.synchronize(device)
            self.peak_memory_bytes = torch.cuda.max_memory_allocated(device) - before
        super().__init__(settings, passes)


class _Queue:
    """Keeps the host at most two blocks of passes ahead of a GPU; on a CPU nothing is queued."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: torch.cuda.Event | None = None
        self.drain()

    def end_block(self) -> None:
        if self._device.type != "cuda":
            return
        queued = torch.cuda.Event()
        queued.record()
        if self._before is not None:
            self._before.synchronize()
        self._before = queued

    def drain(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def images_for(architecture: Architecture, settings: Settings) -> list[Tensor]:
    """Input buffers that together are larger than a cache."""
    device, side = torch.device(settings.device), settings.input_size
    shape = (settings.batch, architecture.in_channels, side, side)
    size = math.prod(shape) * ITEM_BYTES[settings.dtype]
    count = min(_MOST_BUFFERS, max(2, math.ceil(_BUFFER_BYTES / size)))
    generator = torch.Generator(device).manual_seed(0)
    return [
        torch.randn(shape, device=device, generator=generator).to(
            _torch_dtype(settings), memory_format=getattr(torch, _LAYOUTS[settings.memory_format])
        )
        for _ in range(count)
    ]


def built(architecture: Architecture) -> nn.Module:
    """The architecture's module with the weights of seed 0; the caller's random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(architecture)


def network_for(net: nn.Module, settings: Settings, images: Tensor) -> nn.Module:
    """`net` on the device of `images`, in the form that the settings ask for."""
    memory_format = getattr(torch, _LAYOUTS[settings.memory_format])
    net = net.eval().to(images.device, _torch_dtype(settings))
    net = net.to(memory_format=memory_format)  # type: ignore[call-overload]
    if settings.form == "module":
        return net
    assert isinstance(net, SqueezeNet)
    if settings.mode in COMPILED:
        # Compiling three forms to compare them takes a minute. Without BatchNorm there is nothing
        # to fold, and the compiler does the rest. With it, on a CPU, oneDNN's own fusion was the
        # faster one, with the compiler's copy; on a GPU the compiler writes both itself.
        if not net.architecture.batch_norm:
            return net
        kernels = kernels_for(images.device, images.dtype)
        kernel = kernels[0] if images.device.type == "cpu" else plain
        return InferenceForm(net, "concatenated", kernel, memory_format)
    form = fastest_form(net, images, memory_format, partial(_quick, settings.mode, images))
    passes = [_latency(settings.mode, images, each) for each in (net, form)]
    gain = statistics.ratio(*alternate(passes, _COMPARED_S).medians).value
    return form if gain > _LEAST_GAIN else net


def _latency(mode: str, images: Tensor, net: nn.Module) -> Callable[[], float]:
    """A pass of `net` that returns how long it took, ms."""
    net(images)
    work = captured(net, [images])[0] if mode == "cuda_graph" else partial(net, images)
    return partial(timer(images.device), work)


def _quick(mode: str, images: Tensor, net: nn.Module) -> float:
    """How long a pass of `net` takes, roughly, s: the best of a few."""
    latency_ms = _latency(mode, images, net)
    times: list[float] = []
    while len(times) < 3 or sum(times) < 5 * BLOCK_MS:
        times.append(latency_ms())
    return min(times) / 1e3


def compiled(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """`net` compiled whole, for one shape.

    Dynamo keeps what it compiled by the code object of the function, a handful of each, and runs
    the next network uncompiled without a word. A code object of its own for each network keeps
    it out of the others' way.
    """

    def forward(images: Tensor) -> Tensor:
        return net(images)

    own = types.FunctionType(
        forward.__code__.replace(co_name=f"forward_{id(net)}"),
        *(forward.__globals__, "forward", None, forward.__closure__),
    )
    return torch.compile(own, fullgraph=True, dynamic=False)


def captured(
    net: Callable[[Tensor], Tensor], images: Sequence[Tensor]
) -> list[Callable[[], object]]:
    """One CUDA graph of a pass for each buffer, all in one memory pool: they run by turns.

    Each pass holds `net` and its buffer: a graph knows the addresses of weights and images, and
    does not keep them from being freed.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a capture must not be the first pass
        for _ in range(3):
            net(images[0])
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graphs: list[torch.cuda.CUDAGraph] = []
    for image in images:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=graphs[0].pool() if graphs else None):
            net(image)
        graphs.append(graph)
    return [_Replay(graph, net, image) for graph, image in zip(graphs, images, strict=True)]


@dataclass(frozen=True)
class _Replay:
    graph: torch.cuda.CUDAGraph
    net: Callable[[Tensor], Tensor]
    images: Tensor

    def __call__(self) -> None:
        self.graph.replay()


_LAYOUTS = {"channels_last": "channels_last", "contiguous": "contiguous_format"}


def _torch_dtype(settings: Settings) -> torch.dtype:
    name = settings.dtype if settings.runtime == "torch" else "float32"  # images alone
    dtype: torch.dtype = getattr(torch, "float32" if name == "tf32" else name)
    return dtype
