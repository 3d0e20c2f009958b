"""How much does an audit depend on how the networks are divided into tenths?

    python benchmarks/audits.py [--divisions 20]

Holds out the same networks of FireBench again and again, each time in other tenths, with all that a
fit does: accuracy, and latency in PyTorch. Writes `results/benchmarks/audits.csv`, a row a target
and division; the first is the one of `sqzexplore predict --audit`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from rich.progress import track

from sqzexplore import provenance
from sqzexplore.predict.audit import hold_out
from sqzexplore.predict.trained import load_trained, trained_of
from sqzexplore.predict.verdict import coverage

RESULTS = Path(__file__).parents[1] / "results"
TARGETS = {"firebench": "top1", "firebench_latency": "latency_ms_p50"}
LEVEL = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--divisions", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "audits.csv")
    options = parser.parse_args()
    found = []
    for folder, target in TARGETS.items():
        trained = trained_of(load_trained(RESULTS / folder, target), target)
        for division in track(range(1, options.divisions + 1), target):
            rows = pd.concat(hold_out(trained, LEVEL, division), ignore_index=True)
            whole = coverage(rows).query("region == 'all'").drop(columns="region")
            found.append(whole.assign(target=target, division=division, level=LEVEL))
    table = pd.concat(found).assign(git_commit=provenance.git_commit())
    table = table[["target", "division", *table.columns.drop(["target", "division"])]]
    table.to_csv(options.out, index=False)
    print(table.groupby("target")[["held", "coverage", "width"]].describe().T.to_string())
    print("written:", options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
