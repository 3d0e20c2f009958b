"""How long a piece of work takes on a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from .settings import Settings


def least_warm_up_s(device: torch.device) -> float:
    """How long passes must go on before a timing: an idle GPU's clock is a fraction of what it
    runs at (345 of 1,980 MHz on an H100), and takes a while to rise."""
    return 0.3 if device.type == "cuda" else 0.0


def timer(device: torch.device) -> Callable[[Callable[[], object]], float]:
    """What runs a piece of work on `device` and returns how long it took, ms: by CUDA events
    around the work, or by the clock on a CPU."""
    return _timed_cuda if device.type == "cuda" else _timed_cpu


def _timed_cpu(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def _timed_cuda(work: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """`device` as the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def cudnn_as(settings: Settings) -> Iterator[None]:
    """cuDNN as the settings say: TF32 only where asked for, the fastest algorithm of each shape."""
    backend = torch.backends.cudnn
    before = backend.allow_tf32, backend.benchmark
    backend.allow_tf32, backend.benchmark = settings.dtype == "tf32", True
    try:
        yield
    finally:
        backend.allow_tf32, backend.benchmark = before
