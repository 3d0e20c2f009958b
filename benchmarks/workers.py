"""Trials an hour with several workers at once on one device, in one run.

    python benchmarks/workers.py [--device cpu|cuda:0] [--workers 1,2,4,8] [--data digits]

The same trials, of one training each, are swept with each number of workers by turns, `--rounds`
times, into a new folder each time. What is timed is from the first end of a trial to the last: the
start of the processes, which does not grow with a sweep, is not in it. On a CPU each worker has
its share of the cores; on a GPU they share it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from sqzexplore import provenance
from sqzexplore.files import write_atomically
from sqzexplore.spec import Spec
from sqzexplore.study import run_sweep
from sqzexplore.throughput import resolve_device

SPEC = """
name: workers
base: {{width_multiplier: {width}}}
space:
  squeeze_ratio: [0.125, 0.25, 0.5, 0.75]
  bypass: [none, simple]
  fraction_3x3: [0.25, 0.5, 0.75, 1.0]
search: {{sampler: random, trials: {trials}, retries: 0}}
measure:
  accuracy: {{data: "{data}", epochs: {epochs}, seeds: 1, proxy: {{pool_after: [1, 3, 5]}}}}
"""


class Ends:
    """When the trials ended."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.data = ""

    def start(self, trials: int, units: float, done_units: float) -> None: ...

    def advance(self, units: float, what: str) -> None: ...

    def trial(self, row: Mapping[str, Any], number: int, trials: int) -> None:
        assert row["state"] == "complete", row
        self.at.append(time.perf_counter())
        self.data = row["data"]


def rate(spec: Spec, device: str, workers: int) -> tuple[float, str]:
    """Trials an hour, and the name of their data."""
    ends = Ends()
    with tempfile.TemporaryDirectory() as folder:
        run_sweep(spec, Path(folder), resolve_device(device), ends, workers=workers)
    return 3600 * (len(ends.at) - 1) / (ends.at[-1] - ends.at[0]), ends.data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/workers.csv"))
    asked = parser.parse_args()
    device = str(resolve_device(asked.device))
    counts = [int(count) for count in asked.workers.split(",")]
    settings = {name: vars(asked)[name] for name in ("width", "trials", "epochs", "rounds")}
    spec = Spec.parse(SPEC.format(data=asked.data, **settings))
    rows = []
    console = Console()
    for turn in range(asked.rounds):
        for workers in random.Random(turn).sample(counts, len(counts)):
            trials_per_h, data = rate(spec, device, workers)
            rows.append({"workers": workers, "trials_per_h": trials_per_h})
            console.print(f"round {turn + 1}: {workers} workers, {rows[-1]['trials_per_h']:,.0f}")
    measured = pd.DataFrame(rows)
    grouped = measured.groupby("workers")["trials_per_h"]
    table = grouped.agg(trials_per_h="median", least="min", greatest="max").reset_index()
    table["relative_to_one"] = table["trials_per_h"] / table["trials_per_h"].iloc[0]
    origin = {"device": device, "device_name": provenance.device_name(device)}
    origin |= {"data": data, "cores": provenance.of_sweep(device)["threads"]}
    origin |= {"sqzexplore_version": provenance.version(), "git_commit": provenance.git_commit()}
    table = table.assign(**settings, **origin)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(asked.out, table.to_csv(index=False).encode())
    shown = Table(title=f"trials an hour, {device} ({origin['device_name']})")
    for name in ("workers", "trials an hour", "least", "greatest", "x one worker"):
        shown.add_column(name, justify="right")
    for _, row in table.iterrows():
        numbers = (row["trials_per_h"], row["least"], row["greatest"])
        shown.add_row(
            str(row["workers"]), *(f"{n:,.0f}" for n in numbers), f"{row['relative_to_one']:.2f}"
        )
    console.print(shown)
    console.print(f"written: {asked.out}")


if __name__ == "__main__":
    main()
