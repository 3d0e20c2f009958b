"""A simulated truth: networks drawn from a space, with an accuracy that is known in law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sqzexplore.network.columns import architecture_at, take_rows
from sqzexplore.network.frames import columns_of_frame, frame_of_columns
from sqzexplore.results.folder import ResultFolder
from sqzexplore.results.tables import TRIALS
from sqzexplore.space.space import Space
from sqzexplore.spec.load import parse_spec

SPEC = """\
name: truth
base: {stem_kernel: 3, stem_width: 64, num_classes: 10}
space:
  squeeze_ratio: [0.0625, 0.125, 0.25, 0.5, 0.75, 1.0]
  fraction_3x3: [0.0, 0.25, 0.5, 0.75, 1.0]
  base_expand: [32, 64, 96, 128, 160]
  expand_increment: [0, 32, 64, 128]
  increment_every: [1, 2, 4]
  fires: [4, 6, 8]
  pool_after: {subsets_of: [1, 2, 3, 4, 5, 6, 7, 8, 9], size: [1, 2, 3]}
  bypass: [none, simple, complex]
  batch_norm: [true, false]
input_size: 32
"""
#: What was measured of them, to their folder's knowledge.
MEASURED = "measure: {accuracy: {data: digits, image_size: 32, epochs: 1}}\n"


def space() -> Space:
    """The space that is drawn from, at 32 pixels a side."""
    return parse_spec(SPEC).design_space


def drawn(rows: int, seed: int) -> pd.DataFrame:
    """Architectures drawn at random as a table of fields and costs."""
    own = space()
    columns = own.sample(4 * rows, seed)
    costs, keep = own.costs(columns, 4 * rows)
    some = np.flatnonzero(keep)[:rows]
    assert len(some) == rows
    frame = frame_of_columns(take_rows(columns, some), rows)
    return frame.assign(**{name: values[some] for name, values in costs.items()})


def accuracy(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The mean accuracy of architectures, %: smooth in their costs and where they pool."""
    capacity = np.log10(frame["params"].to_numpy(float)) - 5.0
    work = np.log10(frame["macs"].to_numpy(float)) - 7.0
    squeeze = np.log2(frame["squeeze_ratio"].to_numpy(float))
    norm = frame["batch_norm"].to_numpy(bool)
    share = 0.25 * capacity + 0.6 * work + 0.12 * squeeze + 0.5 * norm
    share += 0.5 * frame["fraction_3x3"].to_numpy(float) - 0.15 * (capacity - 0.5) ** 2
    return 100 / (1 + np.exp(-0.8 - share))


def noise(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The standard deviation over seeds, points: four times as large without BatchNorm."""
    return np.where(frame["batch_norm"].to_numpy(bool), 0.7, 2.8)


def dead_share(frame: pd.DataFrame) -> NDArray[np.float64]:
    """How often a training dies: never with BatchNorm, often where squeezes are narrow."""
    narrow = frame["squeeze_ratio"].to_numpy(float) < 0.2
    return np.where(frame["batch_norm"].to_numpy(bool), 0.0, np.where(narrow, 0.35, 0.05))


def trained(rows: int, seed: int, noisy: float = 1.0, dying: bool = True) -> pd.DataFrame:
    """Trials of such networks: one training each, some dead."""
    generator = np.random.default_rng([seed, 1])
    frame = drawn(rows, seed)
    top1 = accuracy(frame) + noisy * noise(frame) * generator.standard_normal(rows)
    dead = generator.random(rows) < dead_share(frame) * dying
    return frame.assign(
        sweep="truth",
        trial=np.arange(rows),
        state=np.where(dead, "dead", "complete"),
        top1=np.where(dead, np.nan, np.clip(top1, 1, 99)),
        seeds=1,
        dead_seeds=dead.astype(int),
        diverged_seeds=0,
        input_size=32,
        train_input_size=32,
        proxy="none",
        sampler="random",
    )


def write_folder(folder: Path, trials: pd.DataFrame, sampler: str = "random") -> Path:
    """Trials as the folder of a sweep holds them."""
    columns = columns_of_frame(trials)
    named = [architecture_at(columns, row) for row in range(len(trials))]
    trials = trials.assign(
        arch_id=[a.arch_id for a in named], net_id=[a.net_id for a in named], data="made", epochs=1
    )
    folder.mkdir()
    rows = trials[[name for name in trials if name in TRIALS]].to_dict("records")
    ResultFolder(folder).write({"trials": rows})
    aims = "objectives: {params: minimize, macs: minimize}"  # no figures but those of an audit
    searched = f"search: {{sampler: {sampler}, trials: {len(trials)}, {aims}}}\n"
    (folder / "spec.yaml").write_text(SPEC + searched + MEASURED)
    return folder
