"""Images a second and latency of an architecture's network, measured on a device.

One measurement is one network at one `Settings`, in rounds: a block of passes of the network, then
one of the reference network (SqueezeNet v1.1) at the same settings, and so on, so that what
happens to the machine happens to both. A pass is timed from start to end of its work on the
device (CUDA events, or the clock on a CPU), and each takes the next of several input buffers.

- **warm-up**: passes until the median of five is within 2% of the five before, at least 2, for
  at most a quarter of the time budget;
- **repetitions**: rounds until half the width of the 95% interval of the median is at most 1% of
  it (`timing`), or the time budget is spent; at least the 6 that an interval needs;
- **relative_to_reference**: the median over the rounds of reference latency / latency.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from . import timing
from .architecture import PRESETS, Architecture
from .cost import cost
from .errors import FeatureMapVanishes, UserError, shown
from .inference import InferenceForm, can_fuse, fastest_form
from .model import Fire, SqueezeNet, build
from .roofline import ITEM_BYTES, Roofs, floor, floor_of, operations
from .sensors import Sensors

Dtype = Literal["float32", "tf32", "float16", "bfloat16"]
MemoryFormat = Literal["channels_last", "contiguous"]
Form = Literal["module", "inference"]
Mode = Literal["eager", "cuda_graph", "compile"]
#: The axes of a measurement that have names for values, with those values.
CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": get_args(Dtype),
    "memory_format": get_args(MemoryFormat),
    "form": get_args(Form),
    "mode": get_args(Mode),
}
REFERENCE = "squeezenet1_1"
MAX_BATCH = 65536

_WARMUP, _BLOCK_MS = 2, 20.0
_MOST_PASSES = 50  # of a block
_BUFFER_BYTES, _MOST_BUFFERS = 2**26, 16  # more than a processor's last-level cache
_ENERGY_SECONDS = 0.5
_COMPARED_S, _LEAST_GAIN = 0.5, 1.02  # two forms of one network: time, and what is no accident
_KEPT_REFERENCES = 32


@dataclass(frozen=True)
class Settings:
    """Everything that a throughput depends on beside the architecture and the machine."""

    device: str
    batch: int
    dtype: str = "float32"
    input_size: int = 224
    memory_format: str = "channels_last"
    form: str = "module"
    mode: str = "eager"

    def __str__(self) -> str:
        parts = (self.dtype, self.memory_format, self.form, self.mode)
        return f"batch {self.batch}, {self.input_size}x{self.input_size}, {', '.join(parts)}"


@dataclass(frozen=True)
class Throughput:
    """One measurement, a row of the table `throughput`; the fields' meaning is in `results`.

    Latencies are of a whole batch. What was not measured is None: everything, where `outcome` is
    not `measured`.
    """

    device: str
    batch: int
    dtype: str
    input_size: int
    memory_format: str
    form: str
    mode: str
    threads: int
    outcome: Literal["measured", "out_of_memory", "compile_failed"] = "measured"
    reason: str | None = None
    measured_at: str | None = None
    expand: str | None = None
    images_per_s: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p50_low: float | None = None
    latency_ms_p50_high: float | None = None
    latency_ms_p99: float | None = None
    latency_ms_sd: float | None = None
    precision: float | None = None
    repetitions: int | None = None
    rounds: int | None = None
    warm: bool | None = None
    buffers: int | None = None
    relative_to_reference: float | None = None
    relative_to_reference_low: float | None = None
    relative_to_reference_high: float | None = None
    reference_images_per_s: float | None = None
    reference_drift: float | None = None
    macs: int | None = None
    bytes: int | None = None
    matrix_macs_per_s: float | None = None
    copy_bytes_per_s: float | None = None
    floor_ms: float | None = None
    roofline_share: float | None = None
    bound: str | None = None
    peak_memory_bytes: int | None = None
    clock_mhz_before: float | None = None
    clock_mhz_after: float | None = None
    temperature_c_before: float | None = None
    temperature_c_after: float | None = None
    power_w: float | None = None
    energy_mj_per_image: float | None = None


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
            there = f"only {count} here" if count else "no CUDA device here"
            raise UserError(f"--device: found {name!r}, but torch sees {there}")
        return torch.device("cuda", device.index or 0)
    return device


def check_choices(
    dtypes: Sequence[str], modes: Sequence[str], device: torch.device, place: str
) -> None:
    """Refuse what `device` cannot do; `place` stands before the key's name in the message.

    Raises:
        UserError: a dtype or mode that needs a CUDA device, on another.
    """
    if device.type == "cuda":
        return
    for key, values, cuda_only in (("dtype", dtypes, "tf32"), ("mode", modes, "cuda_graph")):
        if cuda_only in values:
            valid = ", ".join(choice for choice in CHOICES[key] if choice != cuda_only)
            raise UserError(
                f"{place}{key}: found {shown(cuda_only)}, which needs a CUDA device; "
                f"expected {valid} on {device}"
            )


def measure(
    architecture: Architecture,
    settings: Settings,
    seconds: float = 1.0,
    folder: Path | None = None,
) -> Throughput:
    """Measure the network of `architecture`, with random weights, on random images.

    Args:
        architecture: what to measure.
        settings: on which device, and how.
        seconds: time budget of the rounds, the reference's passes included.
        folder: result folder, where the roofline's two numbers are kept.

    Returns:
        The measurement; one that did not fit the memory, or that torch could not compile, says so
        in `outcome` and `reason`.

    Raises:
        FeatureMapVanishes: the images are too small for the architecture.
        UserError: the device cannot do what the settings ask.
    """
    architecture.check_input_size(settings.input_size)
    device = torch.device(settings.device)
    check_choices([settings.dtype], [settings.mode], device, "")
    known = {field.name: getattr(settings, field.name) for field in fields(settings)}
    row = Throughput(**known, threads=torch.get_num_threads(), measured_at=_now())
    with torch.inference_mode(), _on(device), _cudnn(settings):
        outcome = _attempt(architecture, settings, seconds)
        if isinstance(outcome, _Failed) and outcome.outcome == "out_of_memory" and _references:
            _forget_references()
            outcome = _attempt(architecture, settings, seconds)
        if isinstance(outcome, _Failed):
            return replace(row, outcome=outcome.outcome, reason=outcome.reason)
        roof = Roofs(folder).of(device, settings.dtype)
    least = floor(architecture, settings.input_size, settings.batch, roof)
    latency_s = outcome["latency_ms_p50"] / 1e3
    return replace(
        row,
        **outcome,
        images_per_s=settings.batch / latency_s,
        macs=least.macs,
        bytes=least.bytes,
        matrix_macs_per_s=roof.macs_per_s,
        copy_bytes_per_s=roof.bytes_per_s,
        floor_ms=least.seconds * 1e3,
        roofline_share=least.seconds / latency_s,
        bound=least.bound(latency_s),
    )


@dataclass(frozen=True)
class LayerTime:
    """One layer of a network, run alone on its input: a row of `bench --layers`."""

    layer: str
    latency_ms_p50: float
    floor_ms: float
    roofline_share: float
    bound: str
    macs: int
    bytes: int


def measure_layers(
    architecture: Architecture,
    settings: Settings,
    seconds: float = 1.0,
    folder: Path | None = None,
) -> list[LayerTime]:
    """The layers of the eager module one by one, in rounds; arguments as of `measure`.

    A layer alone may find its input in the cache, and pays its own launch: the sum is near the
    network's latency, and not the same.

    Raises:
        FeatureMapVanishes, UserError: as `measure`.
        torch.OutOfMemoryError, MemoryError: it does not fit.
    """
    architecture.check_input_size(settings.input_size)
    device = torch.device(settings.device)
    check_choices([settings.dtype], [settings.mode], device, "")
    timed = _timed_cuda if device.type == "cuda" else _timed_cpu
    with torch.inference_mode(), _on(device), _cudnn(settings):
        x = _images(architecture, settings)[0]
        net = _network(_built(architecture), settings, x)
        names, passes = [], []
        for name, part in layers(net):
            names.append(name)
            passes.append(partial(timed, partial(part, x)))
            x = part(x)
        for one in passes:
            warm_up(one, seconds / len(passes) / 4)
        medians = alternate(passes, seconds).medians
        roof = Roofs(folder).of(device, settings.dtype)
    parts = list(operations(architecture, settings.input_size))
    rows = []
    for name, latencies in zip(names, medians, strict=True):
        least = floor_of([p for p in parts if p.layer == name], settings.batch, roof)
        latency_s = statistics.median(latencies) / 1e3
        share, bound = least.seconds / latency_s, least.bound(latency_s)
        figures = (latency_s * 1e3, least.seconds * 1e3, share, bound, least.macs, least.bytes)
        rows.append(LayerTime(name, *figures))
    return rows


def layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a SqueezeNet by their name in `describe`; one after the other they are it."""
    assert isinstance(net, SqueezeNet)
    layer, first = 1, list[nn.Module]()
    for module in net.features:
        if isinstance(module, Fire | nn.MaxPool2d):
            if first:
                yield "conv1", nn.Sequential(*first)
                first = []
            pool = isinstance(module, nn.MaxPool2d)
            layer += not pool
            yield f"{'maxpool' if pool else 'fire'}{layer}", module
        else:
            first.append(module)
    yield f"conv{layer + 1}", net.classifier[:3]
    yield f"avgpool{layer + 1}", net.classifier[3]


def over_batches(
    asked: Sequence[int] | Literal["auto"], at: Callable[[int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows that `at` gives of each batch size.

    `auto` doubles the batch from 1 until two doublings in a row bring less than 2%, until a batch
    is not measured (out of memory), or until one pass takes more than 10 s.
    """
    if not isinstance(asked, str):
        return [at(batch) for batch in asked]
    rows: list[dict[str, Any]] = []
    batch = 1
    while batch <= MAX_BATCH:
        rows.append(at(batch))
        if rows[-1]["outcome"] != "measured" or rows[-1]["latency_ms_p50"] > 10_000:
            break
        if timing.is_flat([row["images_per_s"] for row in rows]):
            break
        batch *= 2
    return rows


# --- one measurement ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Failed:
    outcome: Literal["out_of_memory", "compile_failed"]
    reason: str


def _attempt(
    architecture: Architecture, settings: Settings, seconds: float
) -> dict[str, Any] | _Failed:
    """The measured fields of a row, or why there are none. Nothing of a failed attempt is kept:
    the exception, and with it every tensor of its frames, is gone when this returns."""
    try:
        runner = Runner(architecture, settings)
        return _measured(runner, _reference(settings), seconds)
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        if is_out_of_memory(error):
            return _Failed("out_of_memory", reason)
        if settings.mode == "compile":
            return _Failed("compile_failed", f"{type(error).__name__}: {reason}")
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory is out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in str(error) or "CUDA out of memory" in str(error)
    )


class Runner:
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
        self.settings = settings
        self.device = torch.device(settings.device)
        cuda = self.device.type == "cuda"
        before = torch.cuda.memory_allocated(self.device) if cuda else 0
        if not cuda:
            _check_memory(architecture, settings)
        images = _images(architecture, settings)
        net = _network(module or _built(architecture), settings, images[0])
        self.expand: str | None = "module" if settings.form == "inference" else None
        if isinstance(net, InferenceForm):
            self.expand = net.expand
        run = _compiled(net) if settings.mode == "compile" else net
        run(images[0])
        run(images[-1])
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        if settings.mode == "cuda_graph":
            self._passes = captured(run, images)
        else:
            run(images[0])
            self._passes = [partial(run, image) for image in images]
        self.peak_memory_bytes = None
        if cuda:
            torch.cuda.synchronize(self.device)
            self.peak_memory_bytes = torch.cuda.max_memory_allocated(self.device) - before
        self.buffers = len(images)
        self._next = 0

    def latency_ms(self) -> float:
        """Time of the next pass, ms."""
        work = self._passes[self._next]
        self._next = (self._next + 1) % self.buffers
        return _timed_cuda(work) if self.device.type == "cuda" else _timed_cpu(work)

    def run_for(self, seconds: float) -> tuple[int, float]:
        """Run without a pause for some time: the passes made, and the time they took, s."""
        passes, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            for work in self._passes:
                work()
            passes += self.buffers
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return passes, time.perf_counter() - started


@dataclass(frozen=True)
class Rounds:
    """Latencies in ms by network: of all its passes, and the medians of its blocks."""

    latencies: list[list[float]]
    medians: list[list[float]]


def _measured(runner: Runner, reference: Runner | None, seconds: float) -> dict[str, Any]:
    sensors = Sensors(runner.device)
    warm = warm_up(runner.latency_ms, seconds / 4)
    if reference is not None:
        warm = warm_up(reference.latency_ms, seconds / 4) and warm
    clock, temperature = sensors.clock_mhz(), sensors.temperature_c()
    runners = [runner] if reference is None else [runner, reference]
    rounds = alternate([each.latency_ms for each in runners], seconds)
    after = {
        "clock_mhz_before": clock,
        "clock_mhz_after": sensors.clock_mhz(),
        "temperature_c_before": temperature,
        "temperature_c_after": sensors.temperature_c(),
        **_power(runner, sensors),
    }
    if reference is not None:
        medians = rounds.medians[1]
        half = len(medians) // 2
        for part in (medians[:half], medians[half:]):
            _history[runner.settings].append(statistics.median(part))
        after["reference_drift"] = timing.drift(_history[runner.settings])
    return {
        **summary(rounds, runner.settings.batch),
        **after,
        "warm": warm,
        "expand": runner.expand,
        "buffers": runner.buffers,
        "peak_memory_bytes": runner.peak_memory_bytes,
    }


def warm_up(latency_ms: Callable[[], float], seconds: float) -> bool:
    """Make passes until they are stable; false if the time was over before."""
    latencies: list[float] = []
    started = time.perf_counter()
    while not timing.is_warm(latencies):
        if len(latencies) >= _WARMUP and time.perf_counter() - started >= seconds:
            return False
        latencies.append(latency_ms())
    return True


def alternate(networks: Sequence[Callable[[], float]], seconds: float) -> Rounds:
    """Blocks of passes of each network in rounds, until the median of each is known well enough.

    Each round goes through the networks in another order (of a fixed seed), so that none of them
    always finds the caches, the clock and the memory as the same other one left them.

    A block lasts about 20 ms: then its first pass, which finds another network's data in the
    caches, is made but not counted. A pass that takes longer is a block of its own.

    Args:
        networks: each makes a pass and returns its latency in ms; warm already.
        seconds: time budget; at least 6 rounds are made.
    """
    blocks = [_Block(network) for network in networks]
    rounds = Rounds([[] for _ in blocks], [[] for _ in blocks])
    order, shuffle = list(range(len(blocks))), random.Random(0).shuffle
    started = time.perf_counter()
    while len(rounds.medians[0]) < timing.LEAST_ROUNDS or (
        time.perf_counter() - started < seconds and not all(map(timing.is_enough, rounds.medians))
    ):
        shuffle(order)
        for number in order:
            latencies = blocks[number].run()
            rounds.latencies[number].extend(latencies)
            rounds.medians[number].append(statistics.median(latencies))
    return rounds


class _Block:
    def __init__(self, latency_ms: Callable[[], float]) -> None:
        self._latency_ms = latency_ms
        self._passes = min(_MOST_PASSES, max(1, math.ceil(_BLOCK_MS / latency_ms())))

    def run(self) -> list[float]:
        if self._passes > 1:
            self._latency_ms()
        return [self._latency_ms() for _ in range(self._passes)]


def summary(rounds: Rounds, batch: int) -> dict[str, Any]:
    """The statistics of the first network, by field of `Throughput`; the second, if there is one,
    is the reference."""
    latencies, medians = rounds.latencies[0], rounds.medians[0]
    median = timing.median(medians)
    row: dict[str, Any] = {
        "latency_ms_p50": median.value,
        "latency_ms_p50_low": _number(median.low),
        "latency_ms_p50_high": _number(median.high),
        "latency_ms_p99": float(np.percentile(latencies, 99)),
        "latency_ms_sd": statistics.stdev(latencies),
        "precision": _number(median.precision),
        "repetitions": len(latencies),
        "rounds": len(medians),
    }
    if len(rounds.medians) > 1:
        ratio = timing.ratio(rounds.medians[1], medians)
        row["relative_to_reference"] = ratio.value
        row["relative_to_reference_low"] = _number(ratio.low)
        row["relative_to_reference_high"] = _number(ratio.high)
        row["reference_images_per_s"] = batch / statistics.median(rounds.medians[1]) * 1e3
    return row


def _power(runner: Runner, sensors: Sensors) -> dict[str, float | None]:
    """Power and energy of the network alone, run without a pause; the counter moves slowly."""
    before = sensors.energy_mj()
    if before is None:
        return {}
    passes, took = runner.run_for(_ENERGY_SECONDS)
    after = sensors.energy_mj()
    if after is None:
        return {}
    used = after - before
    return {
        "power_w": used / took / 1e3,
        "energy_mj_per_image": used / (passes * runner.settings.batch),
    }


# --- the reference -----------------------------------------------------------------------------

_references: dict[Settings, Runner] = {}
#: Medians of the reference in each half of each measurement since the process began, ms.
_history: defaultdict[Settings, list[float]] = defaultdict(list)


def _reference(settings: Settings) -> Runner | None:
    """The reference network at these settings; None where it does not fit images or memory."""
    if settings not in _references:
        while len(_references) >= _KEPT_REFERENCES:
            del _references[next(iter(_references))]
        try:
            PRESETS[REFERENCE].check_input_size(settings.input_size)
            _references[settings] = Runner(PRESETS[REFERENCE], settings)
        except FeatureMapVanishes:
            return None
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return None
            raise
    return _references[settings]


def _forget_references() -> None:
    _references.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- preparing a network -----------------------------------------------------------------------


def _images(architecture: Architecture, settings: Settings) -> list[Tensor]:
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


def _built(architecture: Architecture) -> nn.Module:
    """The architecture's module with the weights of seed 0; the caller's random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(architecture)


def _network(net: nn.Module, settings: Settings, images: Tensor) -> nn.Module:
    memory_format = getattr(torch, _LAYOUTS[settings.memory_format])
    net = net.eval().to(images.device, _torch_dtype(settings))
    net = net.to(memory_format=memory_format)  # type: ignore[call-overload]
    if settings.form == "module":
        return net
    assert isinstance(net, SqueezeNet)
    if settings.mode == "compile":
        # Compiling three forms to compare them takes a minute. Without BatchNorm there is nothing
        # to fold, and the compiler does the rest. With it, on a CPU, oneDNN's own fusion was the
        # faster one, with the compiler's copy; on a GPU the compiler writes both itself.
        if not net.architecture.batch_norm:
            return net
        fused = images.device.type == "cpu" and can_fuse(images.device)
        return InferenceForm(net, "concatenated", fused, memory_format)
    form = fastest_form(net, images, memory_format, partial(_quick, settings.mode, images))
    passes = [_latency(settings.mode, images, each) for each in (net, form)]
    gain = timing.ratio(*alternate(passes, _COMPARED_S).medians).value
    return form if gain > _LEAST_GAIN else net


def _latency(mode: str, images: Tensor, net: nn.Module) -> Callable[[], float]:
    """A pass of `net` that returns how long it took, ms."""
    net(images)
    work = captured(net, [images])[0] if mode == "cuda_graph" else partial(net, images)
    return partial(_timed_cuda if images.is_cuda else _timed_cpu, work)


def _quick(mode: str, images: Tensor, net: nn.Module) -> float:
    """How long a pass of `net` takes, roughly, s: the best of a few."""
    latency_ms = _latency(mode, images, net)
    times: list[float] = []
    while len(times) < 3 or sum(times) < 5 * _BLOCK_MS:
        times.append(latency_ms())
    return min(times) / 1e3


def _compiled(net: nn.Module) -> Callable[[Tensor], Tensor]:
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
    """One CUDA graph of a pass for each buffer, all in one memory pool: they run by turns."""
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
    return [graph.replay for graph in graphs]


_LAYOUTS = {"channels_last": "channels_last", "contiguous": "contiguous_format"}


def _torch_dtype(settings: Settings) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, "float32" if settings.dtype == "tf32" else settings.dtype)
    return dtype


def _check_memory(architecture: Architecture, settings: Settings) -> None:
    """Linux promises memory that it does not have, and ends the process when it is used."""
    available = _available_bytes()
    item = ITEM_BYTES[settings.dtype]
    activations = cost(architecture, settings.input_size).peak_activation_bytes // 4
    image = architecture.in_channels * settings.input_size**2
    needed = settings.batch * item * (activations + 2 * image)
    if available is not None and needed > available:
        raise MemoryError(
            f"a pass needs about {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available"
        )


def _available_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _cudnn(settings: Settings) -> Iterator[None]:
    """cuDNN as the settings say: TF32 only where asked for, the fastest algorithm of each shape."""
    backend = torch.backends.cudnn
    before = backend.allow_tf32, backend.benchmark
    backend.allow_tf32, backend.benchmark = settings.dtype == "tf32", True
    try:
        yield
    finally:
        backend.allow_tf32, backend.benchmark = before


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


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
