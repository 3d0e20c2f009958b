"""Images trained a second: ours, against a plain PyTorch loop over a DataLoader with PIL.

    CIFAR10=... python benchmarks/training.py [--images 12800] [--rounds 5] [--batch 128]

One run, the same networks, batch, optimiser, augmentation (shift by 4, flip) and images. The plain
loop is what a tutorial writes: a Dataset decodes each image with PIL, shifts, flips and normalises
it, float32, channels first, on all cores, with two loader processes and with one a core. Ours is
the trainer as a sweep uses it, its time with building the network and evaluating 256 images: on a
CPU a training of one thread on every core at once, all images counted; on a GPU one training, and
several by turns. The rounds alternate; the table says the median and the range of each way, and the
median of the ratios to the first in the same round. A row is written after each measurement; run
again, what is there is kept. Run nothing else on the machine.
"""

from __future__ import annotations

import argparse
import io
import itertools
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import sqzexplore as sqz
from sqzexplore import provenance
from sqzexplore.data.images import ImageData, Split, load
from sqzexplore.data.open import open_data
from sqzexplore.data.source import Source
from sqzexplore.executors.processes import usable_cores
from sqzexplore.files import write_atomically
from sqzexplore.train.loop import Training
from sqzexplore.train.recipe import Recipe

NETWORKS = {
    "width 0.25, stem 3x3/2 (the CIFAR-10 sweeps' proxy)": sqz.Architecture(
        width_multiplier=0.25, stem_kernel=3, stem_stride=2, stem_padding=1, num_classes=10
    ),
    "width 0.5, stem 3x3/1, pools after 1, 3, 5": sqz.Architecture(
        width_multiplier=0.5, stem_kernel=3, stem_stride=1, stem_padding=1, pool_after=(1, 3, 5)
    ).replace(num_classes=10),
    "squeezenet_cifar": sqz.preset("squeezenet_cifar"),
}


class Encoded(Dataset[tuple[torch.Tensor, int]]):
    """Training images as they are stored; each is decoded, augmented and normalised when asked."""

    def __init__(self, source: Source, count: int, data: ImageData) -> None:
        self.part, self.count = source.train, count
        self.mean, self.std = data.mean.cpu().numpy(), data.std.cpu().numpy()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self.part.read(number))).convert("RGB")
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        left, top = random.randint(0, 8), random.randint(0, 8)
        box = (left, top, left + image.width, top + image.height)
        image = ImageOps.expand(image, 4).crop(box)
        pixels = (np.asarray(image, np.float32) - self.mean) / self.std
        return torch.from_numpy(pixels.transpose(2, 0, 1)), int(self.part.labels[number])


def plain(
    architecture: sqz.Architecture, images: Encoded, batch: int, device: str, loaders: int
) -> None:
    net = sqz.build(architecture).to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), 0.003, weight_decay=0.05)
    for x, y in DataLoader(images, batch, shuffle=True, num_workers=loaders):
        loss = cross_entropy(net(x.to(device)), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


def ours(architecture: sqz.Architecture, data: ImageData, recipe: Recipe, pack: int) -> None:
    """Trainings by turns."""
    running = [Training(architecture, data, recipe, seed) for seed in range(pack)]
    while running:
        running = [one for one in running if one.turn()]


def prepared(asked: argparse.Namespace) -> tuple[Encoded, ImageData]:
    """The images, as they are stored and as ours keeps them."""
    source = open_data(asked.data)
    data = load(source, 32).to(torch.device(asked.device))
    encoded = Encoded(source, asked.images, data)
    first = Split(data.train.images[: asked.images], data.train.labels[: asked.images])
    few = Split(first.images[:128], first.labels[:128])
    return encoded, replace(data, train=first, validation=few, test=few)


def serve(asked: argparse.Namespace, pipe: Connection) -> None:
    """A process on one core that trains when it is told to."""
    torch.set_num_threads(1)
    _, data = prepared(asked)
    pipe.send("ready")
    while (job := pipe.recv()) is not None:
        ours(NETWORKS[job[0]], data, job[1], 1)
        pipe.send("done")


class Processes:
    """Trainings side by side, one a core."""

    def __init__(self, asked: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for _ in usable_cores():
            mine, theirs = context.Pipe()
            context.Process(target=serve, args=(asked, theirs), daemon=True).start()
            self.pipes.append(mine)
        self._wait()

    def train(self, name: str, recipe: Recipe) -> None:
        for pipe in self.pipes:
            pipe.send((name, recipe))
        self._wait()

    def _wait(self) -> None:
        for pipe in self.pipes:
            pipe.recv()


#: What is timed, and how many trainings it is, by name.
Ways = dict[str, tuple[Callable[[], None], int]]


def ways_of(
    name: str,
    asked: argparse.Namespace,
    encoded: Encoded,
    data: ImageData,
    beside: Processes | None,
) -> Ways:
    """The first is the baseline."""
    architecture = NETWORKS[name]
    cores = len(usable_cores())
    ways: Ways = {}
    for loaders in dict.fromkeys((2, cores)):
        work = partial(plain, architecture, encoded, asked.batch, asked.device, loaders)
        ways[f"plain loop, {loaders} loaders"] = (work, 1)
    for precision in ("float32", "bfloat16") if beside else ("float32", "tf32", "bfloat16"):
        recipe = Recipe(epochs=1, batch_size=asked.batch, precision=precision)
        if beside:
            way = f"ours, {precision}, {cores} trainings of one thread"
            ways[way] = (partial(beside.train, name, recipe), cores)
            continue
        for pack in (1, 8, 24):
            way = f"ours, {precision}, {pack} by turns"
            ways[way] = (partial(ours, architecture, data, recipe, pack), pack)
    return ways


def report(rows: pd.DataFrame, console: Console) -> None:
    for name, part in rows.groupby("network", sort=False):
        table = Table(title=f"{name}: images/s", title_justify="left")
        for heading in ("way", "median", "least to greatest", "x the first", "least to greatest"):
            table.add_column(heading, justify="right")
        rounds = part.pivot(index="round", columns="way", values="images_per_s")
        for way in part["way"].unique():
            rates, ratios = rounds[way], rounds[way] / rounds[part["way"].iloc[0]]
            table.add_row(
                way,
                f"{rates.median():,.0f}",
                f"{rates.min():,.0f} to {rates.max():,.0f}",
                f"{ratios.median():.2f}",
                f"{ratios.min():.2f} to {ratios.max():.2f}",
            )
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="${CIFAR10}")
    parser.add_argument("--images", type=int, default=12800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/training.csv"))
    asked = parser.parse_args()
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")  # as the command line does
    encoded, data = prepared(asked)
    beside = Processes(asked) if asked.device == "cpu" else None
    origin = provenance.of_sweep(asked.device)
    settings = {n: origin[n] for n in ("device", "device_name", "cpu_capability", "git_commit")}
    settings |= {"data": data.name, "images": asked.images, "batch": asked.batch}
    rows = pd.read_csv(asked.out).to_dict("records") if asked.out.exists() else []
    for name, turn in itertools.product(NETWORKS, range(asked.rounds)):
        ways = ways_of(name, asked, encoded, data, beside)
        order = list(ways)
        for way in random.Random(turn).sample(order, len(order)):
            key = {"network": name, "way": way, "round": turn} | settings
            if any(all(row[column] == value for column, value in key.items()) for row in rows):
                continue
            work, trainings = ways[way]
            started = time.perf_counter()
            work()
            if asked.device != "cpu":
                torch.cuda.synchronize()
            spent = time.perf_counter() - started
            speed = round(trainings * asked.images / spent, 1)
            rows.append(key | {"threads": torch.get_num_threads(), "images_per_s": speed})
            networks, known = [*NETWORKS], {way: number for number, way in enumerate(order)}
            rows.sort(
                key=lambda r: (networks.index(r["network"]), known.get(r["way"], 99), r["round"])
            )
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(asked.out, pd.DataFrame(rows).to_csv(index=False).encode())
            print(f"{name}, round {turn + 1}: {way}: {speed:,.0f} images/s", flush=True)
    report(pd.DataFrame(rows), Console(width=None if sys.stdout.isatty() else 140))
    print(f"written: {asked.out}")


if __name__ == "__main__":
    main()
