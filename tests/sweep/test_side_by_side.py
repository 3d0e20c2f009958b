"""Trainings beside each other: the same numbers in any number of processes, packed, and killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sqzexplore as sqz
from helpers import command_line
from helpers.once import once
from helpers.sweeps import SAMPLERS, SPEC, Quiet, same, spec_of
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.errors import UserError
from sqzexplore.executors.processes import usable_cores
from sqzexplore.measure.roofline import Roofs
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep, workers_for
from sqzexplore.train.loop import Training, fit
from sqzexplore.train.recipe import Recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each sampler's sweep in one process."""

    def make(folder: Path) -> None:
        for sampler in SAMPLERS:
            run_sweep(spec_of(sampler), folder / sampler, CPU, Quiet())

    return once(tmp_path_factory, "alone", make)


@pytest.mark.parametrize(
    ("sampler", "workers"), [("grid", 2), ("grid", 4), ("random", 2), ("qmc", 4)]
)
def test_the_whole_table_in_any_number_of_processes(
    sampler: str, workers: int, alone: Path, tmp_path: Path
) -> None:
    run_sweep(spec_of(sampler), tmp_path / "out", CPU, Quiet(), workers=workers)
    same(tmp_path / "out", alone / sampler)
    assert not (tmp_path / "out" / "partial").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_whole_table_packed(workers: int, alone: Path, tmp_path: Path) -> None:
    """Three trainings by turns in each process."""
    run_sweep(spec_of("grid"), tmp_path / "out", CPU, Quiet(), workers=workers, pack=3)
    same(tmp_path / "out", alone / "grid")


def test_killed_and_resumed_with_other_numbers_of_processes(alone: Path, tmp_path: Path) -> None:
    """SIGKILL at moments between trainings of one architecture; what is done is not done again."""
    spec, folder = tmp_path / "spec.yaml", tmp_path / "out"
    spec.write_text(spec_of("grid").source)
    for workers, wanted in (("2", 2), ("1", 4), ("4", 6)):
        process = command_line.Started(
            "sweep", spec, "--out", folder, "--device", "cpu", "--workers", workers
        )
        deadline = time.monotonic() + 120
        while len(done_in(folder)) < wanted:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline, "it trains nothing"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = done_in(folder)
    run_sweep(spec_of("grid"), folder, CPU, Quiet(), workers=2)
    same(folder, alone / "grid")
    after = done_in(folder)
    assert {key: after[key] for key in before} == before, "a finished training was done again"


def done_in(folder: Path) -> dict[tuple[str, int], float]:
    """Finished trainings with the time that each took, which no second one would repeat."""
    found = {}
    if (folder / "seeds.parquet").exists():
        for row in load_results(folder, "seeds").itertuples():
            found[row.arch_id, row.seed] = row.duration_s
    for file in (folder / "partial").glob("*-seed*.json"):
        try:
            run = json.loads(file.read_text())["run"]
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        found[file.name.partition("-")[0], run["seed"]] = run["duration_s"]
    return found


def test_trainings_by_turns_change_nothing() -> None:
    """Two of other sizes, step by step in turns, against each alone; dropout included."""
    data = load(open_data("digits"), 32)
    nets = [
        sqz.Architecture(width_multiplier=w, fires=3, pool_after=(1, 3), batch_norm=norm).replace(
            in_channels=1, num_classes=10
        )
        for w, norm in ((0.1, False), (0.15, True))
    ]
    recipe = Recipe(epochs=2, batch_size=48)
    expected = [fit(net, data, recipe, 7) for net in nets]
    together = [Training(net, data, recipe, 7) for net in nets]
    running = list(together)
    while running:
        torch.rand(3)  # someone else's random numbers
        running = [training for training in running if training.turn()]
    for training, (net, run) in zip(together, expected, strict=True):
        ours = training.run()
        assert ours.history == run.history
        assert (ours.top1, ours.right) == (run.top1, run.right)
        for name, tensor in net.state_dict().items():
            assert torch.equal(training.net.state_dict()[name], tensor), name


def test_throughput_is_measured_when_no_training_runs(tmp_path: Path) -> None:
    """After all trainings, of every architecture, in a process that has all cores."""
    axes = "[0.25, 0.5, 1.0], fraction_3x3: [0.5, 1.0]"
    text = SPEC.format(sampler="grid").replace(axes, "[0.25, 1.0]")
    text += "  throughput: {processes: 1, batch: [1, 2], seconds: 0.02}\n"
    Roofs(tmp_path).of(CPU, "float32")  # once a process of the tests, not of the sweep
    seen: list[str] = []

    class Order(Quiet):
        def advance(self, units: float, what: str) -> None:
            super().advance(units, what)
            seen.append("throughput" if "throughput" in what else "training" if what else "")

    run_sweep(parse_spec(text), tmp_path, CPU, Order(), workers=2)
    trials, rows = load_results(tmp_path), load_results(tmp_path, "throughput")
    kinds = [kind for kind in seen if kind]
    assert kinds.index("throughput") == kinds.count("training"), "not one training after it"
    assert trials["images_per_s"].notna().all()
    assert trials["train_threads"].tolist() == [1] * 2
    assert rows.groupby("trial").size().tolist() == [2] * 2
    assert set(rows["threads"]) == {torch.get_num_threads()}
    before = trials["images_per_s"].tolist()
    run_sweep(parse_spec(text), tmp_path, CPU, Quiet(), workers=2)
    assert load_results(tmp_path)["images_per_s"].tolist() == before, "it is not measured again"


def test_a_search_that_goes_by_speed_measures_it_in_between(tmp_path: Path) -> None:
    """The objective's value is there when the trial ends."""
    text = SPEC.format(
        sampler="random, trials: 3, objectives: {images_per_s: maximize, top1: maximize}"
    )
    text += "  throughput: {processes: 1, batch: [1], seconds: 0.02}\n"
    Roofs(tmp_path).of(CPU, "float32")  # once a process of the tests, not of the sweep
    ended: list[float] = []

    class Rows(Quiet):
        def trial(self, row: dict, number: int, trials: int) -> None:
            ended.append(row["images_per_s"])

    run_sweep(parse_spec(text), tmp_path, CPU, Rows(), workers=2)
    trials = load_results(tmp_path)
    assert sorted(ended) == sorted(trials["images_per_s"])
    assert len(ended) == 3


@pytest.mark.parametrize(("threads", "trials", "expected"), [(1, 6, 4), (2, 6, 2), (3, 6, 1)])
def test_the_workers_fill_the_machine(
    threads: int, trials: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert len(usable_cores()) == 4
    text = SPEC.format(sampler="grid").replace("seeds: 2", f"seeds: 2, threads: {threads}")
    assert workers_for(parse_spec(text), CPU) == expected
    few = text.replace("[0.25, 0.5, 1.0], fraction_3x3: [0.5, 1.0]", "[0.25]")
    assert workers_for(parse_spec(few.replace("seeds: 2", "seeds: 1")), CPU) == 1
    assert workers_for(parse_spec("name: s\nspace: {squeeze_ratio: [0.5, 1.0]}\n"), CPU) == 1


def test_tf32_is_refused_where_nothing_has_it(tmp_path: Path) -> None:
    text = SPEC.format(sampler="grid").replace("seeds: 2", "seeds: 2, precision: tf32")
    with pytest.raises(UserError, match="precision: found 'tf32', which needs a CUDA device"):
        run_sweep(parse_spec(text), tmp_path / "out", CPU, Quiet())
    assert not (tmp_path / "out").exists()


def test_workers_read_images_while_they_train(tmp_path: Path) -> None:
    """Each with processes of its own that decode, which a daemonic process could not have."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 1, 1, 3))
    for number in range(60):
        noise = np.random.default_rng(number).integers(-20, 20, (24, 24, 3))
        pixels = (colours[number % 3] + noise).clip(0, 255).astype(np.uint8)
        file = tmp_path / "set" / "abc"[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    text = f"""
name: streamed
base: {{width_multiplier: 0.1, fires: 2, pool_after: [1]}}
space: {{squeeze_ratio: [0.25, 1.0]}}
input_size: 16
search: {{trial_timeout: 5min}}
measure:
  accuracy: {{data: {tmp_path / "set"}, image_size: 16, epochs: 1, batch_size: 16, seeds: 1,
             augmentation: crop_flip, threads: 2}}
"""
    run_sweep(parse_spec(text), tmp_path / "out", CPU, Quiet(), workers=2)
    rows = load_results(tmp_path / "out")
    assert set(rows["state"]) <= {"complete", "dead"}, rows["error"].tolist()
    assert rows["train_threads"].tolist() == [2, 2]


@pytest.mark.parametrize("workers", ["none", "0", "-1", "1.5"])
def test_numbers_of_workers_that_are_none(workers: str, tmp_path: Path, small_spec: Path) -> None:
    from typer.testing import CliRunner

    from sqzexplore.cli.app import app

    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["sweep", str(small_spec), "--out", str(out), f"--workers={workers}"]
    )
    assert isinstance(done.exception, UserError)
    assert "--workers: found" in str(done.exception)
    assert "expected auto, or a number from 1 on" in str(done.exception)
    assert not out.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_lost_gpu_is_no_failure_of_the_trial(workers: int, tmp_path: Path) -> None:
    """The error is the process's: another one takes the task, and nothing is recorded."""
    script = tmp_path / "script.py"
    script.write_text(LOST)
    done = command_line.run(tmp_path, workers, program=script)
    assert (tmp_path / "lost").exists(), "the fault did not happen"
    if workers == 1:  # this process has no GPU any more; the next one goes on
        assert "OSError: cpu: RuntimeError: an illegal memory access" in done.stderr
        run_sweep(spec_of("random"), tmp_path / "out", CPU, Quiet())
    else:
        assert done.returncode == 0, done.stderr
    rows = load_results(tmp_path / "out")
    assert rows["state"].tolist() == ["complete"] * 4
    assert sorted(rows["attempts"]) == [1, 1, 1, 1 if workers == 1 else 2]


LOST = """\
import sys
from pathlib import Path
import torch
from sqzexplore.evaluation import bench
from sqzexplore.sweep.run import run_sweep
from helpers.sweeps import spec_of
from helpers.sweeps import Quiet

folder, real = Path(sys.argv[1]), bench.Bench.perform
lost = []

def broken(bench, task, *rest):
    if not (folder / "lost").exists():
        (folder / "lost").touch()
        lost.append(1)
        raise RuntimeError("an illegal memory access was encountered")
    yield from real(bench, task, *rest)

bench.Bench.perform = broken
bench.is_lost = lambda device: bool(lost)
if __name__ == "__main__":
    workers = int(sys.argv[2])
    run_sweep(spec_of("random"), folder / "out", torch.device("cpu"), Quiet(), workers=workers)
"""
