"""Which images of a split a network classifies rightly."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from ..data.images import ImageData, Split
from ..data.stream import StreamedSplit
from . import distributed

_EVALUATED = 500


#: Probability of an accuracy as good by chance, above which a network is held for dead.
_BY_CHANCE = 0.05


class Normalisation:
    """Pixels as a network takes them: N x H x W x C bytes -> N x C x H x W float32 in channels-last
    memory, by the mean and standard deviation of `data`."""

    def __init__(self, data: ImageData) -> None:
        # One value a pixel: an inner loop over one or three channels takes six times as long.
        shape = (data.image_size, data.image_size, data.channels)
        self._mean, self._std = (
            value.expand(shape).contiguous() for value in (data.mean, data.std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """A batch of bytes, normalised."""
        return images.float().sub_(self._mean).div_(self._std).permute(0, 3, 1, 2)


# --- what a network says of images -------------------------------------------------------------


@dataclass(frozen=True)
class Guesses:
    """A split as a network classifies it: percent whose class is its first, and among its first
    five, guess; `right`: N bool, of each image whether the first guess is its class."""

    top1: float
    top5: float
    right: np.ndarray

    @classmethod
    def of(cls, guessed: Tensor, data: ImageData) -> Guesses:
        """From what `guesses_on_device` left there."""
        table = guessed.cpu().numpy().astype(bool)
        top1, top5 = (100.0 * int(column.sum()) / len(table) for column in table.T)
        return cls(top1, top5 if len(data.classes) > 5 else math.nan, table[:, 0])


def guesses(net: nn.Module, data: ImageData, split: Split | StreamedSplit) -> Guesses:
    """What `net` says of the images of a split, in float32."""
    return Guesses.of(guesses_on_device(net, data, split), data)


@torch.no_grad()
def guesses_on_device(net: nn.Module, data: ImageData, split: Split | StreamedSplit) -> Tensor:
    """N x 2 uint8 on the device: whether an image's class is the first, one of the first five,
    guesses. Nothing waits for it."""
    net.eval()
    normal = Normalisation(data)
    found = torch.zeros(len(split), 2, dtype=torch.uint8, device=data.mean.device)
    order = torch.arange(len(split))[distributed.rank() :: distributed.world()]
    mine = found[distributed.rank() :: distributed.world()]
    done = 0
    for images, labels in split.batches(order, _EVALUATED):
        logits = net(normal(images))
        hits = logits.topk(min(5, logits.shape[1])).indices == labels.unsqueeze(1)
        mine[done : done + len(labels)] = torch.stack([hits[:, 0], hits.any(1)], 1)
        done += len(labels)
    return distributed.total(found)


def packed(right: np.ndarray) -> str:
    """N bool as text: eight a byte, the first in the highest bit, in base64."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def by_chance(right: np.ndarray, class_counts: np.ndarray) -> bool:
    """Whether so many right guesses are no more than the most frequent class alone would give.

    An exact binomial test, one-sided, at 5%: a network that died always says the same class.
    """
    share = class_counts.max() / class_counts.sum()
    found = stats.binomtest(int(right.sum()), len(right), share, alternative="greater")
    return bool(found.pvalue > _BY_CHANCE)
