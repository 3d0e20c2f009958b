"""What a trial of a grid costs: our sweep against bare Optuna with its GridSampler, in one run.

    python benchmarks/sweep.py [--trials 20000] [--bare 1000]

Both store the same study (parameters, two objectives, a row of attributes) in a journal file. Ours
counts `--trials` architectures of which nothing is measured, end to end: space, costs, study and
tables. Bare `study.optimize` re-reads all trials for each new one, and 20,000 would take it hours:
it runs `--bare` trials, with an objective that returns two numbers. One core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import torch

import sqzexplore as sqz
from sqzexplore import provenance
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep

SPEC = """
name: grid
space:
  squeeze_ratio: {min: 0.05, max: 1.0, step: 0.05}
  fraction_3x3: {min: 0.05, max: 1.0, step: 0.05}
  fires: [7, 8, 9, 10, 11]
  base_expand: {min: 64, max: %d, step: 1}
"""


class Clock:
    """When how many trials had ended."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []

    def start(self, trials: int, units: float, done_units: float) -> None:
        self.marks.append((0, time.perf_counter()))

    def advance(self, units: float, what: str) -> None: ...

    def trial(self, row: Mapping[str, Any], number: int, trials: int) -> None:
        self.marks.append((number, time.perf_counter()))


def ms_a_trial(marks: list[tuple[int, float]], first: int, last: int) -> float:
    times = dict(marks)
    return 1e3 * (times[last] - times[first]) / (last - first)


def ours(trials: int) -> None:
    spec = parse_spec(SPEC % (64 + trials // 2000 - 1))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run_sweep(spec, Path(folder), torch.device("cpu"), clock)
        took = time.perf_counter() - started
        rows = len(sqz.load_results(folder))
    print(
        f"ours: {rows:,} architectures in {took:.1f} s, tables written; "
        f"{ms_a_trial(clock.marks, 0, 1000):.2f} ms a trial over the first 1,000, "
        f"{ms_a_trial(clock.marks, rows - 1000, rows):.2f} over the last"
    )


def bare(trials: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = parse_spec(SPEC % 73).design_space
    grid = {axis.field: list(axis.values) for axis in space.axes}
    marks: list[tuple[int, float]] = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        drawn = [trial.suggest_categorical(name, values) for name, values in grid.items()]
        trial.set_user_attr("row", {"number": trial.number})
        return float(sum(drawn)), 0.0

    with tempfile.TemporaryDirectory() as folder:
        backend = optuna.storages.journal.JournalFileBackend(f"{folder}/study.journal")
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            sampler=optuna.samplers.GridSampler(grid, seed=0),
            directions=["minimize", "minimize"],
        )
        marks.append((0, time.perf_counter()))
        for done in range(100, trials + 1, 100):
            study.optimize(objective, n_trials=100)
            marks.append((done, time.perf_counter()))
    print(
        f"study.optimize with GridSampler: {ms_a_trial(marks, 0, 100):.1f} ms a trial over the "
        f"first 100, {ms_a_trial(marks, trials - 100, trials):.1f} over the last 100 of {trials:,}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20_000, help="a multiple of 2,000")
    parser.add_argument("--bare", type=int, default=1000, help="a multiple of 100")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{provenance.device_name('cpu')}, one core, Optuna {optuna.__version__}, journal file")
    ours(asked.trials)
    bare(asked.bare)


if __name__ == "__main__":
    main()
