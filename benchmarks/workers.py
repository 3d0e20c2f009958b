"""Trainings an hour, by how the machine is used, in one run: quiet, and beside a busy neighbour.

    python benchmarks/workers.py [--device cpu|cuda:0] [--data digits] [--rounds 3] [--neighbour]

The same trials, of one training each, are swept in several ways by turns, into a new folder each
time. On a CPU: one training at a time on all cores, which is what torch does by itself; one on one
core; as many at once as there are cores, each on one thread, which is the default; twice as many.
On a GPU: one process that packs 1, 4, 8 trainings, and several processes. `--neighbour`: each
way also beside one busy process of another session of the same machine. What is timed is from the
end of the first trials, one a slot, to the last: the start of the processes, which does not grow
with a sweep, is not in it. A row is written after each sweep; run again, what is there is kept.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from sqzexplore import provenance
from sqzexplore.executors.processes import usable_cores
from sqzexplore.files import write_atomically
from sqzexplore.measure.devices import resolve_device
from sqzexplore.spec.load import parse_spec
from sqzexplore.spec.models import Spec
from sqzexplore.sweep.run import run_sweep

SPEC = """
name: workers
base: {{width_multiplier: {width}, stem_kernel: 3, stem_stride: 2, stem_padding: 1}}
space:
  squeeze_ratio: [0.125, 0.25, 0.5, 0.75]
  bypass: [none, simple]
  fraction_3x3: [0.25, 0.5, 0.75, 1.0]
input_size: 32
search: {{sampler: random, trials: {trials}, retries: 0}}
measure:
  accuracy: {{data: "{data}", epochs: {epochs}, seeds: 1, batch_size: {batch}, threads: {threads}}}
"""


@dataclass(frozen=True)
class Way:
    """How the machine is used: processes, threads of each training, trainings by turns in each."""

    name: str
    workers: int
    threads: int = 1
    pack: int = 1

    @property
    def slots(self) -> int:
        """Trainings at once."""
        return self.workers * self.pack


def ways(device: str) -> list[Way]:
    """The first is the baseline."""
    if device != "cpu":
        packed = [Way(f"1 process, {n} packed", 1, 1, n) for n in (1, 4, 8, 16)]
        return [*packed, Way("4 processes", 4), Way("2 processes, 4 packed", 2, 1, 4)]
    cores = len(usable_cores())
    return [
        Way(f"1 training, {cores} threads", 1, cores),
        Way("1 training, 1 thread", 1),
        Way(f"{cores} trainings, 1 thread each (default)", cores),
        Way(f"{2 * cores} trainings, 1 thread each", 2 * cores),
    ]


class Ends:
    """When the trials ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def start(self, trials: int, units: float, done_units: float) -> None: ...

    def advance(self, units: float, what: str) -> None: ...

    def trial(self, row: Mapping[str, Any], number: int, trials: int) -> None:
        assert row["state"] in ("complete", "dead"), row
        self.at.append(time.perf_counter())


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """One busy process of another session, meanwhile."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def rate(spec: Spec, device: str, way: Way) -> float:
    """Trials an hour, once every slot has had its first."""
    ends = Ends()
    with tempfile.TemporaryDirectory() as folder:
        place = resolve_device(device)
        run_sweep(spec, Path(folder), place, ends, workers=way.workers, pack=way.pack)
    at = sorted(ends.at)
    return 3600 * (len(at) - way.slots) / (at[-1] - at[way.slots - 1])


def report(rows: pd.DataFrame, console: Console) -> None:
    """Median, least and greatest of each way, against the baseline and against itself, quiet."""
    grouped = rows.groupby(["way", "neighbour"], sort=False)["trials_per_h"]
    table = grouped.agg(["median", "min", "max"]).reset_index()
    first = table["median"].iloc[0]
    quiet = table[~table["neighbour"]].set_index("way")["median"]
    shown = Table(title=f"trials an hour, {rows['device_name'].iloc[0]}")
    for name in ("way", "neighbour", "median", "least to greatest", "x the first", "of its quiet"):
        shown.add_column(name, justify="right")
    for _, row in table.iterrows():
        alone = row["median"] / quiet[row["way"]] if row["way"] in quiet else float("nan")
        shown.add_row(
            row["way"],
            "busy" if row["neighbour"] else "",
            f"{row['median']:,.0f}",
            f"{row['min']:,.0f} to {row['max']:,.0f}",
            f"{row['median'] / first:.2f}",
            f"{alone:.0%}",
        )
    console.print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbour", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/workers.csv"))
    asked = parser.parse_args()
    device = str(resolve_device(asked.device))
    settings = {n: vars(asked)[n] for n in ("data", "trials", "epochs", "batch", "width")}
    origin = provenance.of_sweep(device)
    origin = {n: origin[n] for n in ("device", "device_name", "cpu_capability", "git_commit")}
    rows = pd.read_csv(asked.out).to_dict("records") if asked.out.exists() else []
    console = Console(width=None if sys.stdout.isatty() else 140)
    for turn in range(asked.rounds):
        plan = [(way, busy) for way in ways(device) for busy in {False, asked.neighbour}]
        for way, busy in random.Random(turn).sample(plan, len(plan)):
            key = {"way": way.name, "neighbour": busy, "round": turn} | settings | origin
            if any(all(row[name] == value for name, value in key.items()) for row in rows):
                continue
            spec = parse_spec(SPEC.format(**settings, threads=way.threads))
            with neighbour(busy):
                found = rate(spec, device, way)
            rows.append(key | {"cores": len(usable_cores()), "trials_per_h": round(found, 1)})
            order = {way.name: number for number, way in enumerate(ways(device))}
            rows.sort(key=lambda row: (order.get(row["way"], 99), row["neighbour"], row["round"]))
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(asked.out, pd.DataFrame(rows).to_csv(index=False).encode())
            console.print(
                f"round {turn + 1}: {way.name}{', beside a neighbour' * busy}: {found:,.0f}"
            )
    report(pd.DataFrame(rows), console)
    console.print(f"written: {asked.out}")


if __name__ == "__main__":
    main()
