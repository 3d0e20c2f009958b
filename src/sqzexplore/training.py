"""The recipe: one Architecture, one seed -> accuracy and how it came about.

The paper's network has no BatchNorm and a ReLU after its last convolution, and both make it easy
to kill. What the recipe does about it, and why:

- SGD with Nesterov momentum 0.9, weight decay 2e-4 (the paper's), a linear warm-up over the first
  fifth of the steps, then a linear decay to 0 (the paper's).
- The gradient's norm is clipped to 1: without BatchNorm the first steps may be wild.
- The bias of the last convolution starts at 4, not 0. The softmax does not see a shift of all
  logits, but the ReLU does: at 0 about half of each class's positions start behind it, and a
  class whose every position falls behind it never learns again.
- In a Fire with a bypass, the expand branches start with half their variance, and a bypass
  convolution (which no ReLU follows) with a quarter, so that the sum has the variance of its input.
  Otherwise it doubles or triples from Fire to Fire, and the complex bypass dies in the first epoch.
- Each batch is shifted by up to 2 pixels a way, the only augmentation that suits digits.

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
from .data import ImageData, Split
from .model import Fire, SqueezeNet, build

_WARMUP = 0.2
_LOGIT_BIAS = 4.0
_SHIFT = 2


@dataclass(frozen=True)
class Recipe:
    """What the user sets of the recipe; the module says the rest."""

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split. Accuracy in percent; `train_loss` is the mean, in nats."""

    epoch: int
    train_loss: float
    val_top1: float


@dataclass(frozen=True)
class Run:
    """One training. `top1` (test) and `val_top1` are in percent after the last epoch, or NaN."""

    seed: int
    diverged: bool
    top1: float
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
        recipe: epochs, batch size, peak learning rate.
        seed: initial weights, order of the images, shifts and dropout follow from it.
        on_epoch: called after every epoch.

    Raises:
        FeatureMapVanishes: the images are too small for the architecture.
    """
    architecture.check_input_size(data.train.images.shape[-1])
    started = time.perf_counter()
    device = data.train.images.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _repeatable():
        torch.manual_seed(seed)
        net = build(architecture).to(device)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _make_trainable(net)
        history, diverged = _epochs(net, data, recipe, seed, on_epoch)
        top1 = math.nan if diverged else _top1(net, data.test)
    return Run(
        seed=seed,
        diverged=diverged,
        top1=top1,
        val_top1=math.nan if diverged else history[-1].val_top1,
        duration_s=time.perf_counter() - started,
        history=tuple(history),
    )


@torch.no_grad()
def _make_trainable(net: SqueezeNet) -> None:
    """What the recipe changes of the initial weights; the module's docstring says why."""
    net.classifier.get_parameter("1.bias").fill_(_LOGIT_BIAS)
    for fire in net.modules():
        if isinstance(fire, Fire) and fire.bypass is not None:
            for branch in (fire.expand1x1, fire.expand3x3):
                if branch is not None:
                    branch.weight.mul_(math.sqrt(0.5))
            if isinstance(fire.bypass, nn.Conv2d):
                fire.bypass.weight.mul_(0.5)


def _epochs(
    net: nn.Module,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], None],
) -> tuple[list[Epoch], bool]:
    optimizer = torch.optim.SGD(
        net.parameters(), recipe.learning_rate, momentum=0.9, weight_decay=2e-4, nesterov=True
    )
    steps = recipe.epochs * math.ceil(len(data.train) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    order = torch.Generator().manual_seed(seed)
    history: list[Epoch] = []
    for epoch in range(1, recipe.epochs + 1):
        net.train()
        total = torch.zeros((), device=data.train.images.device)
        permutation = torch.randperm(len(data.train), generator=order)
        for index in permutation.split(recipe.batch_size):
            images, labels = _batch(data, index, order)
            loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(index)
        mean = (total / len(data.train)).item()
        if not math.isfinite(mean):
            history.append(Epoch(epoch, mean, math.nan))
            return history, True
        history.append(Epoch(epoch, mean, _top1(net, data.validation)))
        on_epoch(history[-1])
    return history, False


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step`: up over the warm-up, down to 0 at `steps`."""
    warmup = max(1.0, _WARMUP * steps)
    return min((step + 1) / warmup, (steps - step) / max(1.0, steps - warmup))


def _batch(data: ImageData, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training images `index` and their labels, all shifted by the same few pixels."""
    device = data.train.labels.device
    index = index.to(device)
    images = data.train.images[index]
    dx, dy = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (_SHIFT,) * 4, value=data.background)
    height, width = images.shape[-2:]
    shifted = padded[:, :, _SHIFT + dy : _SHIFT + dy + height, _SHIFT + dx : _SHIFT + dx + width]
    return shifted.contiguous(memory_format=torch.channels_last), data.train.labels[index]


@torch.inference_mode()
def _top1(net: nn.Module, split: Split) -> float:
    """Percent of `split` that the network names right."""
    net.eval()
    correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    for images, labels in zip(split.images.split(512), split.labels.split(512), strict=True):
        correct += (net(images).argmax(1) == labels).sum()
    return 100.0 * correct.item() / len(split)


class _repeatable:
    """cuDNN restricted to deterministic algorithms, for as long as a run takes."""

    def __enter__(self) -> None:
        cudnn = torch.backends.cudnn
        self._before = (cudnn.deterministic, cudnn.benchmark)
        cudnn.deterministic, cudnn.benchmark = True, False

    def __exit__(self, *exc: object) -> None:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self._before
