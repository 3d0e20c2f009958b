"""One Architecture, one recipe, one seed -> accuracy and how it came about.

Nothing is chosen on the test split: it is evaluated once, after the last epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture
from .augment import augment
from .data import ImageData, Split
from .model import SqueezeNet, build
from .recipe import Recipe, initialise, optimizer, rate

_EVALUATED = 500
_INITIAL = 256


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split. Accuracy in percent; `train_loss` is the mean, in nats."""

    epoch: int
    train_loss: float
    val_top1: float


@dataclass(frozen=True)
class Run:
    """One training. Accuracies, in percent after the last epoch, are NaN if it diverged.

    `top1` and `top5` are of the test split; `top5` is NaN where there are fewer than 10 classes.
    """

    seed: int
    diverged: bool
    top1: float
    top5: float
    val_top1: float
    duration_s: float
    history: tuple[Epoch, ...]


def train(
    architecture: Architecture,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Run:
    """Train `architecture` on the device that holds `data`.

    The same seed on the same machine (processor, thread count, torch version) gives the same
    numbers. A loss that is not finite ends the run as diverged.

    Args:
        architecture: what to train; its channels and classes are the data's.
        data: the images, on the device to train on.
        recipe: how.
        seed: initial weights, order of the images, augmentation and dropout follow from it.
        on_epoch: called after every epoch.

    Raises:
        FeatureMapVanishes: the images are too small for the architecture.
    """
    architecture.check_input_size(data.image_size)
    started = time.perf_counter()
    device = data.mean.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _repeatable():
        torch.manual_seed(seed)
        net = build(architecture).to(device)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialise(net, _normalised(data.train.images[:_INITIAL], data), recipe)
        history, diverged = _epochs(net, data, recipe, seed, on_epoch)
        top1, top5 = (math.nan, math.nan) if diverged else accuracy(net, data, data.test, recipe)
    return Run(
        seed=seed,
        diverged=diverged,
        top1=top1,
        top5=top5,
        val_top1=math.nan if diverged else history[-1].val_top1,
        duration_s=time.perf_counter() - started,
        history=tuple(history),
    )


def _epochs(
    net: SqueezeNet,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], None],
) -> tuple[list[Epoch], bool]:
    sgd = optimizer(net, recipe)
    steps = recipe.epochs * math.ceil(len(data.train) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: rate(recipe, step, steps))
    history: list[Epoch] = []
    for epoch in range(1, recipe.epochs + 1):
        generator = _seeded(seed, epoch)
        net.train()
        total = torch.zeros((), device=data.mean.device)
        order = torch.randperm(len(data.train), generator=generator)
        for images, labels in data.train.batches(order, recipe.batch_size):
            images = _normalised(augment(images, recipe.augmentation, generator), data)
            with _autocast(recipe, images.device):
                logits = net(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            sgd.zero_grad()
            loss.backward()
            if recipe.clip:
                nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            sgd.step()
            schedule.step()
            total += loss.detach() * len(labels)
        mean = (total / len(data.train)).item()
        if not math.isfinite(mean):
            history.append(Epoch(epoch, mean, math.nan))
            return history, True
        val_top1, _ = accuracy(net, data, data.validation, recipe)
        history.append(Epoch(epoch, mean, val_top1))
        on_epoch(history[-1])
    return history, False


def _seeded(seed: int, epoch: int) -> torch.Generator:
    """All that is random in an epoch follows from its number, so that any of them can go first."""
    mixed = (seed * 1_000_003 + epoch) % 2**63
    torch.manual_seed(mixed)  # dropout
    return torch.Generator().manual_seed(mixed)


def _normalised(images: Tensor, data: ImageData) -> Tensor:
    """N x H x W x C bytes -> N x C x H x W float32 in channels-last memory."""
    return ((images.float() - data.mean) / data.std).permute(0, 3, 1, 2)


def _autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")


@torch.inference_mode()
def accuracy(net: nn.Module, data: ImageData, split: Split, recipe: Recipe) -> tuple[float, float]:
    """Percent of `split` whose class is the network's first, and among its first five, guess."""
    net.eval()
    right = torch.zeros(2, dtype=torch.int64, device=split.labels.device)
    order = torch.arange(len(split))
    for images, labels in split.batches(order, _EVALUATED):
        with _autocast(recipe, images.device):
            logits = net(_normalised(images, data))
        guesses = logits.topk(min(5, logits.shape[1])).indices == labels.unsqueeze(1)
        right += torch.stack([guesses[:, 0].sum(), guesses.sum()])
    top1, top5 = (100.0 * right / len(split)).tolist()
    return top1, top5 if len(data.classes) >= 10 else math.nan


class _repeatable:
    """cuDNN restricted to deterministic algorithms, for as long as a run takes."""

    def __enter__(self) -> None:
        cudnn = torch.backends.cudnn
        self._before = (cudnn.deterministic, cudnn.benchmark)
        cudnn.deterministic, cudnn.benchmark = True, False

    def __exit__(self, *exc: object) -> None:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self._before
