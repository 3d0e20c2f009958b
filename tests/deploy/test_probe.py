"""A probe: run where there is numpy and onnxruntime alone, and taken into the tables."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers import ROOT
from sqzexplore.cli.app import app
from sqzexplore.deploy import board
from sqzexplore.deploy.probe import read_probe
from sqzexplore.errors import UserError
from sqzexplore.measure.statistics import over_processes
from sqzexplore.network.presets import PRESETS
from sqzexplore.results.folder import load_results

SPEC = """\
name: two
base: {width_multiplier: 0.1, num_classes: 10, fires: 3, pool_after: [1, 3]}
space: {squeeze_ratio: [0.25, 0.5]}
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment without torch and without this package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for name in ("numpy", "onnxruntime"):
        found = Path(importlib.import_module(name).__file__ or "").parent
        (packages / name).symlink_to(found)
        if (libraries := found.parent / f"{name}.libs").exists():
            (packages / libraries.name).symlink_to(libraries)
    python = folder / "bin" / "python"
    for module in ("torch", "sqzexplore", "pandas"):
        missing = subprocess.run([python, "-c", f"import {module}"], capture_output=True)
        assert missing.returncode
    return python


@pytest.fixture(scope="module")
def probed(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe's folder, with what the bare environment measured."""
    place = tmp_path_factory.mktemp("probe")
    (place / "two.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:  # v1.1 takes seconds to write
        small = PRESETS["squeezenet1_1"].replace(width_multiplier=0.1, fires=2, pool_after=(1,))
        patch.setitem(PRESETS, "squeezenet1_1", small)
        command = ["probe", str(place / "two.yaml"), "--to", str(place / "to")]
        done = CliRunner().invoke(app, [*command, "--input-size", "40", "--batch", "1,2"])
    assert done.exit_code == 0, done.output
    assert "run python3 probe.py there" in " ".join(done.output.split())
    assert str(ROOT) not in (place / "to" / "probe.py").read_text()
    options = ["--name", "a board", "--processes", "2", "--threads", "1", "--seconds", "0.02"]
    command = [str(bare), str(place / "to" / "probe.py"), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert ran.returncode == 0, ran.stderr
    return place / "to"


def test_what_a_board_measured_stands_in_the_tables(probed: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", probed / "probe.json"
    for _ in range(2):  # again: in the place of what is there
        done = CliRunner().invoke(app, ["bench", "--import", str(file), "--out", str(out)])
        assert done.exit_code == 0, done.output
    rows = load_results(out, "throughput")
    assert len(rows) == 3 * 2 * 2  # two architectures and the reference
    assert set(rows["device_name"]) == {"a board"}
    assert set(zip(rows["dtype"], rows["batch"], strict=True)) == {
        (dtype, batch) for dtype in ("float32", "int8") for batch in (1, 2)
    }
    assert (rows["runtime"] == "onnxruntime").all()
    assert rows["processes"].eq(2).all()
    assert rows["threads"].eq(1).all()
    assert (rows["largest_difference"] < 0.1).all()
    content = json.loads(file.read_text())
    first = [process[0]["latency_ms_p50"] for process in content["processes"]]
    expected = over_processes(first)
    assert rows["latency_ms_p50"][0] == pytest.approx(expected.value)
    assert rows["latency_ms_p50_high"][0] == pytest.approx(expected.high)
    reference = rows[rows["relative_to_reference"] == 1]
    assert reference["arch_id"].nunique() == 1


def test_images_are_the_same_everywhere_and_an_images_own() -> None:
    many = board.images((3, 2, 5, 5))
    assert (many[0] == board.images((1, 2, 5, 5))[0]).all()
    assert np.float32(-2) <= many.min() < many.max() < np.float32(2)
    assert many.std() > 1
    index = 2 * 50 + 7  # by hand, of integers
    assert many.ravel()[index] == ((index * 2654435761) % 2**16) / 2**14 - 2


def test_a_changed_file_is_not_measured(probed: Path, bare: Path, tmp_path: Path) -> None:
    for each in probed.iterdir():
        if each.name != "probe.json":
            (tmp_path / each.name).write_bytes(each.read_bytes())
    file = next(tmp_path.glob("*.onnx"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    command = [str(bare), str(tmp_path / "probe.py"), "--processes", "1", "--seconds", "0.01"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert f"{file.name}: the checksum differs" in ran.stderr
    assert not (tmp_path / "probe.json").exists()


def test_outputs_that_differ_are_not_timed(probed: Path, bare: Path, tmp_path: Path) -> None:
    for each in probed.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    (tmp_path / "probe.json").unlink()
    models = json.loads((tmp_path / "models.json").read_text())
    models["models"][0]["expected"][0] += 100
    (tmp_path / "models.json").write_text(json.dumps(models))
    command = [str(bare), str(tmp_path / "probe.py"), "--processes", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "outputs differ from PyTorch's by" in ran.stderr
    assert not (tmp_path / "probe.json").exists()


def test_what_cannot_be_imported_or_written_is_one_message(probed: Path, tmp_path: Path) -> None:
    whole = json.loads((probed / "probe.json").read_text())
    for content, said in (
        ("no json", "expected the probe.json that a probe wrote"),
        (json.dumps([1]), "expected the probe.json"),
        (json.dumps(whole | {"format": 7}), "found format 7, expected 1"),
        (json.dumps(whole | {"processes": []}), "is not whole"),
        (json.dumps({k: v for k, v in whole.items() if k != "threads"}), "is not whole"),
    ):
        (tmp_path / "probe.json").write_text(content)
        with pytest.raises(UserError, match=said):
            read_probe(tmp_path / "probe.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_probe(tmp_path / "nowhere.json")
    for options, said in (
        (["--to", str(tmp_path)], "found other files"),
        (["--to", str(tmp_path / "new"), "--dtype", "bfloat16"], "expected float32 or int8"),
        (["--to", str(tmp_path / "new"), "--batch", "0"], "expected integers >= 1"),
    ):
        refused = CliRunner().invoke(app, ["probe", *options])
        assert said in str(refused.exception)
    assert not (tmp_path / "new").exists()
