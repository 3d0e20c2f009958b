"""Throughput: the statistics against timings with a known answer, the settings, the outcomes."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import json
import math
import re
import sys
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import ROOT
from helpers.strategies import architectures, fits
from sqzexplore import device_errors, nvml, provenance
from sqzexplore.cli.app import app
from sqzexplore.device_errors import is_lost, is_out_of_memory
from sqzexplore.errors import FeatureMapVanishes, UserError
from sqzexplore.evaluation import bench, rows, tasks, trial
from sqzexplore.measure import (
    apart,
    clock,
    devices,
    interleave,
    layers,
    reference,
    roofline,
    runner,
    statistics,
    throughput,
)
from sqzexplore.measure.clock import least_warm_up_s
from sqzexplore.measure.devices import check_choices, resolve_device
from sqzexplore.measure.interleave import Rounds, alternate, summary, warm_up
from sqzexplore.measure.settings import Settings
from sqzexplore.measure.throughput import measure, over_batches
from sqzexplore.results.tables import THROUGHPUT, to_frame
from sqzexplore.spec.load import parse_spec

TINY = sqz.Architecture(width_multiplier=0.1, num_classes=10)
CPU = torch.device("cpu")
SMALL = Settings("cpu", 2, input_size=40)


@pytest.fixture(autouse=True)
def no_reference_is_kept():
    yield
    reference.references.clear()
    reference.history.clear()


# --- statistics --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "rank"),
    # Published ranks of the 95% interval of a median (Conover, Practical Nonparametric Statistics).
    [(6, 1), (8, 1), (9, 2), (10, 2), (12, 3), (15, 4), (20, 6), (25, 8), (30, 10), (50, 18)],
)
def test_the_interval_of_a_median_is_between_the_published_ranks(n: int, rank: int) -> None:
    numbers = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    found = statistics.median(numbers.tolist())
    assert (found.low, found.high) == (rank, n + 1 - rank)
    assert found.value == (n + 1) / 2


@pytest.mark.parametrize("n", range(1, 40))
def test_the_interval_covers_the_median_with_the_exact_probability(n: int) -> None:
    """The largest rank whose coverage, counted over all 2**n outcomes, is at least 95%."""

    def coverage(k: int) -> Fraction:
        return 1 - Fraction(2 * sum(math.comb(n, i) for i in range(k)), 2**n)

    ranks = [k for k in range(1, n // 2 + 1) if coverage(k) >= Fraction(95, 100)]
    found = statistics.median([float(i) for i in range(1, n + 1)])
    if not ranks:
        assert math.isnan(found.low)
        assert n < statistics.LEAST_ROUNDS
    else:
        assert (found.low, found.high) == (max(ranks), n + 1 - max(ranks))


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        found = statistics.median(
            generator.exponential(size=15).tolist()
        )  # skewed, as latencies are
        hits += found.low <= math.log(2) <= found.high
    assert 0.95 <= hits / 2000 < 0.98  # exactly 0.965 for n = 15


def test_a_warm_up_ends_when_the_passes_are_stable() -> None:
    assert not statistics.is_warm([1.0] * 9)
    assert statistics.is_warm([9.0, 5.0] + [1.0] * 10)
    assert not statistics.is_warm([1.0] * 5 + [0.95] * 5)
    assert statistics.is_warm([1.0, 1.0, 50.0, 1.0, 1.0] + [1.01] * 5)
    cooling = iter([64.0, 32.0, 16.0, 8.0, 4.0, 2.0] + [1.0] * 100)
    assert warm_up(lambda: next(cooling), 1e9)
    assert len(list(cooling)) == 106 - 14  # 2.0 may stand in the earlier five: a median ignores it


def test_a_warm_up_gives_up_when_its_time_is_over() -> None:
    growing = itertools.count(1)
    assert not warm_up(lambda: 2.0 ** next(growing), 0.0)
    assert next(growing) == 9  # eight passes at least


def test_a_trend_is_told_from_scatter() -> None:
    """Passes of a busy machine, 3% apart, are no colder for it; a tenth that is lost is a trend."""
    assert statistics.is_level([1.0, 1.03, 0.97, 1.02, 1.04, 0.99, 1.05, 1.01])
    assert statistics.is_level([5.0, 5.0, 5.0, 5.0, 5.09, 5.09, 5.09, 5.09])
    assert not statistics.is_level([1.0] * 4 + [1.03] * 4)
    assert not statistics.is_level([1.35, 1.3, 1.27, 1.22, 1.0, 1.05, 0.95, 1.1])
    assert not statistics.is_level([2.0**-number for number in range(8)])  # whatever its scatter
    noisy = np.random.default_rng(0)
    passes = 300 * np.exp(0.03 * noisy.standard_normal((500, 8)))
    assert sum(warm_up(iter(row).__next__, 0.0) for row in passes) > 480


def test_a_warm_up_lasts_as_long_as_a_clock_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stable after ten passes of 10 ms each; a GPU's clock asks for 0.3 s."""
    now = [0.0]
    monkeypatch.setattr(interleave.time, "perf_counter", lambda: now[0])

    def latency_ms() -> float:
        now[0] += 0.01
        return 10.0

    for least_s, took_s in ((0.0, 0.10), (0.3, 0.30)):
        now[0] = 0.0
        assert warm_up(latency_ms, 0.25, least_s)  # the least is more than the budget
        assert now[0] == pytest.approx(took_s)
    assert least_warm_up_s(torch.device("cuda", 0)) == 0.3
    assert least_warm_up_s(CPU) == 0.0


def test_rounds_change_their_order_and_end_when_the_median_is_known() -> None:
    calls: list[str] = []

    def one(name: str, latency: float) -> float:
        calls.append(name)
        return latency

    made = alternate([lambda: one("a", 10.0), lambda: one("b", 30.0)], 1e9)
    # To size its blocks each ran once; then two passes of 10 ms after one that is not counted.
    rounds_of = "".join(calls[2:])
    assert calls[:2] == ["a", "b"]
    assert re.fullmatch("(aaab|baaa){6}", rounds_of)
    assert len(set(re.findall("....", rounds_of))) == 2
    assert made == Rounds([[10.0] * 12, [30.0] * 6], [[10.0] * 6, [30.0] * 6])
    row = summary(made, batch=4)
    assert row["relative_to_reference"] == 3.0
    assert row["relative_to_reference_low"] == row["relative_to_reference_high"] == 3.0
    assert row["reference_images_per_s"] == pytest.approx(4 / 0.030)
    assert (row["precision"], row["rounds"], row["repetitions"]) == (0.0, 6, 12)

    few = alternate([lambda: 500.0], 0.0)  # the time is over, but an interval needs 6
    assert few == Rounds([[500.0] * 6], [[500.0] * 6])
    row = summary(few, batch=1)
    assert row["precision"] == 0.0
    assert "relative_to_reference" not in row


def test_the_ratio_is_paired_by_round() -> None:
    """A machine that slows down fivefold halfway: absolute times scatter, the ratio does not."""
    slow = np.repeat([1.0, 5.0], 10)
    ours, theirs = (10.0 * slow).tolist(), (20.0 * slow).tolist()
    row = summary(Rounds([ours, theirs], [ours, theirs]), batch=1)
    assert row["relative_to_reference_low"] == row["relative_to_reference_high"] == 2.0
    assert row["precision"] > 0.5
    assert statistics.drift([20.0, 100.0]) == pytest.approx(80 / 60)


def test_percentiles_are_of_the_passes() -> None:
    passes = [1.0] * 199 + [500.0]
    row = summary(Rounds([passes], [[1.0] * 10]), batch=4)
    assert row["latency_ms_p50"] == 1.0
    assert row["latency_ms_p99"] == pytest.approx(np.percentile(passes, 99))
    assert row["latency_ms_sd"] == pytest.approx(np.std(passes, ddof=1))


def test_auto_doubles_the_batch_until_throughput_is_flat() -> None:
    def row(batch: int, speed: float, outcome: str = "measured") -> dict:
        return {
            "batch": batch,
            "outcome": outcome,
            "images_per_s": speed,
            "latency_ms_p50": batch / speed * 1e3,
        }

    # 16 images keep the device busy: 100 images/s at 1, 1600 from 16 on.
    rows = over_batches("auto", lambda batch: row(batch, 100.0 * min(batch, 16)))
    assert [r["batch"] for r in rows] == [1, 2, 4, 8, 16, 32, 64]
    rows = over_batches(
        "auto", lambda b: row(b, 100.0 * b, "measured" if b < 8 else "out_of_memory")
    )
    assert [(r["batch"], r["outcome"]) for r in rows][-1] == (8, "out_of_memory")
    rows = over_batches("auto", lambda batch: row(batch, 0.2 * batch**0.5))
    # 5, 7.1, 10, 14.1 s: the first of more than ten seconds is the last.
    assert [r["batch"] for r in rows] == [1, 2, 4, 8]
    assert [r["batch"] for r in over_batches([4, 1], lambda batch: row(batch, 1.0))] == [4, 1]


# --- measurements ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dtype": "bfloat16"},
        {"form": "inference"},
        {"memory_format": "contiguous", "form": "inference"},
        {"batch": 1, "input_size": 50},
    ],
)
def test_a_measurement_says_what_it_is_of(changes: dict) -> None:
    at = replace(SMALL, **changes)
    row = measure(TINY, at, seconds=0.1)
    for name in asdict(at):
        assert getattr(row, name) == getattr(at, name)
    assert (row.outcome, row.reason) == ("measured", None)
    assert row.images_per_s == pytest.approx(1e3 * at.batch / row.latency_ms_p50)
    assert 0 < row.latency_ms_p50 <= row.latency_ms_p99
    assert row.rounds >= 3
    assert row.repetitions >= row.rounds
    assert row.threads == torch.get_num_threads()
    assert (row.expand is None) == (at.form == "module")
    assert row.macs == sqz.cost(TINY, at.input_size).macs
    assert row.roofline_share == pytest.approx(row.floor_ms / row.latency_ms_p50)
    assert row.bound in ("arithmetic", "memory", "overhead")
    # Speed and its ratio to the reference's are of the same rounds.
    assert row.relative_to_reference > 1  # v1.1 at full width does 90 times the arithmetic
    assert row.reference_drift >= 0
    assert row.sustained_images_per_s > 0
    assert row.peak_memory_bytes is row.clock_mhz_before is row.energy_mj_per_image is None


def test_the_reference_is_built_once_and_its_drift_is_over_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[sqz.Architecture] = []
    real = runner.build
    monkeypatch.setattr(runner, "build", lambda a: built.append(a) or real(a))
    measure(TINY, SMALL, seconds=0.05)
    second = measure(TINY.replace(squeeze_ratio=0.5), SMALL, seconds=0.05)
    assert built.count(sqz.preset("squeezenet1_1")) == 1
    medians = reference.history[SMALL]
    assert len(medians) == 4  # two halves of two measurements
    assert second.reference_drift == statistics.drift(medians)


def test_an_input_too_small_for_the_reference_is_measured_without_it() -> None:
    small = sqz.Architecture(width_multiplier=0.1, stem_kernel=1, stem_stride=1, pool_after=())
    row = measure(small, replace(SMALL, input_size=4), seconds=0.02)
    assert row.outcome == "measured"
    assert row.relative_to_reference is None
    with pytest.raises(FeatureMapVanishes):
        measure(TINY, replace(SMALL, input_size=20))


def test_several_buffers_are_used_by_turns_and_exceed_a_cache() -> None:
    images = runner.images_for(TINY, replace(SMALL, input_size=224, batch=8))
    assert len(images) * images[0].numel() * 4 >= 2**26
    assert not torch.equal(images[0], images[1])
    assert len(runner.images_for(TINY, replace(SMALL, input_size=224, batch=200))) == 2
    made_ready = runner.Runner(TINY, SMALL)
    seen: list[int] = []
    made_ready._passes = [lambda i=i: seen.append(i) for i in range(made_ready.buffers)]
    for _ in range(made_ready.buffers + 1):
        made_ready.latency_ms()
    assert seen == [*range(made_ready.buffers), 0]


def test_passes_without_a_pause_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten passes of 50 ms are half a second, whatever the number of buffers."""
    made_ready = runner.Runner(TINY, SMALL)
    now, made = [0.0], []
    monkeypatch.setattr(runner.time, "perf_counter", lambda: now[0])

    def work(buffer: int) -> None:
        made.append(buffer)
        now[0] += 0.05

    made_ready._passes, made_ready.buffers = [lambda b=b: work(b) for b in range(4)], 4
    blocks: list[int] = []
    passes, took = made_ready.run_for(0.49, blocks.append)
    assert (passes, took) == (10, pytest.approx(0.5))
    assert made == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert blocks == [4, 8]
    assert made_ready.run_for(0.0)[0] == 1
    assert throughput._sustained(made_ready, 10.0) == pytest.approx(SMALL.batch / 0.05)


def test_the_callers_random_state_stays() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    measure(TINY, SMALL, seconds=0.02)
    assert torch.equal(torch.get_rng_state(), before)


def test_compiled_networks_stay_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond dynamo's limit a network would run uncompiled in silence: each is compiled once,
    whole, and the second pass compiles nothing."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        compiled.append(1)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: real(f, backend=backend, **k))
    with torch.inference_mode():
        for number in range(10):
            net = sqz.build(
                TINY.replace(fires=2, pool_after=(), squeeze_ratio=(number + 1) / 10)
            ).eval()
            run = runner.compiled(net)
            images = torch.randn(1, 3, 40, 40)
            torch.testing.assert_close(run(images), net(images))
            run(images)
            assert len(compiled) == number + 1


@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_inference_form_compiles_whole(
    bypass: str, batch_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: real(f, backend="aot_eager", **k))
    architecture = TINY.replace(bypass=bypass, batch_norm=batch_norm)
    at = replace(SMALL, form="inference", mode="compile")
    images = runner.images_for(architecture, at)[0]
    with torch.inference_mode():
        net = runner.built(architecture).eval()
        form = runner.network_for(net, at, images)
        if batch_norm:
            assert form.expand == "concatenated"
        else:
            assert form is net
        logits = runner.compiled(form)(images)
        torch.testing.assert_close(logits, net(images), atol=1e-4, rtol=1e-4)


# --- what can go wrong -------------------------------------------------------------------------


def fail_at(batch: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    real = runner.Runner.__init__

    def init(self: runner.Runner, a: sqz.Architecture, at: Settings) -> None:
        if at.batch >= batch and a != sqz.preset("squeezenet1_1"):
            raise error
        real(self, a, at)

    monkeypatch.setattr(runner.Runner, "__init__", init)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError("no"),
    ],
)
def test_out_of_memory_is_an_outcome(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(4, error, monkeypatch)
    assert measure(TINY, SMALL, seconds=0.02).outcome == "measured"
    row = measure(TINY, replace(SMALL, batch=4), seconds=0.02)
    assert row.outcome == "out_of_memory"
    assert str(error)[:10] in str(row.reason)
    assert row.images_per_s is None
    assert not reference.references  # given up for a second attempt


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", True),
        ("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED", False),
        ("a bug", False),
    ],
)
def test_the_words_of_a_memory_that_is_out(words: str, out: bool) -> None:
    assert is_out_of_memory(RuntimeError(words)) == out
    assert not is_out_of_memory(ValueError(words))


@pytest.mark.parametrize("full", [True, False])
def test_cudnn_says_the_same_of_no_memory_and_of_no_algorithm(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gib if full else 40 * gib, 80 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 30 * gib)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 29 * gib)
    error = RuntimeError("FIND was unable to find an engine to execute this computation")
    assert is_out_of_memory(error) == full


def test_a_roof_that_does_not_fit_costs_only_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def of(self: roofline.Roofs, device: torch.device, dtype: str) -> roofline.Roof:
        tried.append(dtype)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(roofline.Roofs, "of", of)
    row = measure(TINY, SMALL, seconds=0.02)
    assert (row.outcome, row.roofline_share, row.bound) == ("measured", None, None)
    assert row.images_per_s > 0
    assert len(tried) == 2  # again without the reference
    assert not reference.references


def test_a_batch_that_the_machine_cannot_hold_is_not_tried() -> None:
    """Really: 65,536 images of 2,000 pixels a side are 3 TB; nothing of it is allocated."""
    row = measure(TINY, Settings("cpu", 65536, input_size=2000))
    assert row.outcome == "out_of_memory"
    assert "GB are available" in str(row.reason)


def test_the_reference_out_of_memory_costs_only_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    real = runner.Runner.__init__

    def init(self: runner.Runner, a: sqz.Architecture, at: Settings) -> None:
        if a == sqz.preset("squeezenet1_1"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, a, at)

    monkeypatch.setattr(runner.Runner, "__init__", init)
    row = measure(TINY, SMALL, seconds=0.02)
    assert (row.outcome, row.relative_to_reference) == ("measured", None)


def test_a_compiler_that_is_missing_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(graph: torch.fx.GraphModule, inputs: list) -> object:
        raise RuntimeError("No working C++ compiler found")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: real(f, backend=no_compiler, **k))
    row = measure(TINY, replace(SMALL, mode="compile"), seconds=0.02)
    assert row.outcome == "compile_failed"
    assert "No working C++ compiler" in str(row.reason)


def test_another_error_of_torch_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(4, RuntimeError("GET was unable to find an engine"), monkeypatch)
    monkeypatch.setattr(device_errors, "_is_full", lambda: False)
    row = measure(TINY, replace(SMALL, batch=4), seconds=0.02)
    assert (row.outcome, row.images_per_s) == ("failed", None)
    assert row.reason == "RuntimeError: GET was unable to find an engine"


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(1, KeyError("a bug"), monkeypatch)
    with pytest.raises(KeyError, match="a bug"):
        measure(TINY, SMALL)


def test_a_gpu_that_is_lost_is_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every later measurement of this process would fail too."""
    fail_at(1, RuntimeError("CUDA error: unspecified launch failure"), monkeypatch)
    monkeypatch.setattr(throughput, "is_lost", lambda device: True)
    with pytest.raises(devices.DeviceLost, match="launch failure"):
        measure(TINY, SMALL)
    assert not is_lost(CPU)


def test_what_a_cpu_cannot_do_names_the_key() -> None:
    with pytest.raises(UserError, match=r"--mode: found 'cuda_graph', which needs a CUDA device"):
        check_choices(["float32"], ["eager", "cuda_graph"], CPU, "--")
    with pytest.raises(UserError, match=r"throughput.dtype: found 'tf32'.*expected float32, float"):
        check_choices(["tf32"], ["eager"], CPU, "measure.throughput.")
    with pytest.raises(UserError, match=r"'compile_graph', which.*expected eager, compile on cpu"):
        check_choices(["float32"], ["compile_graph"], CPU, "--")
    check_choices(["tf32"], ["cuda_graph", "compile_graph"], torch.device("cuda", 0), "")
    with pytest.raises(UserError, match="mode"):
        measure(TINY, replace(SMALL, mode="cuda_graph"))


def test_devices() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99", "meta", "", "cpu:x"):
        with pytest.raises(UserError, match="--device"):
            resolve_device(name)


def test_tf32_is_on_only_where_it_is_asked_for() -> None:
    backend = torch.backends.cudnn
    before = backend.allow_tf32, backend.benchmark
    for dtype in ("float32", "tf32", "float16"):
        with clock.cudnn_as(replace(SMALL, dtype=dtype)):
            assert backend.allow_tf32 == (dtype == "tf32")
            assert backend.benchmark
        assert (backend.allow_tf32, backend.benchmark) == before


# --- the roofline ------------------------------------------------------------------------------


@hypothesis_settings(max_examples=60, deadline=None)
@given(architectures(max_fires=5))
def test_operations_move_the_tensors_that_the_network_has(architecture: sqz.Architecture) -> None:
    """Against the module itself: every convolution and pool, its inputs, outputs and weights."""
    assume(fits(architecture, 40))
    net = sqz.build(architecture.replace(batch_norm=False)).eval()
    seen: list[tuple[int, int]] = []

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        weights = sum(p.numel() for p in module.parameters())
        seen.append((weights, inputs[0].numel() + output.numel()))

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.randn(1, architecture.in_channels, 40, 40))
    found = list(roofline.operations(architecture, 40))
    assert [(o.weights, o.elements) for o in found if o.name != "add"] == seen
    assert sum(o.macs for o in found) == sqz.cost(architecture, 40).macs
    adds = [stage for stage in architecture.fire_stages() if stage.bypass != "none"]
    assert sum(o.name == "add" for o in found) == len(adds)


def test_the_floor_is_the_longer_of_two_times_and_names_the_bound() -> None:
    roof = roofline.Roof("x", "float16", 1, "", macs_per_s=1e9, bytes_per_s=1e9)
    # 4 images: 4e6 MACs are 4 ms; 2 bytes x (1000 + 4 x 100) elements are 2.8 us.
    computing = roofline.Operation("a", "a", 10**6, 1000, 100)
    # 0.4 us of arithmetic; 2 bytes x 4 x 1e6 elements are 8 ms.
    moving = roofline.Operation("b", "b", 100, 0, 10**6)
    least = roofline.floor_of([computing, moving], 4, roof)
    assert least.arithmetic_s == pytest.approx(4e-3)
    assert least.memory_s == pytest.approx(8e-3)
    assert least.bytes == 2 * (1000 + 400) + 2 * 4 * 10**6
    assert least.bound(0.013) == "memory"
    assert least.bound(0.030) == "overhead"
    assert roofline.floor_of([computing], 4, roof).bound(0.005) == "arithmetic"


def test_a_roof_is_measured_once_and_kept_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline.Roofs, "_measured", {})
    measured: list[str] = []

    def fake(device: torch.device, dtype: str) -> roofline.Roof:
        measured.append(dtype)
        name = roofline.device_name(str(device))
        return roofline.Roof(name, dtype, torch.get_num_threads(), torch.__version__, 2.0, 3.0)

    monkeypatch.setattr(roofline, "measure_roof", fake)
    for folder in (None, tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        assert roofline.Roofs(folder).of(CPU, "float32").macs_per_s == 2.0
    roofline.Roofs(tmp_path / "a").of(CPU, "bfloat16")
    assert measured == ["float32", "bfloat16"]
    roofline.Roofs._measured.clear()  # another process: the folder knows
    assert roofline.Roofs(tmp_path / "a").of(CPU, "float32").bytes_per_s == 3.0
    assert measured == ["float32", "bfloat16"]


def test_a_real_roof_is_plausible() -> None:
    roof = roofline.measure_roof(CPU, "float32")
    assert 1e8 < roof.macs_per_s < 1e14
    assert 1e8 < roof.bytes_per_s < 1e13


# --- sensors -----------------------------------------------------------------------------------


def test_without_a_gpu_there_are_no_sensors() -> None:
    none = nvml.Sensors(CPU)
    assert none.clock_mhz() is none.temperature_c() is none.energy_mj() is None


def test_readings_of_nvml() -> None:
    """A stand-in with NVML's names: a reading that the card refuses is missing."""

    class Refused(Exception):
        pass

    class Fake:
        NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

        def nvmlDeviceGetClockInfo(self, handle: str, which: int) -> int:
            assert (handle, which) == ("handle", 1)
            return 1980

        def nvmlDeviceGetTemperature(self, handle: str, which: int) -> int:
            assert which == 0
            return 41

        def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
            raise Refused

    Fake.NVMLError = Refused
    fake = nvml.Sensors(CPU)
    fake._nvml, fake._handle = Fake(), "handle"
    assert (fake.clock_mhz(), fake.temperature_c(), fake.energy_mj()) == (1980.0, 41.0, None)


def test_energy_is_between_two_changes_of_the_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 W; 8 images a pass, 8 ms; the counter shows what it was at its last step of 100 ms."""
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    class Runner:
        settings = replace(SMALL, batch=8)

        def run_for(self, seconds: float, after_block: Callable[[int], object]) -> None:
            assert seconds >= 2
            for passes in range(1, int(seconds / 0.008)):
                now[0] = passes * 0.008
                after_block(passes)

    class Meter:
        def energy_mj(self) -> float:
            return 1e6 + 200e3 * 0.1 * int((now[0] + 0.033) / 0.1)

    row = throughput._power(Runner(), Meter())
    # 0.5 s would be up to 20% off; from change to change two steps of 8 ms in 1.9 s may be.
    assert row["power_w"] == pytest.approx(200, rel=0.005)
    assert row["energy_mj_per_image"] == pytest.approx(200e3 * 0.008 / 8, rel=0.005)

    class Still:
        def energy_mj(self) -> float:
            return 5.0

    assert throughput._power(Runner(), Still()) == {}
    assert throughput._power(Runner(), nvml.Sensors(CPU)) == {}


# --- a stand-in for CUDA -----------------------------------------------------------------------


@pytest.fixture
def pretended_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs on a CPU: a capture notes nothing, and a replay reads no tensor."""

    class Graph:
        def pool(self) -> tuple[int, int]:
            return (0, 1)

        def replay(self) -> None: ...

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda device=None: None,
        "CUDAGraph": Graph,
        "graph": lambda graph, pool=None: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def test_a_graph_keeps_what_it_reads(pretended_graphs: None) -> None:
    """A graph knows addresses only: freed, another tensor or nothing would stand there."""
    net = sqz.build(TINY).eval()
    images = [torch.randn(1, 3, 40, 40) for _ in range(2)]
    with torch.inference_mode():
        passes = runner.captured(net, images)
    kept = [weakref.ref(net), *map(weakref.ref, images)]
    del net, images
    gc.collect()
    assert all(ref() is not None for ref in kept)
    passes[0]()
    del passes
    gc.collect()
    assert all(ref() is None for ref in kept)


# --- on a GPU ----------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize(("mode", "form"), [("eager", "module"), ("cuda_graph", "inference")])
def test_measurements_on_a_gpu(
    dtype: str, mode: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "_ENERGY_S", 0.1)
    at = Settings("cuda:0", 16, dtype, 64, form=form, mode=mode)
    row = measure(TINY, at, seconds=0.2)
    assert row.outcome == "measured"
    assert row.peak_memory_bytes > 0
    assert row.relative_to_reference > 0
    assert row.sustained_images_per_s > 0


@pytest.mark.gpu
def test_power_on_a_gpu_is_plausible() -> None:
    made_ready = runner.Runner(TINY, Settings("cuda:0", 64, "float16", 64, mode="cuda_graph"))
    with torch.inference_mode():
        row = throughput._power(made_ready, nvml.Sensors(made_ready.device))
    if row:  # there is a counter
        assert 10 < row["power_w"] < 3000
        images_per_s = row["power_w"] * 1e3 / row["energy_mj_per_image"]
        assert images_per_s == pytest.approx(throughput._sustained(made_ready, 1.0), rel=0.3)


@pytest.mark.gpu
def test_a_graph_of_the_compiled_network_computes_what_the_network_does() -> None:
    at = Settings("cuda:0", 4, "float32", 64, mode="compile_graph")
    logits: list[torch.Tensor] = []
    with torch.inference_mode(), clock.cudnn_as(at):
        images = runner.images_for(TINY, at)
        net = runner.network_for(runner.built(TINY), at, images[0])
        run = runner.compiled(net)
        for image in images:
            run(image)
        passes = runner.captured(lambda x: logits.append(run(x)), images)
        for one, out, image in zip(passes, logits[-len(images) :], images, strict=True):
            one()
            torch.cuda.synchronize()
            torch.testing.assert_close(out, net(image), atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
def test_a_graph_outlives_the_names_of_what_it_reads() -> None:
    """Memory that was let go is given back to the driver when the next graph is captured."""
    made_ready = runner.Runner(TINY, Settings("cuda:0", 4, "float32", 64, mode="cuda_graph"))
    with torch.inference_mode():
        runner.Runner(TINY, Settings("cuda:0", 64, "float32", 224, mode="cuda_graph"))
    gc.collect()
    torch.cuda.empty_cache()
    assert made_ready.run_for(0.05)[0] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["eager", "cuda_graph"])
def test_layers_on_a_gpu(mode: str) -> None:
    rows = layers.measure_layers(TINY, Settings("cuda:0", 4, "float32", 64, mode=mode), 0.2)
    assert [row.layer for row in rows] == [layer.name for layer in sqz.cost(TINY, 64).layers]
    assert all(row.latency_ms_p50 > 0 for row in rows)


@pytest.mark.gpu
def test_a_roof_on_a_gpu_is_plausible() -> None:
    roof = roofline.measure_roof(torch.device("cuda:0"), "float16")
    assert 1e11 < roof.macs_per_s < 1e16
    assert 1e10 < roof.bytes_per_s < 1e14


@pytest.mark.gpu
def test_provenance_of_a_gpu() -> None:
    said = provenance.of_sweep("cuda:0")
    assert said["cuda"] == torch.version.cuda
    assert str(said["cudnn"]).isdecimal()
    if (driver := nvml.Sensors(torch.device("cuda:0")).driver()) is not None:
        assert said["gpu_driver"] == driver
        assert 0 < said["gpu_clock_mhz"] <= said["gpu_clock_mhz_max"]


@pytest.mark.gpu
def test_a_captured_graph_computes_what_the_network_does() -> None:
    net = sqz.build(TINY).eval().cuda()
    images = [torch.randn(4, 3, 40, 40, device="cuda") for _ in range(3)]
    logits: list[torch.Tensor] = []
    with torch.inference_mode():
        expected = [net(image) for image in images]
        passes = runner.captured(lambda x: logits.append(net(x)), images)
        kept = logits[-3:]
        for one, out, right in zip(passes, kept, expected, strict=True):
            one()
            torch.cuda.synchronize()
            torch.testing.assert_close(out, right, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
def test_out_of_memory_on_a_gpu() -> None:
    row = measure(TINY, Settings("cuda:0", 65536, input_size=2000))
    assert row.outcome == "out_of_memory"
    assert measure(TINY, Settings("cuda:0", 4, input_size=64), 0.1).outcome == "measured"


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_layers_one_after_the_other_are_the_network(name: str) -> None:
    architecture = sqz.preset(name, batch_norm=True, bypass="complex", width_multiplier=0.25)
    net = sqz.build(architecture).eval()
    images = torch.randn(1, 3, 64, 64)
    names, x = [], images
    with torch.inference_mode():
        for layer, part in layers.layers(net):
            names.append(layer)
            x = part(x)
        assert torch.equal(x.flatten(1), net(images))
    assert names == [layer.name for layer in sqz.cost(architecture, 64).layers]
    rows = layers.measure_layers(architecture, replace(SMALL, input_size=64), 0.05)
    assert [row.layer for row in rows] == names
    assert sum(row.macs for row in rows) == sqz.cost(architecture, 64).macs
    assert all(row.latency_ms_p50 > 0 < row.floor_ms for row in rows)


# --- in a sweep, and in the benchmark ----------------------------------------------------------


def test_a_trial_shows_the_same_settings_whatever_was_measured() -> None:
    """Of the first combination the largest batch, even where that has no value."""
    text = (
        "name: s\nbase: {width_multiplier: 0.1}\nspace: {squeeze_ratio: [0.5]}\n"
        "measure: {throughput: {batch: BATCH, form: [module, inference], input_size: [64, 224]}}\n"
    )

    def measurements(outcome: str) -> list[dict]:
        blank = dict.fromkeys(THROUGHPUT)
        made = []
        for size, form, batch in itertools.product([64, 224], ["module", "inference"], [1, 8]):
            at = {"input_size": size, "form": form, "batch": batch, "outcome": "measured"}
            at |= {"images_per_s": float(size * batch), "reason": None}
            if batch == 8 and form == "module":
                at |= {"outcome": outcome, "reason": "8 GB"}
                at |= {} if outcome == "measured" else {"images_per_s": None}
            made.append(blank | at)
        return made

    asked = parse_spec(text.replace("BATCH", "[1, 8]"))
    shown = rows.of_trial(measurements("measured"), asked)
    assert (shown["batch"], shown["form"], shown["images_per_s"]) == (8, "module", 1792.0)
    assert "state" not in shown
    shown = rows.of_trial(measurements("out_of_memory"), asked)
    assert (shown["batch"], shown["images_per_s"], shown["state"]) == (8, None, "failed")
    assert shown["error"] == "throughput: out_of_memory: 8 GB"
    shown = rows.of_trial(measurements("out_of_memory"), parse_spec(text.replace("BATCH", "auto")))
    assert (shown["batch"], shown["images_per_s"]) == (1, 224.0)


def test_a_sweep_over_modes_goes_out_of_memory_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every combination is a row; what was measured before an interrupt is not measured again."""
    spec = parse_spec(
        "name: s\nbase: {width_multiplier: 0.1, num_classes: 10}\n"
        "space: {squeeze_ratio: [0.5]}\ninput_size: 40\n"
        "search: {sampler: random, trials: 1, objectives: {params: minimize}}\n"
        "measure: {throughput: {processes: 1, batch: [1, 4], form: [module, inference],\n"
        "                       seconds: 0.02,\n"
        "                       input_size: [40, 48]}}\n"
    )
    fail_at(4, torch.OutOfMemoryError("CUDA out of memory"), monkeypatch)
    measured: list[str] = []
    real = apart.measure

    def once(a: sqz.Architecture, at: Settings, *rest: object) -> throughput.Throughput:
        measured.append(str(at))
        if len(measured) == 6:
            raise KeyboardInterrupt
        return real(a, at, *rest)

    monkeypatch.setattr(apart, "measure", once)
    architecture = next(iter(map(spec.design_space.architecture, spec.design_space.indices())))
    task = tasks.Task(0, architecture, "throughput")

    def measured_by_a_new_process() -> tasks.Evaluation:
        at_work = bench.Bench(spec, None, CPU, tmp_path / "partial")
        at_work.add(task)
        return trial.assembled(architecture, spec, None, dict(at_work.turn()))

    with pytest.raises(KeyboardInterrupt):
        measured_by_a_new_process()
    done = measured_by_a_new_process()
    assert len(measured) == 9  # the sixth twice
    assert len(set(measured)) == 8
    keys = [(row["input_size"], row["form"], row["batch"]) for row in done.throughput]
    assert keys == list(itertools.product([40, 48], ["module", "inference"], [1, 4]))
    assert [row["outcome"] for row in done.throughput] == ["measured", "out_of_memory"] * 4
    assert (done.row["state"], done.row["outcome"]) == ("complete", "out_of_memory")
    assert done.row["batch"] == 4
    json.dumps(done.throughput, allow_nan=False)  # what a database takes
    to_frame(done.throughput, THROUGHPUT)


def test_a_sweep_asks_only_what_the_device_can_do(tmp_path: Path) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(
        "name: s\nspace: {squeeze_ratio: [0.5]}\nmeasure: {throughput: {mode: [cuda_graph]}}\n"
    )
    done = CliRunner().invoke(
        app, ["sweep", str(spec), "--device", "cpu", "--out", str(tmp_path / "out")]
    )
    assert isinstance(done.exception, UserError)
    assert "s.yaml: measure.throughput.mode: found 'cuda_graph'" in str(done.exception)
    assert not (tmp_path / "out").exists()


def the_benchmark() -> ModuleType:
    place = importlib.util.spec_from_file_location(
        "throughput_benchmark", ROOT / "benchmarks" / "throughput.py"
    )
    benchmark = importlib.util.module_from_spec(place)
    sys.modules["throughput_benchmark"] = benchmark
    place.loader.exec_module(benchmark)
    return benchmark


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_the_benchmarks_stand_in_is_the_network(name: str) -> None:
    """With our weights, in their order, it gives our logits."""
    benchmark = the_benchmark()
    ours, other = sqz.build(sqz.preset(name)).eval(), benchmark.StandIn(name).eval()
    with torch.no_grad():
        for theirs, mine in zip(other.parameters(), ours.parameters(), strict=True):
            theirs.copy_(mine)
        images = torch.randn(2, 3, 96, 96)
        torch.testing.assert_close(other(images), ours(images), atol=1e-6, rtol=1e-5)


def test_the_benchmark_chooses_in_rounds_that_it_does_not_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The module is lucky in the first rounds: what is said of it is of the later ones."""
    benchmark = the_benchmark()
    at = replace(SMALL, batch=4)
    chosen = [
        benchmark.Variant("peer", at, nn.Identity, defaults=True),
        benchmark.Variant("ours, module", at),
        benchmark.Variant("ours, inference", replace(at, form="inference")),
    ]
    made = SimpleNamespace(expand=None, peak_memory_bytes=None, latency_ms=lambda: 1.0)
    monkeypatch.setattr(benchmark, "prepared", lambda *given: (dict.fromkeys(range(3), made), {}))
    latencies = iter([[10.0, 1.0, 5.0], [10.0, 8.0, 4.0]])
    rates = iter([{0: [1.0], 1: [9.0], 2: [5.0]}, {0: [1.0], 1: [2.0], 2: [4.0]}])

    def alternate(*given: object) -> Rounds:
        medians = [[one] * 6 for one in next(latencies)]
        return Rounds(medians, medians)

    monkeypatch.setattr(benchmark, "alternate", alternate)
    monkeypatch.setattr(benchmark, "sustained", lambda *given: next(rates))
    rows = benchmark.measure("squeezenet1_1", chosen, CPU, 1.0)
    assert [row["fastest"] for row in rows] == [False, True, False]
    assert [row["fastest_sustained"] for row in rows] == [False, True, False]
    assert [row["vs_baseline"] for row in rows] == [1.0, 1.25, 2.5]
    console = Console(record=True, width=200)
    benchmark.report(pd.DataFrame(rows), console)
    said = console.export_text()
    assert "batch 4, alone, as rounds before these chose: 1.25x" in said
    assert "batch 4, sustained, as rounds before these chose: 2.00x" in said


def test_the_benchmark_without_a_gpu_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--device", "cuda"])
    with pytest.raises(SystemExit) as ended:
        the_benchmark().main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no CUDA device" in said
    assert "Traceback" not in said
