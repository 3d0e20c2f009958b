"""Small sweeps, run in this process, and their tables compared."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import torch

from sqzexplore import Architecture
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec
from sqzexplore.spec.models import Spec
from sqzexplore.sweep import trial_tables
from sqzexplore.sweep.run import run_sweep

#: Two architectures, each trained in less than a second, and told from chance by all their seeds.
SMALL = """\
name: small
question: Does the small sweep work?
base: {width_multiplier: 0.25, fires: 3, pool_after: [1, 3]}
input_size: 64
space:
  squeeze_ratio: [0.25, 1.0]
measure:
  throughput: {processes: 1, batch: [1, 2], dtype: [float32], seconds: 0.02}
  accuracy:
    {data: digits, image_size: 32, epochs: 1, batch_size: 32, learning_rate: 0.01, seeds: 2,
     proxy: {width_multiplier: 0.1, bypass: complex}}
"""
#: The same without throughput, which takes longer than a training, and few tests look at.
UNTIMED = re.sub(r"  throughput: .*\n", "", SMALL)
#: What `base` makes of them.
SMALL_BASE = Architecture(width_multiplier=0.25, fires=3, pool_after=(1, 3))
#: Trainings beside each other: six architectures, two seeds.
SPEC = """\
name: beside
base: {{width_multiplier: 0.1, fires: 3, pool_after: [1, 3], bypass: complex}}
space: {{squeeze_ratio: [0.25, 0.5, 1.0], fraction_3x3: [0.5, 1.0]}}
input_size: 32
search: {{sampler: {sampler}}}
measure:
  accuracy: {{data: digits, epochs: 1, batch_size: 32, learning_rate: 0.01, seeds: 2}}
"""
#: What says when and how fast, not what came out.
OF_TIME = ("duration_s", "started_at")


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """All rows of a sweep, in a fixed order."""
    found = {}
    for name in ("trials", "seeds", "history", "images"):
        table = load_results(folder, name)
        keys = [key for key in ("trial", "seed", "epoch", "split") if key in table]
        columns = [column for column in table if column not in OF_TIME]
        found[name] = table[columns].sort_values(keys, ignore_index=True)
    return found


def same(a: Path, b: Path) -> None:
    for name, table in tables(a).items():
        pd.testing.assert_frame_equal(table, tables(b)[name])


SAMPLERS = {"grid": "grid", "random": "random, trials: 4, seed: 1", "qmc": "qmc, trials: 4"}


def spec_of(sampler: str) -> Spec:
    return parse_spec(SPEC.format(sampler=SAMPLERS[sampler]))


class Quiet:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.units = 0.0
        self.rows: list[dict] = []

    def start(self, trials: int, units: float, done_units: float) -> None:
        self.trials, self.total, self.units = trials, units, done_units

    def advance(self, units: float, what: str) -> None:
        self.units += units

    def trial(self, row: dict, number: int, trials: int) -> None:
        self.rows.append(row)


def run(text: str, folder: Path, workers: int = 1) -> tuple[trial_tables.Outcome, Quiet]:
    progress, spec = Quiet(), parse_spec(text)
    return run_sweep(spec, folder, torch.device("cpu"), progress, workers=workers), progress
