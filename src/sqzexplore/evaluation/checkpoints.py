"""Trained weights, ours or others', on any data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.images import SPLITS, ImageData, imagenet_moments
from ..errors import UserError
from ..network.architecture import Architecture
from ..network.module import SqueezeNet
from ..train import checkpoint
from ..train.accuracy import guesses
from ..train.recipe import Recipe

#: What stands beside weights in a file of ours.
Notes = Mapping[str, Any]


@dataclass(frozen=True)
class Accuracy:
    """Of one split: percent, with Wilson's 95% interval over its images; `top5` is NaN where there
    are fewer than 6 classes."""

    images: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float


def network_of(path: Path, architecture: Architecture | None) -> tuple[SqueezeNet, Notes]:
    """The network in a file, and its notes; there are none in a file of torch.

    Raises:
        UserError: as `checkpoint.load`.
    """
    net = checkpoint.load(path, architecture)
    return net, checkpoint.notes(path) if checkpoint.is_own(path) else {}


def normalised_for(data: ImageData, notes: Notes) -> ImageData:
    """`data` with the mean and standard deviation that a network was trained with: what its notes
    say, or ImageNet's, as torchvision's networks were.

    Raises:
        UserError: the network was trained on images of other channels.
    """
    mean, std = imagenet_moments(data.channels)
    if "mean" in notes:
        mean, std = torch.tensor(notes["mean"]), torch.tensor(notes["std"])
    _check_channels(data, len(mean))
    return replace(data, mean=mean.to(data.mean.device), std=std.to(data.mean.device))


def evaluate(net: SqueezeNet, data: ImageData, split: str) -> Accuracy:
    """How many images of a split a network classifies rightly.

    Args:
        net: on the device of `data`.
        data: normalised for it.
        split: train, validation, test, or all of them.

    Raises:
        UserError: the network has other classes or channels than the data.
    """
    from scipy import stats

    check_fits(net.architecture, data)
    parts = [guesses(net, data, getattr(data, s)) for s in (SPLITS if split == "all" else [split])]
    counts = [len(part.right) for part in parts]
    hits, count = sum(int(np.sum(part.right)) for part in parts), sum(counts)
    low, high = stats.binomtest(hits, count).proportion_ci(method="wilson")
    top5 = float(np.average([part.top5 for part in parts], weights=counts))
    return Accuracy(count, 100 * hits / count, 100 * low, 100 * high, top5)


def check_fits(architecture: Architecture, data: ImageData) -> None:
    """Refuse data of other classes, channels or sizes than a network takes.

    Raises:
        UserError: it says what differs.
    """
    if architecture.num_classes != len(data.classes):
        raise UserError(
            f"{data.name}: found {len(data.classes)} classes, expected the network's "
            f"{architecture.num_classes}"
        )
    _check_channels(data, architecture.in_channels)
    architecture.check_input_size(data.image_size)


def _check_channels(data: ImageData, expected: int) -> None:
    if data.channels != expected:
        raise UserError(
            f"{data.name}: found images of {data.channels} channels, expected the network's "
            f"{expected}"
        )


def recipe_of_notes(notes: Notes) -> Recipe:
    """How a network was trained, as far as its notes say it."""
    known = {field.name: notes[field.name] for field in fields(Recipe) if field.name in notes}
    return Recipe(**known)
