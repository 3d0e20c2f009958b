"""Which images of a split a network classifies rightly."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor, nn

from ..data.images import ImageData, Split
from ..data.names import printable
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
    five, guess; `right`: N bool, of each image whether the first guess is its class; `labels` and
    `guessed`: N, the numbers of its class and of the first guess."""

    top1: float
    top5: float
    right: np.ndarray
    labels: np.ndarray
    guessed: np.ndarray

    @classmethod
    def of(cls, found: Tensor, data: ImageData) -> Guesses:
        """From what `guesses_on_device` left there."""
        labels, guessed, among_five = found.cpu().numpy().T
        right, count = labels == guessed, len(labels)
        top1, top5 = (100.0 * int(hits.sum()) / count for hits in (right, among_five))
        top5 = top5 if len(data.classes) > 5 else math.nan
        return cls(top1, top5, right, labels, guessed)

    @property
    def balanced(self) -> float:
        """The mean over the classes that there are of the percent of their images that are right:
        what accuracy would be if all classes were as frequent (Brodersen et al., ICPR 2010)."""
        shares = [self.right[self.labels == label].mean() for label in np.unique(self.labels)]
        return 100 * float(np.mean(shares))

    def confusion(self, classes: Sequence[str]) -> list[tuple[str, str, int]]:
        """How many images of each class were taken for each, the class first; those that occur."""
        pairs, counts = np.unique(np.stack([self.labels, self.guessed]), axis=1, return_counts=True)
        return [
            (printable(classes[label]), printable(classes[guess]), int(count))
            for (label, guess), count in zip(pairs.T, counts, strict=True)
        ]


def guesses(net: nn.Module, data: ImageData, split: Split | StreamedSplit) -> Guesses:
    """What `net` says of the images of a split, in float32, by cuDNN's deterministic algorithms."""
    with cudnn_as(tf32=False):
        return Guesses.of(guesses_on_device(net, data, split), data)


@contextmanager
def cudnn_as(tf32: bool) -> Iterator[None]:
    """Meanwhile cuDNN is restricted to deterministic algorithms, and multiplies as TF32 or not."""
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, tf32
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before


@torch.no_grad()
def guesses_on_device(net: nn.Module, data: ImageData, split: Split | StreamedSplit) -> Tensor:
    """N x 3 int32 on the device: an image's class, the first guess, and whether the class is one
    of the first five. cuDNN does as it is set; nothing waits for it."""
    net.eval()
    normal = Normalisation(data)
    found = torch.zeros(len(split), 3, dtype=torch.int32, device=data.mean.device)
    order = torch.arange(len(split))[distributed.rank() :: distributed.world()]
    mine = found[distributed.rank() :: distributed.world()]
    done = 0
    for images, labels in split.batches(order, _EVALUATED):
        logits = net(normal(images))
        first = logits.topk(min(5, logits.shape[1])).indices
        among = (first == labels.unsqueeze(1)).any(1)
        mine[done : done + len(labels)] = torch.stack([labels, first[:, 0], among], 1)
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
    p_value = special.bdtrc(int(right.sum()) - 1, len(right), share)
    return bool(p_value > _BY_CHANCE)
