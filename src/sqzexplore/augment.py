"""Random changes of a batch of training images, on the device that holds them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

#: `shift`: each image by up to 1/16 of its side a way, the gap filled with its mirror image.
#: `shift_flip`: by up to 1/8 (4 of 32 pixels, as is usual), and half of them mirrored left to
#: right, which suits photographs but makes other signs of some digits and letters.
#: `crop_flip`: a random part of the stored image, resized, and half of them mirrored; needs the
#: images as they are stored, so that they are read while training.
Augmentation = Literal["none", "shift", "shift_flip", "crop_flip"]


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """N x H x W x C images, each changed at random; one gather does it all.

    Args:
        images: on any device.
        augmentation: which changes; `crop_flip` is done where the images are read.
        generator: a CPU generator; it decides the same on every device.
    """
    if augmentation == "none":
        return images
    count, height, width, _ = images.shape
    reach = max(1, width // 8) if augmentation == "shift_flip" else max(1, width // 16)
    dx, dy = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
    rows, columns = torch.arange(height) + dy, torch.arange(width) + dx
    if augmentation == "shift_flip":
        flipped = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = _reflected(rows, height), _reflected(columns, width)
    index = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(count, -1)
    index += torch.arange(count).unsqueeze(1) * (height * width)
    pixels = images.reshape(count * height * width, -1)
    return pixels[index.view(-1).to(images.device)].view(images.shape)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Positions outside of 0..size-1 mirrored at the edge pixel."""
    position = position.abs()
    return torch.where(position < size, position, 2 * (size - 1) - position)
