"""Networks in 8-bit integers: against the same integers by hand, the processor, and a sweep."""

from __future__ import annotations

import io
import platform
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import numpy_helper

import sqzexplore as sqz
from helpers.sweeps import run
from sqzexplore.errors import UserError
from sqzexplore.evaluation.smaller import holds_all
from sqzexplore.evaluation.tasks import Task
from sqzexplore.network import onnx as network_onnx
from sqzexplore.network.int8 import InRuntime, quantised, saturates
from sqzexplore.results.folder import load_results
from sqzexplore.results.tables import TABLES
from sqzexplore.spec.load import parse_spec

ARCHITECTURE = sqz.Architecture(
    width_multiplier=0.125, fires=3, pool_after=(1, 3), bypass="complex", num_classes=10,
    batch_norm=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def files() -> tuple[torch.nn.Module, torch.Tensor, dict[str, bytes]]:
    torch.manual_seed(0)
    net = sqz.build(ARCHITECTURE)
    images = torch.randn(16, 3, 32, 32)
    net(images)  # so that BatchNorm has seen something
    schemes = ("per_channel", "per_tensor")
    made = quantised(net.eval(), images, schemes)
    return net, images, dict(zip(schemes, made, strict=True))


def test_integers_say_what_their_float_values_say(files):
    net, images, made = files
    with torch.no_grad():
        expected = net(images)
    for content in made.values():
        integers, values = InRuntime(content)(images), InRuntime(content, integers=False)(images)
        largest = expected.abs().max()
        assert (integers - values).abs().max() < 0.03 * largest
        assert 0 < (integers - expected).abs().max() < 0.1 * largest


def test_weights_have_a_scale_a_filter_or_a_layer(files):
    net, _, made = files
    kernels = [m.weight for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    for scheme, content in made.items():
        graph = onnx.load(io.BytesIO(content)).graph
        tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        scales = {}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
                integers = tensors[node.input[0]]
                if integers.dtype == np.int8 and integers.ndim == 4:
                    scales[integers.shape] = tensors[node.input[1]].size
                    most = 64 if saturates() else 127
                    assert most - 1 <= np.abs(integers.astype(int)).max() <= most
        assert set(scales) == {tuple(kernel.shape) for kernel in kernels}
        for shape, count in scales.items():
            assert count == (shape[0] if scheme == "per_channel" else 1)


def test_saturation_is_what_the_processor_says():
    flags = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not flags.exists():
        pytest.skip("needs a Linux on x86-64, which lists what its processor can do")
    assert saturates() == ("vnni" not in flags.read_text())


SWEEP = """\
name: small
base: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3], stem_kernel: 3, batch_norm: true}
space: {squeeze_ratio: [0.25]}
input_size: 32
measure:
  accuracy: {data: digits, image_size: 16, epochs: 4, batch_size: 64, seeds: 2}
  int8: {calibration_images: 20}
"""


def test_a_sweep_quantises_every_network(tmp_path: Path) -> None:
    run(SWEEP, tmp_path / "a")
    rows = load_results(tmp_path / "a", "int8")
    assert list(pd.read_csv(tmp_path / "a" / "int8.csv")) == list(TABLES["int8"])
    assert [*zip(rows["seed"], rows["scheme"], strict=True)] == [
        (seed, scheme) for seed in (0, 1) for scheme in ("per_channel", "per_tensor")
    ]
    seeds = load_results(tmp_path / "a", "seeds")
    merged = rows.merge(seeds[["trial", "seed", "top1"]], on=["trial", "seed"])
    assert (merged["int8_drop"] - (merged["top1"] - merged["int8_top1"])).abs().max() < 1e-9
    assert (merged["int8_drop"].abs() < 15).all()
    assert ((rows["lost"] - rows["gained"]) / 4.5 - rows["int8_drop"]).abs().max() < 1e-9
    assert (rows["agreement"] > 80).all()
    assert (rows["reduce_range"] == saturates()).all()
    row, first = load_results(tmp_path / "a").iloc[0], rows[rows["scheme"] == "per_channel"]
    for name in ("int8_mb", "int8_top1", "int8_val_top1", "int8_drop"):
        assert row[name] == pytest.approx(first[name].mean())
    assert row["int8_drop_ci_low"] < row["int8_drop"] < row["int8_drop_ci_high"]
    # Asked for later: the same trainings, and the same integers.
    run(SWEEP.split("  int8")[0], tmp_path / "b")
    run(SWEEP, tmp_path / "b")
    columns = [name for name in rows if name != "duration_s"]
    pd.testing.assert_frame_equal(load_results(tmp_path / "b", "int8")[columns], rows[columns])


def test_a_kept_training_serves_where_there_are_fewer_images_to_calibrate() -> None:
    """Of digits, which trains on 1,077: the run says how many there were."""
    spec = parse_spec(SWEEP.replace("calibration_images: 20", "calibration_images: 2000"))
    task = Task(0, ARCHITECTURE, "training", 0, spec.measure.accuracy.budgets[-1])
    schemes = [each.scheme for each in spec.quantisations]
    made = [{"scheme": scheme, "calibration_images": 1077, "int8_top1": 90.0} for scheme in schemes]
    run = {"diverged": False, "dead": False, "stopped": False, "compression": [], "int8": made}
    assert holds_all(run, task, spec)
    assert not holds_all(run | {"int8": made[1:]}, task, spec)


def test_a_missing_package_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(network_onnx, "NEEDED", ("onnx", "no_such_runtime"))
    with pytest.raises(UserError, match=r"measure.int8 needs no_such_runtime: pip install"):
        run(SWEEP, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_settings_that_cannot_be():
    alone = SWEEP.split("  accuracy")[0] + "  int8: {}\n"
    with pytest.raises(UserError, match=r"measure\.int8: expected measure\.accuracy beside it"):
        parse_spec(alone)
    with pytest.raises(UserError, match="stands twice"):
        parse_spec(SWEEP.replace("{calib", "{scheme: [per_tensor, per_tensor], calib"))
