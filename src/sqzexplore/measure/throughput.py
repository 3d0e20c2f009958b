"""Images a second and latency of an architecture's network, measured on a device.

One measurement is one network at one `Settings`, by one process or several (`apart`), in rounds: a
block of passes of the network, then one of the reference network (SqueezeNet v1.1) at the same
settings, and so on, so that what happens to the machine happens to both. A pass is timed from start
to end of its work on the device (CUDA events, or the clock on a CPU), and each takes the next of
several input buffers.

- **warm-up**: passes until the median of five is within 2% of the five before (of passes above
  20 ms: of two), for at most a quarter of the time budget or 8 passes; on a GPU for 0.3 s at least,
  since its clock rises slowly;
- **repetitions**: rounds until half the width of the 95% interval of the median is at most 1% of
  it (`statistics`), or the time budget is spent; at least the 6 that an interval needs;
- **relative_to_reference**: the median over the rounds of reference latency / latency;
- **sustained_images_per_s**: then the network alone, passes without a pause for half a second;
- **energy**, where a GPU counts it: of two seconds more, between two changes of the counter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median as middle
from typing import Any, Literal

import torch

from ..device_errors import is_lost, is_out_of_memory
from ..network.architecture import Architecture
from ..network.cost import cost
from ..nvml import Sensors
from . import statistics
from .clock import cudnn_as, least_warm_up_s, on_device
from .devices import DeviceLost, check_choices
from .interleave import alternate, summary, warm_up
from .memory import cache_memory
from .reference import Failed, Outcome, forget_references, history, reference, references
from .roofline import Roof, Roofs, floor
from .runner import Passes
from .runtimes import check_runtimes, runner_for
from .settings import COMPILED, MAX_BATCH, Settings

_SUSTAINED_S, _ENERGY_S = 0.5, 2.0


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
    runtime: str
    threads: int
    caching_allocator: bool | None = None
    outcome: Outcome = "measured"
    reason: str | None = None
    measured_at: str | None = None
    expand: str | None = None
    runtime_version: str | None = None
    largest_difference: float | None = None
    images_per_s: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p50_low: float | None = None
    latency_ms_p50_high: float | None = None
    latency_ms_p99: float | None = None
    latency_ms_sd: float | None = None
    precision: float | None = None
    precise: bool | None = None
    processes: int | None = None
    process_latency_ms: str | None = None
    repetitions: int | None = None
    rounds: int | None = None
    warm: bool | None = None
    buffers: int | None = None
    sustained_images_per_s: float | None = None
    sustained_images_per_s_low: float | None = None
    sustained_images_per_s_high: float | None = None
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
        The measurement; one that did not fit the memory, that torch could not compile, or that
        failed otherwise, says so in `outcome` and `reason`.

    Raises:
        FeatureMapVanishes: the images are too small for the architecture.
        UserError: the device cannot do what the settings ask.
        DeviceLost: nothing can be measured in this process any more.
    """
    check(architecture, settings)
    return beside_roof(timed(architecture, settings, seconds), architecture, folder)


def check(architecture: Architecture, settings: Settings) -> None:
    """Refuse what cannot be measured.

    Raises:
        FeatureMapVanishes: the images are too small for the architecture.
        UserError: the device cannot do what the settings ask.
    """
    architecture.check_input_size(settings.input_size)
    device = torch.device(settings.device)
    check_runtimes([settings.runtime], [settings.dtype], device, "")
    check_choices([settings.dtype], [settings.mode], device, "")


def timed(architecture: Architecture, settings: Settings, seconds: float) -> Throughput:
    """A measurement by this process, without what the roofline says of it; as `measure`."""
    device = torch.device(settings.device)
    row = replace(blank(settings), caching_allocator=cache_memory(device))
    with torch.inference_mode(), on_device(device), cudnn_as(settings):
        outcome = _attempt(architecture, settings, seconds)
        if isinstance(outcome, Failed) and outcome.outcome == "out_of_memory" and references:
            forget_references()
            outcome = _attempt(architecture, settings, seconds)
    if isinstance(outcome, Failed):
        return replace(row, outcome=outcome.outcome, reason=outcome.reason)
    latency, precision = outcome["latency_ms_p50"], outcome["precision"]
    return replace(
        row,
        **outcome,
        processes=1,
        process_latency_ms=f"{latency:.6g}",
        precise=precision is not None and precision <= statistics.PRECISION,
        images_per_s=settings.batch / latency * 1e3,
    )


def blank(settings: Settings) -> Throughput:
    """The row of a measurement that starts now, still without its numbers."""
    return Throughput(
        **asdict(settings),
        threads=torch.get_num_threads(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def over_batches(
    requested: Sequence[int] | Literal["auto"], at: Callable[[int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows that `at` gives of each batch size.

    `auto` doubles the batch from 1 until two doublings in a row bring less than 2%, until a batch
    is not measured (out of memory), or until one pass takes more than 10 s.
    """
    if not isinstance(requested, str):
        return [at(batch) for batch in requested]
    rows: list[dict[str, Any]] = []
    batch = 1
    while batch <= MAX_BATCH:
        rows.append(at(batch))
        if rows[-1]["outcome"] != "measured" or rows[-1]["latency_ms_p50"] > 10_000:
            break
        if statistics.is_flat([row["images_per_s"] for row in rows]):
            break
        batch *= 2
    return rows


def _attempt(
    architecture: Architecture, settings: Settings, seconds: float
) -> dict[str, Any] | Failed:
    """The measured fields of a row, or why there are none. Nothing of a failed attempt is kept:
    the exception, and with it every tensor of its frames, is gone when this returns."""
    try:
        runner = runner_for(architecture, settings)
        return _measured(runner, reference(settings), seconds)
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        if is_out_of_memory(error):
            return Failed("out_of_memory", reason)
        reason = f"{type(error).__name__}: {reason}"
        if is_lost(torch.device(settings.device)):
            raise DeviceLost(reason) from error
        return Failed("compile_failed" if settings.mode in COMPILED else "failed", reason)


def _measured(runner: Passes, reference: Passes | None, seconds: float) -> dict[str, Any]:
    sensors, least_s = Sensors(runner.device), least_warm_up_s(runner.device)
    runners, warm = [runner] if reference is None else [runner, reference], True
    for each in runners:
        warm = warm_up(each.latency_ms, seconds / 4, least_s) and warm
    clock, temperature = sensors.clock_mhz(), sensors.temperature_c()
    rounds = alternate([each.latency_ms for each in runners], seconds)
    after = {
        "clock_mhz_before": clock,
        "clock_mhz_after": sensors.clock_mhz(),
        "temperature_c_before": temperature,
        "temperature_c_after": sensors.temperature_c(),
        "sustained_images_per_s": _sustained(runner, seconds),
        **_power(runner, sensors),
    }
    if reference is not None:
        medians = rounds.medians[1]
        half = len(medians) // 2
        for part in (medians[:half], medians[half:]):
            history[runner.settings].append(middle(part))
        after["reference_drift"] = statistics.drift(history[runner.settings])
    return {
        **summary(rounds, runner.settings.batch),
        **after,
        "warm": warm,
        "expand": runner.expand,
        "buffers": runner.buffers,
        "peak_memory_bytes": runner.peak_memory_bytes,
        "largest_difference": runner.largest_difference,
        "runtime_version": runner.runtime_version,
    }


def _sustained(runner: Passes, seconds: float) -> float:
    """Images a second of the network alone, run without a pause."""
    passes, took = runner.run_for(min(_SUSTAINED_S, seconds / 2))
    return passes * runner.settings.batch / took


def _power(runner: Passes, sensors: Sensors) -> dict[str, float]:
    """Power and energy of the network alone, run without a pause.

    The counter moves every 20 to 100 ms: what is taken is from one change of it to another.
    """
    changes = _Changes(sensors.energy_mj())
    if changes.last is None:
        return {}
    runner.run_for(_ENERGY_S, lambda passes: changes.note(sensors.energy_mj(), passes))
    if len(changes.seen) < 2:
        return {}
    (start, first, before), (end, last, after) = changes.seen[0], changes.seen[-1]
    used_mj = after - before
    return {
        "power_w": used_mj / (end - start) / 1e3,
        "energy_mj_per_image": used_mj / ((last - first) * runner.settings.batch),
    }


class _Changes:
    """When a counter moved: the moment (s), the passes made by then, and its reading."""

    def __init__(self, reading: float | None) -> None:
        self.last = reading
        self.seen: list[tuple[float, int, float]] = []

    def note(self, reading: float | None, passes: int) -> None:
        if reading is not None and reading != self.last:
            self.seen.append((time.perf_counter(), passes, reading))
            self.last = reading


def _roof(device: torch.device, dtype: str, folder: Path | None) -> Roof | None:
    """The roof, which takes some GB to measure; None if they are not there, whatever is let go."""
    for let_go in (False, True):
        if let_go:
            forget_references()
        try:
            return Roofs(folder).of(device, dtype)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
    return None


def beside_roof(row: Throughput, architecture: Architecture, folder: Path | None) -> Throughput:
    """A measurement with its share of the roofline, where there is one.

    Args:
        row: of `timed`.
        architecture: what was measured.
        folder: where the roofline's two numbers are kept.
    """
    if row.latency_ms_p50 is None:
        return row
    if row.runtime != "torch":  # the roofline is torch's
        return replace(row, macs=cost(architecture, row.input_size).macs)
    device = torch.device(row.device)
    with torch.inference_mode(), on_device(device):
        roof = _roof(device, row.dtype, folder)
    if roof is None:
        return row
    least = floor(architecture, row.input_size, row.batch, roof)
    latency_s = row.latency_ms_p50 / 1e3
    return replace(
        row,
        macs=least.macs,
        bytes=least.bytes,
        matrix_macs_per_s=roof.macs_per_s,
        copy_bytes_per_s=roof.bytes_per_s,
        floor_ms=least.seconds * 1e3,
        roofline_share=least.seconds / latency_s,
        bound=least.bound(latency_s),
    )
