"""One Architecture, one recipe, one seed -> accuracy and how it came about.

Nothing is chosen on the test split: it is evaluated once, after the last epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import distributed
from .architecture import Architecture
from .checkpoint import Unfinished
from .data import ImageData, Split, StreamedSplit
from .model import SqueezeNet, build
from .recipe import Recipe, initialise, optimizer, rate

_EVALUATED = 500


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split. Accuracy in percent; `train_loss` is the mean, in nats."""

    epoch: int
    train_loss: float
    val_top1: float


@dataclass(frozen=True)
class Run:
    """One training. Accuracies, in percent after the last epoch, are NaN if it diverged.

    `top1` and `top5` are of the test split; `top5` is NaN where there are fewer than 6 classes.
    A run that was `stopped` early has neither: its test split was not looked at.
    """

    seed: int
    diverged: bool
    stopped: bool
    top1: float
    top5: float
    val_top1: float
    duration_s: float
    history: tuple[Epoch, ...]


def fit(
    architecture: Architecture,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], bool | None] = lambda epoch: None,
    unfinished: Path | None = None,
    on_batch: Callable[[int], None] = lambda images: None,
) -> tuple[SqueezeNet, Run]:
    """Train `architecture` on the device that holds `data`; the network, and how it went.

    The same seed on the same machine (processor, thread count, torch version) gives the same
    numbers, interrupted or not. A loss that is not finite ends the run as diverged. Under torchrun
    all processes call it alike and share every batch.

    Args:
        architecture: what to train; its channels and classes are the data's.
        data: the images, on the device to train on.
        recipe: how.
        seed: initial weights, order of the images, augmentation and dropout follow from it.
        on_epoch: called after every epoch; the training ends when it returns True.
        unfinished: file that keeps the state after every epoch, and that the training goes on
            from if it is there.
        on_batch: called after every step with the number of images it took.

    Raises:
        FeatureMapVanishes: the images are too small for the architecture.
        UserError: an image is damaged, or `unfinished` is of another training.
    """
    architecture.check_input_size(data.image_size)
    started = time.perf_counter()
    device = data.mean.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _repeatable():
        torch.manual_seed(seed)
        net = build(architecture).to(device)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialise(net, recipe)
        state = _State(net, data, recipe, seed, unfinished)
        stopped = False
        for epoch in range(len(state.history) + 1, recipe.epochs + 1):
            if stopped or state.diverged:
                break
            state.run_epoch(epoch, on_batch)
            state.keep(time.perf_counter() - started)
            wanted = distributed.told(on_epoch(state.history[-1]))
            stopped = bool(wanted) and epoch < recipe.epochs
        diverged = state.diverged
        top1 = top5 = math.nan
        if not (stopped or diverged):
            top1, top5 = accuracy(net, data, data.test, recipe)
    run = Run(
        seed=seed,
        diverged=diverged,
        stopped=stopped,
        top1=top1,
        top5=top5,
        val_top1=math.nan if diverged else state.history[-1].val_top1,
        duration_s=state.spent_before + time.perf_counter() - started,
        history=tuple(state.history),
    )
    return net, run


def follow(data: ImageData) -> None:
    """Take part in the trainings that the first process leads, until it has no more."""
    while (job := distributed.told(None)) is not None:
        architecture, recipe, seed, unfinished = job
        fit(architecture, data, recipe, seed, unfinished=unfinished)


def train(
    architecture: Architecture,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], bool | None] = lambda epoch: None,
    unfinished: Path | None = None,
) -> Run:
    """`fit`, together with the processes that `follow` if there are any; how it went."""
    distributed.told((architecture, recipe, seed, unfinished))
    return fit(architecture, data, recipe, seed, on_epoch, unfinished)[1]


class _State:
    """A training between two epochs."""

    def __init__(
        self, net: SqueezeNet, data: ImageData, recipe: Recipe, seed: int, unfinished: Path | None
    ) -> None:
        self.net, self.data, self.recipe, self.seed = net, data, recipe, seed
        self.optimizer = optimizer(net, recipe)
        self.history: list[Epoch] = []
        self.spent_before = 0.0
        identity = {
            "architecture": net.architecture.model_dump(mode="json"),
            **asdict(recipe),
            "augmentation": data.augmentation,
            "seed": seed,
            "data": data.name,
            "data_sha256": data.sha256,
            "image_size": data.image_size,
            "processes": distributed.world(),
        }
        self.unfinished = Unfinished(unfinished, identity) if unfinished else None
        if self.unfinished and (notes := self.unfinished.restore(net, self.optimizer)):
            self.history = [Epoch(**entry) for entry in notes["history"]]
            self.spent_before = notes["duration_s"]
        self.parallel = distributed.parallel(net)

    @property
    def diverged(self) -> bool:
        """Whether the last epoch's loss was not finite."""
        return bool(self.history) and not math.isfinite(self.history[-1].train_loss)

    def keep(self, spent: float) -> None:
        """Write the state to disk, where that is asked for."""
        if self.unfinished and distributed.rank() == 0:
            history = [asdict(epoch) for epoch in self.history]
            notes = {"history": history, "duration_s": self.spent_before + spent}
            self.unfinished.keep(self.net, self.optimizer, notes)

    def run_epoch(self, epoch: int, on_batch: Callable[[int], None]) -> None:
        """One pass over the training split, and its validation accuracy."""
        data, recipe = self.data, self.recipe
        generator = _seeded(self.seed, epoch)
        count = len(data.train)
        order, share = distributed.share(
            torch.randperm(count, generator=generator), recipe.batch_size
        )
        steps = math.ceil(len(order) / share)
        total = torch.zeros((), device=data.mean.device)
        self.net.train()
        batches = data.train.batches(order, share, data.augmentation, generator)
        for step, (images, labels) in enumerate(batches, (epoch - 1) * steps):
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.peak_rate * rate(recipe, step, recipe.epochs * steps)
            total += self._step(images, labels) * len(labels)
            on_batch(len(labels) * distributed.world())
        total = distributed.total(total)
        mean = (total / (len(order) * distributed.world())).item()
        val_top1 = math.nan
        if math.isfinite(mean):
            val_top1, _ = accuracy(self.net, data, data.validation, recipe)
        self.history.append(Epoch(epoch, mean, val_top1))

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update of the weights; the loss before it."""
        with _autocast(self.recipe, images.device):
            logits = self.parallel(_normalised(images, self.data))
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        return loss.detach()


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
def accuracy(
    net: nn.Module, data: ImageData, split: Split | StreamedSplit, recipe: Recipe
) -> tuple[float, float]:
    """Percent of `split` whose class is the network's first, and among its first five, guess."""
    net.eval()
    right = torch.zeros(2, dtype=torch.int64, device=data.mean.device)
    order = torch.arange(len(split))[distributed.rank() :: distributed.world()]
    for images, labels in split.batches(order, _EVALUATED):
        with _autocast(recipe, images.device):
            logits = net(_normalised(images, data))
        guesses = logits.topk(min(5, logits.shape[1])).indices == labels.unsqueeze(1)
        right += torch.stack([guesses[:, 0].sum(), guesses.sum()])
    top1, top5 = (100.0 * distributed.total(right) / len(split)).tolist()
    return top1, top5 if len(data.classes) > 5 else math.nan


class _repeatable:
    """cuDNN restricted to deterministic algorithms, for as long as a run takes."""

    def __enter__(self) -> None:
        cudnn = torch.backends.cudnn
        self._before = (cudnn.deterministic, cudnn.benchmark)
        cudnn.deterministic, cudnn.benchmark = True, False

    def __exit__(self, *exc: object) -> None:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self._before
