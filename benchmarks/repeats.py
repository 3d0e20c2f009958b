"""The same bench several times in an hour, beside a busy neighbour: do its intervals agree?

    python benchmarks/repeats.py [--times 3] [--every 1500] [--processes 1,5]

Each time squeezenet1_0 is measured at batch 1 and 16, by one process and by five, while another
process of another session keeps a core busy. Writes `results/benchmarks/repeats.csv`: a row a time,
batch and number of processes, with latency and ratio to the reference and their 95% intervals;
results/README.md says how far apart they lie.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import sqzexplore as sqz
from sqzexplore import provenance
from sqzexplore.measure.apart import Processes
from sqzexplore.measure.settings import Settings

OUT = Path(__file__).parents[1] / "results" / "benchmarks" / "repeats.csv"
BATCHES = (1, 16)
COLUMNS = (
    *("processes", "batch", "latency_ms_p50", "latency_ms_p50_low", "latency_ms_p50_high"),
    *("relative_to_reference", "relative_to_reference_low", "relative_to_reference_high"),
    *("process_latency_ms", "precise", "warm", "threads", "measured_at"),
)


@contextmanager
def neighbour() -> Iterator[None]:
    """A busy process in a session of its own, which ends with this one however that ends."""
    work = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
    busy = subprocess.Popen([sys.executable, "-c", work], start_new_session=True)
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def once(number: int, counts: list[int]) -> list[dict[str, Any]]:
    """Every row of one time."""
    rows = []
    for count in counts:
        with closing(Processes(count, torch.get_num_threads())) as processes:
            for batch in BATCHES:
                at = Settings("cpu", batch)
                row = asdict(processes.measure(sqz.preset("squeezenet1_0"), at, 2.0))
                rows.append({"time": number} | {name: row[name] for name in COLUMNS})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--every", type=float, default=1500.0, help="seconds between two times")
    parser.add_argument("--processes", default="1,5")
    asked = parser.parse_args()
    counts = [int(text) for text in asked.processes.split(",")]
    rows: list[dict[str, Any]] = []
    for number in range(1, asked.times + 1):
        started = time.monotonic()
        with neighbour():
            rows += once(number, counts)
        frame = pd.DataFrame(rows).assign(
            network="squeezenet1_0",
            device_name=provenance.device_name("cpu"),
            torch_version=torch.__version__,
            git_commit=provenance.git_commit(),
        )
        frame.to_csv(OUT, index=False)
        print(frame.tail(len(counts) * len(BATCHES)).to_string(), flush=True)
        if number < asked.times:
            time.sleep(max(0.0, asked.every - (time.monotonic() - started)))


if __name__ == "__main__":
    main()
