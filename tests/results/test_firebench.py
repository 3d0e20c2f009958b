"""FireBench asked, instead of a training: against the tables of the sweep."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sqzexplore as sqz
from helpers import ROOT
from helpers.sweeps import run
from sqzexplore.errors import UserError
from sqzexplore.network.columns import architecture_at
from sqzexplore.network.frames import columns_of_frame
from sqzexplore.results import firebench as module
from sqzexplore.spec.load import load_spec

SPEC = """\
name: bench
base: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3], batch_norm: true}
input_size: 32
space: {squeeze_ratio: [0.25, 0.5, 1.0], bypass: [none, simple]}
search: {sampler: random, trials: 3, stratify: macs}
measure:
  accuracy: {data: digits, image_size: 16, epochs: 3, batch_size: 32, seeds: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("firebench") / "bench"
    run(SPEC, place)
    return place


def test_latencies_stand_beside_the_accuracies(folder: Path, small_reference: None) -> None:
    assert not any("latency_ms_p50_low" in name for name in sqz.firebench(folder))
    own = sqz.firebench(folder)[["squeeze_ratio", "bypass"]].to_dict("records")
    listed = [*own, {"squeeze_ratio": 0.125}]  # and another
    timed = re.sub("space: .*\nsearch: .*", f"space: {listed}", SPEC).partition("  accuracy")[0]
    timed += "  throughput: {processes: 1, batch: [1, 2], runtime: [torch, onnxruntime],"
    timed += " seconds: 0.02}\n"
    beside = folder.with_name(f"{folder.name}_latency")
    run(timed, beside)
    table, rows = sqz.firebench(folder), sqz.load_results(beside, "throughput")
    shutil.rmtree(beside)
    assert len(table) == table["net_id"].nunique() == 3
    for _, network in table.iterrows():
        own = rows[(rows["net_id"] == network["net_id"]) & (rows["batch"] == 1)]
        for _, row in own.iterrows():
            for name in ("latency_ms_p50", "latency_ms_p50_low", "latency_ms_p50_high"):
                assert network[f"{row['runtime']}_{name}"] == row[name]
        assert len(own) == 2


def test_the_networks_whose_latency_is_measured_are_firebenchs() -> None:
    spec = load_spec(ROOT / "sweeps" / "firebench_latency.yaml").design_space
    listed = [spec.architecture(index).arch_id for index in spec.indices()]
    assert listed == sqz.load_results(ROOT / "results" / "firebench")["arch_id"].tolist()


def test_a_row_a_network_and_what_was_found_of_it(folder: Path) -> None:
    table = sqz.firebench(folder)
    assert len(table) == table["net_id"].nunique() == 3
    assert table["top1"].notna().all()
    columns = columns_of_frame(table)
    runs, history = (sqz.load_results(folder, name) for name in ("seeds", "history"))
    for place, row in table.iterrows():
        arch = architecture_at(columns, place)
        assert arch.net_id == row["net_id"]
        found = sqz.query(arch, folder=folder)
        assert (found["epoch"], found["epochs"], found["seeds"]) == (3, 3, 2)
        assert found["top1"] == pytest.approx(row["top1"])
        assert found["val_top1"] == pytest.approx(row["val_top1"])
        spent = runs[runs["trial"] == row["trial"]]["duration_s"]
        assert found["duration_s"] == pytest.approx(spent.mean())
        own = runs[(runs["trial"] == row["trial"]) & (runs["seed"] == 1)].iloc[0]
        one = sqz.query(arch, seed=1, folder=folder)
        assert one["top1"] == own["top1"]
        assert one["duration_s"] == own["duration_s"]
        early = sqz.query(arch, epoch=1, folder=folder)
        curve = history[(history["trial"] == row["trial"]) & (history["epoch"] == 1)]
        assert early["val_top1"] == pytest.approx(curve["val_top1"].mean())
        assert early["top1"] is None


def test_what_it_does_not_know_is_one_message(folder: Path, tmp_path: Path) -> None:
    table = sqz.firebench(folder)
    arch = architecture_at(columns_of_frame(table), 0)
    for options, said in (
        ({"seed": 7}, r"found seed 7, expected one of \[0, 1\]"),
        ({"epoch": 4}, "found epoch 4, expected 1 to 3"),
        ({"epoch": 0}, "found epoch 0, expected 1 to 3"),
    ):
        with pytest.raises(UserError, match=said):
            sqz.query(arch, folder=folder, **options)
    other = arch.replace(base_expand=arch.base_expand + 30)
    with pytest.raises(UserError, match=f"found network {other.net_id}, .* the nearest in size is"):
        sqz.query(other, folder=folder)
    with pytest.raises(UserError, match="found no table trials"):
        sqz.firebench(tmp_path)


def test_the_checkouts_own_is_the_default(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (module._FOLDERS[0].parent / "README.md").is_file()
    monkeypatch.setattr(module, "_FOLDERS", (tmp_path / "none", folder))
    assert len(sqz.firebench()) == 3
    monkeypatch.setattr(module, "_FOLDERS", (tmp_path / "none",))
    with pytest.raises(UserError, match="expected a folder of sweeps"):
        sqz.firebench()


def test_the_wheel_has_a_copy(tmp_path: Path) -> None:
    """Unpacked where there is no checkout."""
    hatchling = pytest.importorskip("hatchling.builders.wheel")
    (wheel,) = hatchling.WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    asked = (
        "import sqzexplore as sqz; table = sqz.firebench(); print(sqz.__file__, len(table)); "
        "from sqzexplore.network.columns import architecture_at; "
        "from sqzexplore.network.frames import columns_of_frame; "
        "print(sqz.query(architecture_at(columns_of_frame(table), 0), epoch=1)['epoch'])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    place, count, epoch = done.stdout.split()
    assert place.startswith(str(tmp_path))
    assert (int(count), epoch) == (len(sqz.firebench()), "1")
