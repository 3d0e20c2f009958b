"""`bench --out`: a table that grows by the measurement, and is not measured twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import sqzexplore as sqz
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.measure import apart, reference, runner
from sqzexplore.measure.devices import DeviceLost
from sqzexplore.measure.settings import Settings
from sqzexplore.measure.throughput import Throughput, blank
from sqzexplore.results.folder import load_results

CPU = torch.device("cpu")
SPEC = """
name: two
base: {width_multiplier: 0.1}
space: {squeeze_ratio: [0.25, 0.5]}
"""
OPTIONS = ("--device", "cpu", "--seconds", "0.02", "--input-size", "40", "--processes", "1")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(autouse=True)
def no_reference_is_kept() -> Iterator[None]:
    yield
    reference.references.clear()
    reference.history.clear()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Settings]]:
    """What was measured, in order; the numbers are made up."""
    calls: list[tuple[str, Settings]] = []

    def measure(
        architecture: sqz.Architecture, at: Settings, seconds: float, folder: Path | None
    ) -> Throughput:
        calls.append((architecture.arch_id, at))
        numbers = {"images_per_s": 1e3 * at.batch, "latency_ms_p50": 1.0, "latency_ms_p99": 1.0}
        return Throughput(**(blank(at).__dict__ | numbers))

    monkeypatch.setattr(apart, "measure", measure)
    return calls


def invoke(spec: Path, folder: Path, *options: str):
    return CliRunner().invoke(app, ["bench", str(spec), *OPTIONS, "--out", str(folder), *options])


def table(folder: Path) -> pd.DataFrame:
    return load_results(folder, "throughput")


def test_every_architecture_at_one_combination_before_the_next(
    spec: Path, tmp_path: Path, measured: list
) -> None:
    done = invoke(spec, tmp_path / "out", "--batch", "1,2", "--form", "module,inference")
    assert done.exit_code == 0
    forms = [at.form for _, at in measured]
    assert forms == ["module"] * 4 + ["inference"] * 4
    assert len({arch_id for arch_id, _ in measured[:4]}) == 2


def test_what_is_there_is_not_measured_again(spec: Path, tmp_path: Path, measured: list) -> None:
    folder = tmp_path / "out"
    invoke(spec, folder, "--batch", "1")
    before = table(folder)
    assert len(measured) == len(before) == 2
    done = invoke(spec, folder, "--batch", "1,2")
    assert [at.batch for _, at in measured] == [1, 1, 2, 2]
    assert "4 measurements, 2 were there already" in done.output
    after = table(folder)
    assert after["batch"].tolist() == [1, 1, 2, 2]
    pd.testing.assert_frame_equal(after.head(2), before)
    assert set(after["git_commit"]) == {before["git_commit"].iloc[0]}
    invoke(spec, folder, "--batch", "1,2", "--json")
    assert len(measured) == 4


@pytest.mark.parametrize(
    "other", [{"threads": 7}, {"device_name": "another"}, {"dtype": "bfloat16"}]
)
def test_another_machine_or_setting_is_another_measurement(
    other: dict, spec: Path, tmp_path: Path, measured: list
) -> None:
    folder = tmp_path / "out"
    invoke(spec, folder, "--batch", "1")
    table(folder).assign(**other).to_parquet(folder / "throughput.parquet", index=False)
    invoke(spec, folder, "--batch", "1")
    assert len(measured) == len(table(folder)) == 4


def test_an_interrupt_keeps_what_was_measured(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really measured: the third of four is interrupted, and only what is missing is measured."""
    folder, real, asked = tmp_path / "out", apart.measure, []

    def once(architecture: sqz.Architecture, at: Settings, *rest: object) -> Throughput:
        asked.append(at.batch)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(architecture, at, *rest)

    monkeypatch.setattr(apart, "measure", once)
    done = invoke(spec, folder, "--batch", "1,2")
    assert done.exit_code == 130
    assert "run the same command again to resume" in done.output
    first = table(folder)
    assert first["batch"].tolist() == [1, 2]
    assert invoke(spec, folder, "--batch", "1,2").exit_code == 0
    rows = table(folder)
    assert len(asked) == 5
    assert rows.groupby("arch_id")["batch"].apply(list).tolist() == [[1, 2], [1, 2]]
    pd.testing.assert_frame_equal(rows.head(2), first)
    assert (folder / "figures" / "roofline.pdf").exists()


def test_a_lost_gpu_ends_the_run_and_the_next_goes_on(
    spec: Path, tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fine = tmp_path / "out", apart.measure

    def lost(architecture: sqz.Architecture, at: Settings, *rest: object) -> Throughput:
        if len(measured) == 1:
            measured.append(("lost", at))
            raise DeviceLost("AcceleratorError: an illegal memory access")
        return fine(architecture, at, *rest)

    monkeypatch.setattr(apart, "measure", lost)
    done = invoke(spec, folder, "--batch", "1,2")
    assert done.exit_code == 1
    assert "lost the GPU (AcceleratorError: an illegal memory access)" in done.output
    assert table(folder)["outcome"].tolist() == ["measured", "failed"]
    done = invoke(spec, folder, "--batch", "1,2")
    assert done.exit_code == 0
    assert "batch 2, float32, module, eager: failed: AcceleratorError" in done.output
    assert table(folder)["outcome"].tolist() == ["measured", "failed", "measured", "measured"]


def test_a_sweeps_folder_is_not_written_over(spec: Path, tmp_path: Path, measured: list) -> None:
    (tmp_path / "trials.parquet").touch()
    done = invoke(spec, tmp_path, "--batch", "1")
    assert isinstance(done.exception, UserError)
    assert "found a sweep's folder" in str(done.exception)
    assert not measured


def test_the_reference_of_a_combination_is_made_once(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Settings] = []
    real = runner.Runner.__init__

    def init(self: runner.Runner, a: sqz.Architecture, at: Settings) -> None:
        if a == sqz.preset("squeezenet1_1"):
            made.append(at)
        real(self, a, at)

    monkeypatch.setattr(runner.Runner, "__init__", init)
    options = ("--batch", "1,2", "--memory-format", "channels_last,contiguous")
    done = CliRunner().invoke(app, ["bench", str(spec), *OPTIONS, *options])
    assert done.exit_code == 0, done.output
    assert len(made) == len(set(made)) == 4
