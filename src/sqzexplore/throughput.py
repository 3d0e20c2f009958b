"""Images a second and latency of an architecture's network, measured on a device.

One measurement is one batch size and one dtype: the network in inference mode, channels-last,
eager. Warm-up first (until `_WARMUP` passes and a quarter of the time budget are through), then
forward passes one by one, each timed from start to end of its work on the device (CUDA events, or
the clock on a CPU), until the time budget is spent. The median gives the throughput.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .architecture import Architecture
from .errors import UserError
from .model import build

_WARMUP = 3
_LEAST, _MOST = 5, 2000


@dataclass(frozen=True)
class Throughput:
    """One measurement. Latencies are of a whole batch, in milliseconds."""

    device: str
    batch: int
    dtype: str
    input_size: int
    threads: int
    repetitions: int
    images_per_s: float
    latency_ms_p50: float
    latency_ms_p99: float
    latency_ms_sd: float


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means on this machine.

    Raises:
        UserError: no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device: found {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(f"--device: found {name!r}, but torch sees {count} CUDA devices here")
        return torch.device("cuda", device.index or 0)
    return device


def measure(
    architecture: Architecture,
    batch: int,
    dtype: str = "float32",
    input_size: int = 224,
    device: torch.device | str = "cpu",
    seconds: float = 1.0,
) -> Throughput:
    """Measure the network of `architecture` on random images of `input_size` pixels.

    Args:
        architecture: what to measure, with random weights.
        batch: images in one forward pass.
        dtype: float32, float16 or bfloat16, of weights and images.
        input_size: side of the square images, pixels.
        device: where it runs.
        seconds: time budget of the timed passes; at least 5 are made, at most 2,000.

    Raises:
        FeatureMapVanishes: the images are too small for the architecture.
        torch.OutOfMemoryError: the batch does not fit the device.
    """
    architecture.check_input_size(input_size)
    device = torch.device(device)
    kind: torch.dtype = getattr(torch, dtype)
    net = build(architecture).eval().to(device, kind)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch, architecture.in_channels, input_size, input_size, device=device)
    images = images.to(kind, memory_format=torch.channels_last)
    timed = _timed_cuda if device.type == "cuda" else _timed_cpu
    with torch.inference_mode():
        latencies = _repeat(lambda: timed(lambda: net(images)), seconds)
    p50, p99 = np.percentile(latencies, [50, 99])
    return Throughput(
        device=str(device),
        batch=batch,
        dtype=dtype,
        input_size=input_size,
        threads=torch.get_num_threads(),
        repetitions=len(latencies),
        images_per_s=batch / float(p50) * 1e3,
        latency_ms_p50=float(p50),
        latency_ms_p99=float(p99),
        latency_ms_sd=statistics.stdev(latencies),
    )


def _repeat(once: Callable[[], float], seconds: float) -> list[float]:
    """Warm up, then latencies in ms of repetitions until `seconds` have passed."""
    started, passes = time.perf_counter(), 0
    while passes < _WARMUP or time.perf_counter() - started < seconds / 4:
        once()
        passes += 1
    latencies: list[float] = []
    started = time.perf_counter()
    while len(latencies) < _LEAST or (
        len(latencies) < _MOST and time.perf_counter() - started < seconds
    ):
        latencies.append(once())
    return latencies


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
