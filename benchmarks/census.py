"""How long a census of 10**8 architectures takes, and how much memory; and the Pareto front alone.

    python benchmarks/census.py [--points 10000000]

One run, one core: `census` as its own process on a space of 10**8 architectures (filter, best ten,
front of three costs, density, Parquet file), with its peak resident memory; then the front of
`--points` random rows in three objectives, checked against brute force on some of them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sqzexplore import provenance
from sqzexplore.analysis.front import nondominated

SPACE = """\
name: hundred_million
space:
  squeeze_ratio: {min: 0.025, max: 1.0, step: 0.025}
  fraction_3x3: {min: 0.05, max: 1.0, step: 0.05}
  base_expand: {min: 16, max: 256, step: 16}
  expand_increment: {min: 0, max: 225, step: 25}
  pool_after: {subsets_of: [1, 2, 3, 4, 5, 6, 7, 8, 9], size: 3}
  increment_every: [1, 2, 4]
  bypass: [none, simple, complex]
search: {objectives: {params: minimize, macs: minimize, activations: maximize}}
"""
COUNT = 40 * 20 * 16 * 10 * 84 * 3 * 3


def census(folder: Path) -> None:
    (folder / "space.yaml").write_text(SPACE)
    out = folder / "rows.parquet"
    command = [sys.executable, "-m", "sqzexplore", "census", str(folder / "space.yaml")]
    command += ["--where", "params < 5e5 and macs < 2e8", "--out", str(out)]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(*done.stdout.splitlines()[:2], sep="\n")
    print(
        f"census of {COUNT:,} architectures: {seconds:.0f} s, {COUNT / seconds / 1e6:.2f} M/s, "
        f"{peak:.0f} MiB resident at most, file of {out.stat().st_size / 1e6:.1f} MB"
    )


def front(points: int) -> None:
    rows = np.random.default_rng(0).normal(size=(points, 3))
    started = time.perf_counter()
    keep = nondominated(rows)
    seconds = time.perf_counter() - started
    best = rows[keep]
    some = rows[:: max(1, points // 20_000)]
    better = [(((best <= row).all(axis=1)) & (best < row).any(axis=1)).any() for row in some]
    agrees = (~np.array(better) == keep[:: max(1, points // 20_000)]).all()
    print(
        f"front of {points:,} rows in 3 objectives: {seconds:.1f} s, {keep.sum()} rows, "
        f"{'agrees' if agrees else 'DISAGREES'} with brute force on {len(some):,} of them"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000_000)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"{provenance.device_name('cpu')}, 1 core, commit {provenance.git_commit()}")
    with tempfile.TemporaryDirectory() as folder:
        census(Path(folder))
    front(options.points)


if __name__ == "__main__":
    main()
