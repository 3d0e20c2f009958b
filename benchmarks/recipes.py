"""Why the recipe is what it is: its rivals on the same architectures, budgets and seeds.

    python benchmarks/recipes.py [--data fashion] [--budgets 64:8,64:24] [--methods adamw]

A budget is a batch and a number of epochs. Of the default's batch, at equal time:

    python benchmarks/recipes.py --methods default --budgets 32:18,64:24,128:28,256:31

Every training is a row of the table; the same command goes on where it stopped. Each has one
thread, as many at once as there are cores. Rivals share what is not theirs: images and their
order, the initial weights, warm-up, linear decay and clipping of the default (but `paper`).
The accuracy is the validation split's after the last epoch: nothing is chosen on the test split. A
network that diverged counts with the accuracy of chance, one that died with its own, and both are
counted. `--report` shows the table that there is.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table
from scipy import stats

import sqzexplore as sqz
from sqzexplore import provenance
from sqzexplore.data.images import ImageData, load
from sqzexplore.data.open import open_data
from sqzexplore.executors.processes import usable_cores
from sqzexplore.files import write_atomically
from sqzexplore.train.loop import fit
from sqzexplore.train.recipe import METHODS, Recipe

#: A map of 2x2 pixels is the smallest; no weight is dead.
SMALL = {"stem_kernel": 3, "stem_stride": 2, "stem_padding": 1}
ARCHITECTURES = {
    "SR 0.125": {},
    "SR 1.0": {"squeeze_ratio": 1.0},
    "16 Fires": {"fires": 16, "expand_increment": 64},
}
IMAGE_SIZE = 32
DEFAULT = METHODS["default"]
NESTEROV = replace(
    DEFAULT, optimizer="sgd", betas=(0.9, 0.0), nesterov=True, weight_decay=5e-4, rate_batch=None
)
RIVALS = {
    "adamw": {
        f"AdamW {rate:g}, decay {decay:g}": replace(DEFAULT, rate=rate, weight_decay=decay)
        for rate, decay in itertools.product((0.001, 0.003, 0.005, 0.01), (0.0, 0.05))
    },
    "sgd": {f"SGD {rate:g}": replace(NESTEROV, rate=rate) for rate in (0.02, 0.05, 0.1, 0.2)},
    "paper": {"paper": METHODS["paper"]},
    "default": {"default": DEFAULT},
}
KEYS = ["recipe", "architecture", "width", "batch_norm", "batch_size", "epochs", "seed"]


def trainings(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every training that is asked for, by its keys; the first seed of all comes first."""
    methods = [name for kind in asked.methods.split(",") for name in RIVALS[kind]]
    budgets = [tuple(map(int, text.split(":"))) for text in asked.budgets.split(",")]
    for seed, (batch, epochs) in itertools.product(range(asked.seeds), budgets):
        for method, name, width, norm in itertools.product(
            methods, ARCHITECTURES, (0.125, 0.25), (False, True)
        ):
            yield dict(zip(KEYS, (method, name, width, norm, batch, epochs, seed), strict=True))


@lru_cache(maxsize=1)
def images(name: str) -> ImageData:
    return load(open_data(name), IMAGE_SIZE)


def train(keys: dict[str, Any], data_name: str) -> dict[str, Any]:
    """One training, in a process of its own."""
    torch.set_num_threads(1)
    data = images(data_name)
    METHODS["rival"] = next(
        kind[keys["recipe"]] for kind in RIVALS.values() if keys["recipe"] in kind
    )
    architecture = sqz.Architecture(
        **SMALL,
        **ARCHITECTURES[keys["architecture"]],
        width_multiplier=keys["width"],
        batch_norm=keys["batch_norm"],
        in_channels=data.channels,
        num_classes=len(data.classes),
    )
    recipe = Recipe(recipe="rival", epochs=keys["epochs"], batch_size=keys["batch_size"])
    _, run = fit(architecture, data, recipe, keys["seed"])
    origin = provenance.of_sweep("cpu")
    return keys | {
        "val_top1": 100 / len(data.classes) if run.diverged else run.val_top1,
        "diverged": run.diverged,
        "dead": run.dead,
        "duration_s": round(run.duration_s, 2),
        "data": data.name,
        "data_sha256": data.sha256,
        "device_name": origin["device_name"],
        "cpu_capability": origin["cpu_capability"],
        "torch_version": torch.__version__,
        "git_commit": origin["git_commit"],
    }


def interval(values: np.ndarray) -> str:
    """Mean and 95% t-interval."""
    if len(values) < 2:
        return f"{values.mean():.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.1f} ±{half:.1f}"


def report(rows: pd.DataFrame, console: Console) -> None:
    """A table a budget: validation top-1 of each recipe on each network, and how many died."""
    for (epochs, batch, norm), part in rows.groupby(["epochs", "batch_size", "batch_norm"]):
        title = (
            f"{epochs} epochs, batch {batch}{', BatchNorm' if norm else ''}: validation top-1, %"
        )
        table = Table(title=f"{title}, mean and 95% t-interval over seeds", title_justify="left")
        table.add_column("recipe")
        networks = list(part.groupby(["architecture", "width"]).groups)
        for name, width in networks:
            table.add_column(f"{name}\nwidth {width:g}", justify="right")
        table.add_column("mean", justify="right")
        table.add_column("dead", justify="right")
        table.add_column("s each", justify="right")
        for recipe, own in part.groupby("recipe"):
            cells = []
            for name, width in networks:
                mine = own[(own["architecture"] == name) & (own["width"] == width)]["val_top1"]
                cells.append(interval(mine.to_numpy()) if len(mine) else "")
            died = int((own["dead"] | own["diverged"]).sum())
            mean = own.groupby(["architecture", "width"])["val_top1"].mean().mean()
            cells += [f"{mean:.2f}", f"{died} of {len(own)}", f"{own['duration_s'].mean():.0f}"]
            table.add_row(recipe, *cells)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion")
    parser.add_argument("--budgets", default="64:8,64:24", help="batch:epochs, with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="adamw,sgd,paper")
    parser.add_argument("--report", action="store_true", help="only show the table that there is")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/recipes.csv"))
    asked = parser.parse_args()
    rows = pd.read_csv(asked.out).to_dict("records") if asked.out.exists() else []
    done = {tuple(row[key] for key in KEYS) for row in rows}
    left = [keys for keys in trainings(asked) if tuple(keys.values()) not in done]
    if not asked.report:
        context = multiprocessing.get_context("spawn")
        bar = Progress(*Progress.get_default_columns(), TimeRemainingColumn(),
                       disable=not sys.stderr.isatty())  # fmt: skip
        with bar, ProcessPoolExecutor(len(usable_cores()), context) as pool:
            task = bar.add_task("training", total=len(left))
            for future in as_completed([pool.submit(train, keys, asked.data) for keys in left]):
                rows.append(future.result())
                table = pd.DataFrame(rows).sort_values(KEYS)
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(asked.out, table.to_csv(index=False).encode())
                bar.advance(task)
    report(pd.DataFrame(rows), Console(width=None if sys.stdout.isatty() else 180))


if __name__ == "__main__":
    main()
