"""Image data sets as tensors, split once and for all into train, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

#: The split is part of the data set, not of an experiment: it never follows a run's seed.
_SPLIT_SEED = 0


@dataclass(frozen=True)
class Split:
    """`images`: N x C x H x W float32, normalised; `labels`: N int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The split on `device`, its images channels-last."""
        images = self.images.to(device).contiguous(memory_format=torch.channels_last)
        return Split(images, self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """A data set ready to train on. `background` is the normalised value of an empty pixel."""

    name: str
    description: str
    train: Split
    validation: Split
    test: Split
    background: float

    def to(self, device: torch.device) -> ImageData:
        """The data on `device`."""
        splits = (self.train.to(device), self.validation.to(device), self.test.to(device))
        return ImageData(self.name, self.description, *splits, self.background)


@lru_cache(maxsize=4)
def digits(image_size: int = 32) -> ImageData:
    """scikit-learn's handwritten digits: 1,797 real 8x8 grey images by 13 writers, ten classes.

    Upsampled bilinearly to `image_size` pixels, normalised by the training split's mean and
    standard deviation, split 60/15/25 per cent by class (stratified): 1,077 to train, 270 to
    validate, 450 to test. One test image is 0.22 percentage points.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test
    part), as `sklearn.datasets.load_digits` ships it.
    """
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)
    images = F.interpolate(images, size=image_size, mode="bilinear", align_corners=False)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=_SPLIT_SEED
    )
    train, validation = train_test_split(
        rest, test_size=0.2, stratify=labels[rest], random_state=_SPLIT_SEED
    )
    mean, std = images[train].mean(), images[train].std()
    images = (images - mean) / std
    parts = [
        Split(images[index], torch.tensor(labels[index], dtype=torch.int64))
        for index in (train, validation, test)
    ]
    return ImageData(
        name="digits",
        description=f"scikit-learn digits, 8x8 upsampled to {image_size}x{image_size}",
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        background=float(-mean / std),
    )
