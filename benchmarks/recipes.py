"""Why the recipe is what it is: its rivals on the same architectures, seeds and epochs.

    python benchmarks/recipes.py [--data digits] [--epochs 20] [--seeds 3] [--out FILE.csv]

Everything but the optimiser is the default recipe's: warm-up, linear decay, clipping, initial
weights. SGD has Nesterov momentum 0.9 and weight decay 5e-4, at four peak rates; `average` is the
default's exponential moving average of the weights (decay 0.99 a step), evaluated in the place of
the weights themselves. The accuracy is the validation split's after the last epoch: the test split
is not looked at. An architecture that ends within twice of chance counts as dead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sqzexplore as sqz
from sqzexplore import provenance, training
from sqzexplore.data import ImageData, load, open_data
from sqzexplore.files import write_atomically
from sqzexplore.recipe import Recipe

SMALL = {"width_multiplier": 0.25, "stem_kernel": 3, "stem_stride": 2, "stem_padding": 1}
ARCHITECTURES = {
    "SR 0.125": {},
    "SR 1.0": {"squeeze_ratio": 1.0},
    "4 Fires": {"fires": 4, "pool_after": (1, 3)},
    "16 Fires": {"fires": 16, "expand_increment": 64},
    "16 Fires, simple bypass": {"fires": 16, "expand_increment": 64, "bypass": "simple"},
    "complex bypass": {"bypass": "complex"},
    "BatchNorm": {"batch_norm": True},
}
RATES = (0.02, 0.05, 0.1, 0.2)


def sgd(rate: float) -> Callable[[nn.Module, Recipe], torch.optim.Optimizer]:
    def made(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            net.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4
        )

    return made


def one(
    architecture: sqz.Architecture, data: ImageData, way: str, epochs: int, batch: int, seed: int
) -> dict[str, float]:
    """The validation accuracies of one training, by recipe: that of `default` has its average."""
    rate = float(way.split()[-1]) if way.startswith("SGD") else None
    recipe = Recipe(epochs=epochs, batch_size=batch, learning_rate=rate)
    if way == "paper":
        recipe = Recipe(recipe="paper", epochs=epochs, batch_size=batch)
    averages: list[tuple[nn.Module, AveragedModel]] = []

    def follow(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
        averages.append((net, average))
        return real(net, recipe)

    def update(images: int) -> None:
        for net, average in averages:
            average.update_parameters(net)

    real = training.optimizer
    other = sgd(rate) if rate else follow if way == "default" else None
    with patch.object(training, "optimizer", other) if other else nullcontext():
        _, run = training.fit(architecture, data, recipe, seed, on_batch=update)
    found = {way: run.val_top1}
    for _, average in averages:
        if not run.diverged:
            top1, _ = training.accuracy(average.module, data, data.validation, recipe)
            found["default, average"] = top1
    return found


def report(frame: pd.DataFrame, classes: int, console: Console) -> None:
    frame = frame.fillna({"val_top1": 100 / classes})  # diverged: as good as chance
    dead = frame["val_top1"] < 200 / classes
    table = Table(title="validation top-1, %, mean (least) over the seeds", title_justify="left")
    table.add_column("recipe")
    ways = list(frame["recipe"].unique())
    names = list(frame["architecture"].unique())
    for name in [*names, "mean", "dead or diverged"]:
        table.add_column(name, justify="right")
    for way in ways:
        own = frame["recipe"] == way
        cells = []
        for name in names:
            values = frame[own & (frame["architecture"] == name)]["val_top1"]
            cells.append(f"{values.mean():.1f} ({values.min():.1f})")
        cells.append(f"{frame[own]['val_top1'].mean():.2f}")
        table.add_row(way, *cells, f"{int(dead[own].sum())} of {int(own.sum())}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=None, help="a CSV file")
    asked = parser.parse_args()
    data = load(open_data(asked.data), 32).to(torch.device(asked.device))
    ways = ["default", *(f"SGD {rate}" for rate in RATES), "paper"]
    rows = []
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("training", total=len(ways) * len(ARCHITECTURES) * asked.seeds)
        for name, changes in ARCHITECTURES.items():
            architecture = sqz.Architecture(
                **SMALL, **changes, in_channels=data.channels, num_classes=len(data.classes)
            )
            for way in ways:
                for seed in range(asked.seeds):
                    found = one(architecture, data, way, asked.epochs, asked.batch, seed)
                    rows += [
                        {"architecture": name, "recipe": recipe, "seed": seed, "val_top1": top1}
                        for recipe, top1 in found.items()
                    ]
                    progress.advance(task)
    origin = provenance.of_sweep(asked.device)
    frame = pd.DataFrame(rows).assign(
        data=data.name,
        epochs=asked.epochs,
        batch_size=asked.batch,
        device_name=origin["device_name"],
        threads=origin["threads"],
        torch_version=origin["packages"]["torch"],
        git_commit=origin["git_commit"],
    )
    if asked.out:
        write_atomically(asked.out, frame.to_csv(index=False).encode())
    report(frame, len(data.classes), Console(width=None if sys.stdout.isatty() else 180))


if __name__ == "__main__":
    main()
