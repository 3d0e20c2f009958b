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
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from . import timing
from .architecture import PRESETS, Architecture
from .errors import FeatureMapVanishes, UserError, shown
from .prepare import CHOICES, Runner, Settings, cudnn_as, is_out_of_memory, on_device
from .roofline import Roofs, floor
from .rounds import alternate, summary, warm_up
from .sensors import Sensors

REFERENCE = "squeezenet1_1"
MAX_BATCH = 65536

_ENERGY_SECONDS = 0.5
_KEPT_REFERENCES = 32


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
    with torch.inference_mode(), on_device(device), cudnn_as(settings):
        outcome = _attempt(architecture, settings, seconds)
        if isinstance(outcome, _Failed) and outcome.outcome == "out_of_memory" and _references:
            forget_references()
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


def forget_references() -> None:
    """Let go of the reference networks that are kept ready, and of their memory."""
    _references.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
