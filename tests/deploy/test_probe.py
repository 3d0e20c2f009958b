"""A probe: run where there is numpy and onnxruntime alone, and taken into the tables."""

from __future__ import annotations

import ast
import hashlib
import importlib
import itertools
import json
import math
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
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
    ratios = [process[0]["relative_to_reference"] for process in content["processes"]]
    assert rows["relative_to_reference"][0] == pytest.approx(math.sqrt(math.prod(ratios)))
    origin = json.loads((out / "provenance.json").read_text())["boards"]
    assert list(origin) == ["a board"]
    assert origin["a board"]["onnxruntime"] == onnxruntime.__version__
    assert origin["a board"]["processor"]
    command = ["bench", str(probed.parent / "two.yaml"), "--out", str(out), "--device", "cpu"]
    command += ["--seconds", "0.02", "--input-size", "40", "--processes", "1", "--batch", "1"]
    done = CliRunner().invoke(app, command)  # beside it, what this machine measures
    assert done.exit_code == 0, done.output
    assert len(load_results(out, "throughput")) == len(rows) + 2
    assert json.loads((out / "provenance.json").read_text())["boards"] == origin


def test_images_are_the_same_everywhere_and_an_images_own() -> None:
    many = board.images((3, 2, 5, 5))
    assert (many[0] == board.images((1, 2, 5, 5))[0]).all()
    assert np.float32(-2) <= many.min() < many.max() < np.float32(2)
    assert many.std() > 1
    index = 2 * 50 + 7  # by hand, of integers
    assert many.ravel()[index] == ((index * 2654435761) % 2**16) / 2**14 - 2


def copied(probed: Path, to: Path) -> Path:
    """The script of a probe's folder that nobody has run."""
    for each in probed.iterdir():
        if each.name != "probe.json":
            (to / each.name).write_bytes(each.read_bytes())
    return to / "probe.py"


def run_script(python: Path, script: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), str(script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={})


def test_a_changed_file_is_not_measured(probed: Path, bare: Path, tmp_path: Path) -> None:
    script = copied(probed, tmp_path)
    file = sorted(tmp_path.glob("*.onnx"))[-1]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"\x00")
    ran = run_script(bare, script)
    assert ran.returncode == 1
    assert ran.stderr == f"{file.name}: the checksum differs; copy the folder again\n"
    content = json.loads((tmp_path / "models.json").read_text())
    for model in content["models"]:  # what onnxruntime cannot read, rightly copied
        if model["file"] == file.name:
            model["sha256"] = hashlib.sha256(b"no graph").hexdigest()
    (tmp_path / "models.json").write_text(json.dumps(content))
    file.write_bytes(b"no graph")
    said = run_script(bare, script).stderr
    assert said.startswith(f"{file.name}: onnxruntime {onnxruntime.__version__} cannot run it (")
    assert said.count("\n") == 1
    file.unlink()
    assert run_script(bare, script).stderr == f"{file.name}: is missing; copy the folder again\n"
    assert not (tmp_path / "probe.json").exists()


def test_outputs_that_differ_are_not_timed(probed: Path, bare: Path, tmp_path: Path) -> None:
    script = copied(probed, tmp_path)
    models = json.loads((tmp_path / "models.json").read_text())
    models["models"][-1]["expected"][0] += (
        100  # the last: all are compared before the first is timed
    )
    (tmp_path / "models.json").write_text(json.dumps(models))
    ran = run_script(bare, script)
    assert ran.returncode == 1
    assert "outputs differ from what they should be by" in ran.stderr
    assert "process 1" not in ran.stdout
    assert not (tmp_path / "probe.json").exists()


def test_a_board_that_cannot_measure_says_why(probed: Path, bare: Path, tmp_path: Path) -> None:
    script = copied(probed, tmp_path)
    ran = run_script(bare, script, "--processes", "0")
    assert ran.returncode == 2
    assert "--processes: found 0, expected a number > 0" in ran.stderr
    code = "import sys, runpy; sys.modules['onnxruntime'] = None; sys.argv = ['probe.py']\n"
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    ran = subprocess.run([bare, "-c", code], capture_output=True, text=True, check=False, env={})
    assert ran.returncode == 1
    assert ran.stderr.endswith(": python3 -m pip install numpy onnxruntime\n")
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "probe.json").exists()


def test_the_script_is_of_an_old_python() -> None:
    source = Path(board.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        )
        if name
    }
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime"}


def test_rounds_hold_a_block_of_each_and_the_ratio_of_each_round() -> None:
    """By hand: a clock that steps as the passes say."""

    class Stepping(board.Model):
        def __init__(self, latencies: list[float]) -> None:
            self.difference, self._buffers, self._passes = 0.0, [None] * 2, 1
            self._latencies = itertools.cycle(latencies)

        def timed(self) -> float:
            return next(self._latencies)

        def warm_up(self) -> None:
            pass

    own, reference = Stepping([10, 20, 40, 10, 20, 40]), Stepping([30, 30, 30, 60, 60, 60])
    row = board.measured(own, reference, {"file": "a.onnx"}, 0.0)
    assert row["rounds"] == row["repetitions"] == 6
    assert row["latency_ms_p50"] == 20
    assert row["reference_latency_ms_p50"] == 45
    assert row["relative_to_reference"] == (1.5 + 3) / 2  # 3, 1.5, 0.75, 6, 3, 1.5
    alone = board.measured(own, own, {"file": "a.onnx"}, 0.0)
    assert alone["relative_to_reference"] == 1


def changed(whole: dict[str, Any], **values: Any) -> str:
    """A probe.json with other values in one measurement."""
    content = json.loads(json.dumps(whole))
    content["processes"][0][0] |= values
    return json.dumps(content)


def test_what_cannot_be_imported_or_written_is_one_message(probed: Path, tmp_path: Path) -> None:
    whole = json.loads((probed / "probe.json").read_text())
    for content, said in (
        ("no json", "expected the probe.json that a probe wrote"),
        (json.dumps([1]), "expected the probe.json"),
        (json.dumps(whole | {"format": 7}), "found format 7, expected 1"),
        (json.dumps(whole | {"processes": []}), "is not whole"),
        (json.dumps({k: v for k, v in whole.items() if k != "threads"}), "is not whole"),
        (changed(whole, latency_ms_p50=0), "latency_ms_p50: found 0, expected finite numbers > 0"),
        (changed(whole, relative_to_reference=math.nan), "relative_to_reference: found nan"),
        (changed(whole, file="another.onnx"), "has not measured every file"),
    ):
        (tmp_path / "probe.json").write_text(content)
        with pytest.raises(UserError, match=said):
            read_probe(tmp_path / "probe.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_probe(tmp_path / "nowhere.json")
    precious = tmp_path / "precious"
    precious.mkdir()
    copied(probed, precious)
    (precious / "thesis.txt").write_text("all of it")
    for options, said in (
        (["--to", str(tmp_path)], "found a folder that holds precious"),
        (["--to", str(precious)], "found a folder that holds thesis.txt"),
        (["--to", str(probed)], "found a folder that holds probe.json"),
        (["--to", str(tmp_path / "new"), "--dtype", "bfloat16"], "expected float32 or int8"),
        (["--to", str(tmp_path / "new"), "--batch", "0"], "expected integers >= 1"),
    ):
        refused = CliRunner().invoke(app, ["probe", *options])
        assert said in str(refused.exception)
    assert not (tmp_path / "new").exists()
    assert (precious / "thesis.txt").read_text() == "all of it"
    assert json.loads((probed / "probe.json").read_text()) == whole
