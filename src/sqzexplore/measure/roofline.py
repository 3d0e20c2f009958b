"""The roofline: how fast a machine could run an architecture, from two numbers measured on it.

The two numbers are the rate of multiply-accumulates of a large matrix product or convolution, in a
dtype (the faster of them: a library may do one of the two below what the hardware can), and the
bandwidth of a large copy (bytes read plus bytes written). The floor of an operation is the
longer of its MACs at the one and its bytes at the other (Williams, Waterman and Patterson, 2009,
doi:10.1145/1498765.1498785), the floor of a network the sum over its operations.

Bytes are the least that operation by operation execution moves: weights and biases once, the input
once, the output once; ReLU, BatchNorm and the concatenation cost nothing. A copy of this size comes
from main memory: where the activations stay in a cache, a network can be faster than its floor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F

from ..files import write_json
from ..network.architecture import Architecture
from ..network.rules import pooled_size, scaled_width, stem_output_size
from ..nvml import Sensors
from ..provenance import device_name
from .clock import least_warm_up_s, timer
from .memory import cache_memory
from .settings import ITEM_BYTES

FILE = "roofline.json"

_SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
#: Images, channels in and out, and side of the 3x3 convolution.
_CONVOLUTIONS = {"cpu": (8, 256, 28), "cuda": (256, 512, 28)}
_LONGEST = 0.1  # s: a product that takes longer is large enough
_COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}  # well beyond any cache
_SECONDS = 0.15
_IN_A_ROW = {"cpu": 1, "cuda": 10}


@dataclass(frozen=True)
class Roof:
    """What one device does at best in one dtype, with one number of threads."""

    device_name: str
    dtype: str
    threads: int
    torch_version: str
    macs_per_s: float
    bytes_per_s: float
    driver: str = ""  # of a GPU


@dataclass(frozen=True)
class Operation:
    """One operation of an inference: what it computes and moves, in MACs and elements."""

    layer: str  # the row of `describe` that it belongs to
    name: str
    macs: int  # of one image
    weights: int  # with biases
    elements: int  # read and written, of one image

    def bytes(self, batch: int, item_bytes: int) -> int:
        """Moved by one pass of a batch."""
        return item_bytes * (self.weights + batch * self.elements)

    def times(self, roof: Roof, batch: int) -> tuple[float, float]:
        """Seconds that the arithmetic and the memory of one pass take at least."""
        return (
            batch * self.macs / roof.macs_per_s,
            self.bytes(batch, ITEM_BYTES[roof.dtype]) / roof.bytes_per_s,
        )


@dataclass(frozen=True)
class Floor:
    """The least time of one pass, and how much of it waits for arithmetic and for memory."""

    macs: int  # of one image
    bytes: int  # of one pass
    arithmetic_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        """The floor: the sum over the operations of the longer of their two times."""
        return self.arithmetic_s + self.memory_s

    def bound(self, seconds: float) -> str:
        """What most of a pass of `seconds` went to: arithmetic, memory, or overhead.

        Overhead is what the floor does not explain: launches, and work below the machine's best.
        """
        parts = {
            "arithmetic": self.arithmetic_s,
            "memory": self.memory_s,
            "overhead": seconds - self.seconds,
        }
        return max(parts, key=lambda name: parts[name])


def floor(architecture: Architecture, input_size: int, batch: int, roof: Roof) -> Floor:
    """The floor of one pass of `batch` images of `input_size` pixels a side."""
    return floor_of(list(operations(architecture, input_size)), batch, roof)


def floor_of(parts: list[Operation], batch: int, roof: Roof) -> Floor:
    """The floor of a pass through some operations."""
    arithmetic = memory = 0.0
    for operation in parts:
        computing, moving = operation.times(roof, batch)
        if computing >= moving:
            arithmetic += computing
        else:
            memory += moving
    size = ITEM_BYTES[roof.dtype]
    return Floor(
        macs=sum(operation.macs for operation in parts),
        bytes=sum(operation.bytes(batch, size) for operation in parts),
        arithmetic_s=arithmetic,
        memory_s=memory,
    )


def operations(architecture: Architecture, input_size: int) -> Iterator[Operation]:
    """The operations of an inference, in order; their MACs sum to those of `cost`."""
    a = architecture
    size = int(stem_output_size(input_size, a.stem_kernel, a.stem_stride, a.stem_padding))
    width = int(scaled_width(a.stem_width, a.width_multiplier))
    stem = a.stem_kernel**2 * a.in_channels * width
    yield Operation(
        *("conv1", "conv1", stem * size**2, stem + width),
        a.in_channels * input_size**2 + width * size**2,
    )
    for layer, stage in enumerate([None, *a.fire_stages()], start=1):
        if stage is not None:
            squeeze, name = stage.squeeze, f"fire{layer}"
            convs = [("squeeze", stage.in_channels, squeeze, 1)]
            convs += [("expand1x1", squeeze, stage.expand1x1, 1)] if stage.expand1x1 else []
            convs += [("expand3x3", squeeze, stage.expand3x3, 9)] if stage.expand3x3 else []
            width = stage.out_channels
            for part, c_in, c_out, taps in convs:
                yield _convolution(name, part, c_in, c_out, taps, size)
            if stage.bypass == "conv1x1":
                yield _convolution(name, "bypass", stage.in_channels, width, 1, size)
            if stage.bypass != "none":
                yield Operation(name, "add", 0, 0, 3 * width * size**2)
        if layer in a.pool_after:
            pooled = int(pooled_size(size))
            name = f"maxpool{layer}"
            yield Operation(name, name, 0, 0, width * (size**2 + pooled**2))
            size = pooled
    last = a.fires + 2
    yield _convolution(f"conv{last}", f"conv{last}", width, a.num_classes, 1, size)
    name = f"avgpool{last}"
    yield Operation(name, name, 0, 0, a.num_classes * (size**2 + 1))


def _convolution(layer: str, name: str, c_in: int, c_out: int, taps: int, size: int) -> Operation:
    weights = c_in * c_out * taps
    return Operation(layer, name, weights * size**2, weights + c_out, (c_in + c_out) * size**2)


#: What a roof is of: device, dtype, threads, torch, driver.
_Key = tuple[str, str, int, str, str]


class Roofs:
    """The roofs of this machine: measured once, kept in the process and in a result folder."""

    _measured: dict[_Key, Roof] = {}  # noqa: RUF012 - one for the process

    def __init__(self, folder: Path | None = None) -> None:
        self._file = folder / FILE if folder else None

    def of(self, device: torch.device, dtype: str) -> Roof:
        """The roof of `device` in `dtype`, with the threads that torch uses now."""
        threads = torch.get_num_threads()
        key = (device_name(str(device)), dtype, threads, str(torch.__version__), _driver(device))
        stored = self._stored()
        if key not in self._measured:
            self._measured[key] = stored.get(key) or measure_roof(device, dtype)
        if self._file and key not in stored:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            roofs = [*stored.values(), self._measured[key]]
            write_json(self._file, [asdict(roof) for roof in roofs])
        return self._measured[key]

    def _stored(self) -> dict[_Key, Roof]:
        if not self._file or not self._file.exists():
            return {}
        roofs = [Roof(**entry) for entry in json.loads(self._file.read_text())]
        return {(r.device_name, r.dtype, r.threads, r.torch_version, r.driver): r for r in roofs}


def measure_roof(device: torch.device, dtype: str) -> Roof:
    """Measure the matrix rate and the copy bandwidth of `device`: the best of some repetitions."""
    cache_memory(device)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = dtype == "tf32"
    try:
        rates = _matrix_rates(device, getattr(torch, "float32" if dtype == "tf32" else dtype))
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
    size = _COPY_BYTES[device.type]
    # Random bytes, eight a draw: a memory may compress what is all the same.
    source = torch.empty(size // 8, dtype=torch.int64, device=device).random_().view(torch.uint8)
    target = torch.empty_like(source)
    return Roof(
        device_name=device_name(str(device)),
        dtype=dtype,
        threads=torch.get_num_threads(),
        torch_version=str(torch.__version__),
        macs_per_s=max(rates),
        bytes_per_s=2 * size / _best(lambda: target.copy_(source), device),
        driver=_driver(device),
    )


@lru_cache(maxsize=8)
def _driver(device: torch.device) -> str:
    return Sensors(device).driver() or ""


def _matrix_rates(device: torch.device, kind: torch.dtype) -> list[float]:
    """MAC/s of a convolution, and of square matrix products up to one that takes long."""
    images, channels, side = _CONVOLUTIONS[device.type]
    x = torch.randn(images, channels, side, side, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    x, weight = (t.to(kind, memory_format=torch.channels_last) for t in (x, weight))
    took = _best(partial(F.conv2d, x, weight, padding=1), device)
    rates = [images * side**2 * channels**2 * 9 / took]
    for side in _SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        took = _best(partial(torch.mm, a, b, out=torch.empty_like(a)), device)
        rates.append(side**3 / took)
        if took > _LONGEST:
            break
    return rates


def _best(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of some repetitions, s; on a GPU several in a row are one, so that only the
    first waits for its launch."""
    took_ms, in_a_row = timer(device), _IN_A_ROW[device.type]

    def row() -> None:
        for _ in range(in_a_row):
            work()

    took_ms(work)
    times: list[float] = []
    while sum(times) < 1e3 * (_SECONDS + least_warm_up_s(device)):
        times.append(took_ms(row))
    return min(times) / in_a_row / 1e3
