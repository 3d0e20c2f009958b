"""Which search finds the best network of FireBench, after how many trainings?

    python benchmarks/searches.py [--repetitions 100] [--at 25,50]

Replays every sampler against the trained networks (docs/firebench.md): nothing is trained, the
Gaussian process takes some seconds a search. Writes `results/benchmarks/searches.csv`, a row a
sampler and number of trainings, and the figure `searches` beside it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from rich.progress import track

import sqzexplore as sqz
from sqzexplore import provenance
from sqzexplore.errors import UserError
from sqzexplore.figures.simulated import regret_curves
from sqzexplore.figures.style import STYLE, panels
from sqzexplore.figures.writer import save
from sqzexplore.sweep.simulated import SAMPLERS

OUT = Path(__file__).parents[1] / "results" / "benchmarks" / "searches.csv"


def searched(trainings: int, repetitions: int) -> pd.DataFrame:
    """A row a training of every search; the slowest sampler last."""
    names = sorted(SAMPLERS, key=lambda name: name == "gp")
    return pd.concat(
        [
            sqz.simulate(name, trainings=trainings, repetitions=repetitions)
            for name in track(names, "samplers")
        ],
        ignore_index=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--at", default="25,50", help="numbers of trainings, with commas")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    at = [int(text) for text in options.at.split(",")]
    try:
        searches = searched(max(at), options.repetitions)
        rows = sqz.regret(searches, at)
    except UserError as error:
        print(f"searches.py: {error}", file=sys.stderr)
        return 2
    known = {"networks": len(sqz.firebench()), "git_commit": provenance.git_commit()}
    rows.assign(**known).to_csv(options.out, index=False)
    with mpl.rc_context(STYLE):
        figure, (axes,) = panels()
        regret_curves(searches, axes=axes)
        pictures = save(figure, options.out.with_suffix(""))
    print(rows.to_string(index=False))
    print("written:", *(str(file) for file in (options.out, *pictures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
