"""Networks in other runtimes: what they compute, what is refused, and a bench of them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import command_line
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.measure import runtimes
from sqzexplore.measure.runner import built
from sqzexplore.measure.runtimes import Disagrees, RuntimeRunner, check_runtimes
from sqzexplore.measure.settings import RUNTIME_DTYPES, Settings
from sqzexplore.measure.throughput import measure
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.reuse import fingerprint

TINY = sqz.Architecture(width_multiplier=0.1, num_classes=10, fires=3, pool_after=(1, 3))
pytestmark = pytest.mark.usefixtures("small_reference")
HERE = ["onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
CPU = torch.device("cpu")


@pytest.mark.parametrize("runtime", HERE)
def test_a_runtime_computes_what_pytorch_does(runtime: str) -> None:
    for dtype in RUNTIME_DTYPES[runtime]:
        at = Settings("cpu", 3, dtype, 40, "contiguous", runtime=runtime)
        try:
            row = measure(TINY, at, seconds=0.02)
        except UserError as error:  # pragma: no cover
            raise AssertionError(dtype) from error
        if dtype == "bfloat16" and row.outcome == "failed":  # not on every processor
            # OpenVINO has no word for an instruction set that is there and may not be used.
            limited = "ONEDNN_MAX_CPU_ISA" in os.environ
            assert limited or "computes bfloat16 as" in str(row.reason)
            continue
        assert row.outcome == "measured", row.reason
        assert 0 <= row.largest_difference < {"float32": 1e-3}.get(dtype, 0.1)
        assert row.runtime_version.startswith(runtime)
        assert row.relative_to_reference > 0
        assert row.roofline_share is None
        assert row.macs is None or row.macs > 0


SIGNALLED = """\
import faulthandler, os, signal, sys, threading
import sqzexplore as sqz
from sqzexplore.measure.runtimes import RuntimeRunner
from sqzexplore.measure.settings import Settings

faulthandler.enable()  # signals are handled in memory of their own
tiny = sqz.Architecture(width_multiplier=0.1, num_classes=10, fires=3, pool_after=(1, 3))
at = Settings("cpu", 1, "float32", 40, "contiguous", runtime="openvino")
networks = [RuntimeRunner(tiny, at)]
last = threading.Thread(target=networks.clear)
last.start()
last.join()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif("openvino" not in HERE, reason="needs openvino")
def test_a_signal_after_a_thread_has_let_go_of_a_network(tmp_path: Path) -> None:
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    done = command_line.run(program=tmp_path / "signalled.py")
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_runtime_that_disagrees_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    real, timed = runtimes._onnxruntime, []

    def wrong(content: bytes, shape: tuple[int, ...], dtype: str):
        run = real(content, shape, dtype)
        return lambda images: run(images) * np.float32(1.01)

    monkeypatch.setattr(runtimes, "_onnxruntime", wrong)
    monkeypatch.setattr(RuntimeRunner, "latency_ms", lambda self: timed.append(1) or 1.0)
    at = Settings("cpu", 2, "float32", 40, "contiguous", runtime="onnxruntime")
    with pytest.raises(Disagrees, match=r"outputs differ by 0\.01 of the largest"):
        RuntimeRunner(TINY, at)
    row = measure(TINY, at, seconds=0.02)
    assert (row.outcome, row.images_per_s) == ("failed", None)
    assert "Disagrees: onnxruntime, float32: outputs differ" in row.reason
    assert not timed


def test_a_network_that_lets_nothing_through_is_timed() -> None:
    """Its random weights give 0 for every image, in each runtime: no difference, not 0 / 0."""
    images = torch.randn(2, 3, 32, 32)
    narrow = (TINY.replace(squeeze_ratio=0.001, fires=fires) for fires in range(3, 30))
    with torch.inference_mode():
        silent = next(each for each in narrow if not built(each).eval()(images).any())
    at = Settings("cpu", 2, "float32", 32, "contiguous", runtime="onnxruntime")
    assert RuntimeRunner(silent, at).largest_difference == 0.0


def test_what_a_runtime_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for runtimes_, dtypes, device, said in (
        (["torch", "onnxruntime"], ["bfloat16"], CPU, "one that onnxruntime has: float32, int8"),
        (["torch"], ["float32", "int8"], CPU, "found 'int8', which no runtime of torch has"),
        (["onnxruntime"], ["float32"], torch.device("cuda", 0), "expected torch on cuda:0"),
    ):
        with pytest.raises(UserError, match=said):
            check_runtimes(runtimes_, dtypes, device, "--")
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--runtime: onnxruntime needs onnx: pip install"):
        check_runtimes(["onnxruntime"], ["float32"], CPU, "--")


def test_combinations_are_those_that_a_runtime_has() -> None:
    spec = parse_spec(
        "name: s\nspace: {squeeze_ratio: [0.5]}\nmeasure: {throughput: {dtype: [float32, int8, "
        "bfloat16], form: [module, inference], runtime: [torch, onnxruntime, openvino]}}\n"
    )
    found = [(at.runtime, at.dtype, at.form) for at in spec.measure.throughput.settings("cpu", 64)]
    assert found == [
        *(("torch", dtype, form) for dtype in ("float32", "bfloat16") for form in
          ("module", "inference")),
        *(("onnxruntime", dtype, "module") for dtype in ("float32", "int8")),
        *(("openvino", dtype, "module") for dtype in ("float32", "int8", "bfloat16")),
    ]  # fmt: skip


def test_what_was_measured_before_there_were_runtimes_is_the_same() -> None:
    text = "name: s\nspace: {squeeze_ratio: [0.5]}\nmeasure: {throughput: {batch: [1]EXTRA}}\n"
    plain, named, other = (
        fingerprint(parse_spec(text.replace("EXTRA", extra)), None)
        for extra in ("", ", runtime: [torch]", ", runtime: [torch, onnxruntime]")
    )
    assert plain == named != other
    # As version 0.1.0 wrote it before there were runtimes and processes.
    assert plain == "4e4a695e5b6e048bca1b0bbde8e2f34587855f9578e312df15cca8244e3d8e65"


def test_a_bench_of_runtimes(tmp_path: Path) -> None:
    spec = tmp_path / "two.yaml"
    spec.write_text(
        "name: two\nbase: {width_multiplier: 0.1, num_classes: 10, fires: 3, pool_after: [1, 3]}\n"
        "space: {squeeze_ratio: [0.25]}\n"
    )
    options = ["--device", "cpu", "--seconds", "0.02", "--input-size", "40", "--processes", "1"]
    options += ["--runtime", "torch,onnxruntime", "--batch", "1,2", "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second finds everything there
        done = CliRunner().invoke(app, ["bench", str(spec), *options])
        assert done.exit_code == 0, done.output
    rows = load_results(tmp_path / "out", "throughput")
    assert rows["runtime"].tolist() == ["torch"] * 2 + ["onnxruntime"] * 2
    assert rows["outcome"].eq("measured").all()
    assert "4 were there already" in done.output
