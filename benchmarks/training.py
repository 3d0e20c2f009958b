"""Images trained a second: ours, against a plain PyTorch loop over a DataLoader with PIL.

    CIFAR10=... python benchmarks/training.py [--images 12800] [--rounds 5] [--batch 128]

One run, the same networks, batch, optimiser, augmentation (shift by 4, flip) and images. The plain
loop is what a tutorial writes: a Dataset decodes each image with PIL, shifts, flips and normalises
it, two workers, float32, channels first. Ours is the trainer as a sweep calls it, in float32 and in
bfloat16; its time includes building the network and evaluating 256 images. The rounds alternate;
each line says the median and the range over them. Run nothing else on the machine.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import time
import timeit
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import sqzexplore as sqz
from sqzexplore import provenance
from sqzexplore.data import ImageData, Source, Split, load, open_data
from sqzexplore.recipe import Recipe, optimizer
from sqzexplore.training import fit

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


def plain(architecture: sqz.Architecture, images: Encoded, batch: int, device: str) -> None:
    net = sqz.build(architecture).to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), 0.003, weight_decay=0.05)
    for x, y in DataLoader(images, batch, shuffle=True, num_workers=2):
        loss = cross_entropy(net(x.to(device)), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


def step_of(
    architecture: sqz.Architecture, batch: int, device: str, compiled: bool
) -> Callable[[], None]:
    """One training step in bfloat16 on fixed images, made once: the first call compiles."""
    recipe = Recipe(precision="bfloat16")
    images = torch.randn(batch, architecture.in_channels, 32, 32, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, architecture.num_classes, (batch,), device=device)
    net = sqz.build(architecture).to(device).to(memory_format=torch.channels_last).train()
    update = optimizer(net, recipe)
    forward = torch.compile(net) if compiled else net

    def step() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = forward(images)
        loss = cross_entropy(logits.float(), labels)
        update.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        update.step()
        if device != "cpu":
            torch.cuda.synchronize()

    step()
    return step


def report_compiled(batch: int, device: str, rounds: int) -> None:
    """Whether torch.compile pays in training: its time, and the step's, eager / compiled."""
    for name, architecture in NETWORKS.items():
        eager = step_of(architecture, batch, device, False)
        started = time.perf_counter()
        compiled = step_of(architecture, batch, device, True)
        took = time.perf_counter() - started
        times = [
            [timeit.timeit(step, number=5) for step in (eager, compiled)] for _ in range(rounds)
        ]
        ratios = [a / b for a, b in times]
        print(
            f"{name}: compiled in {took:.0f} s, a step then is {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f}) as fast as eager"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="${CIFAR10}")
    parser.add_argument("--images", type=int, default=12800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile against eager only")
    asked = parser.parse_args()
    if asked.compile:
        return report_compiled(asked.batch, asked.device, asked.rounds)
    source = open_data(asked.data)
    data = load(source, 32).to(torch.device(asked.device))
    encoded = Encoded(source, asked.images, data)
    first = Split(data.train.images[: asked.images], data.train.labels[: asked.images])
    few = Split(first.images[:128], first.labels[:128])
    data = replace(data, train=first, validation=few, test=few)
    print(
        f"{provenance.device_name(asked.device)}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {data.description}, batch {asked.batch}, "
        f"{asked.images:,} images a round, {asked.rounds} rounds"
    )
    for name, architecture in NETWORKS.items():
        ways = {
            "plain loop": lambda a=architecture: plain(a, encoded, asked.batch, asked.device),
            **{
                f"ours, {precision}": lambda a=architecture, p=precision: fit(
                    a, data, Recipe(epochs=1, batch_size=asked.batch, precision=p), 0
                )
                for precision in ("float32", "bfloat16")
            },
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(asked.rounds):
            for way, work in ways.items():
                started = time.perf_counter()
                work()
                if asked.device != "cpu":
                    torch.cuda.synchronize()
                rates[way].append(asked.images / (time.perf_counter() - started))
        print(name)
        for way, values in rates.items():
            ratios = [b / a for a, b in zip(rates["plain loop"], values, strict=True)]
            print(
                f"  {way:15s} {statistics.median(values):8,.0f} images/s "
                f"({min(values):,.0f} to {max(values):,.0f}), "
                f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
