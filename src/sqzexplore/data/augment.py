"""Random changes of training images: drawn on the host beforehand, applied on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .names import Augmentation


@dataclass(frozen=True)
class Shifts:
    """How each of N images is moved: `dx`, `dy`: N x 1 int64, pixels to the left and up;
    `flipped`: N x 1 bool, mirrored left to right."""

    dx: Tensor
    dy: Tensor
    flipped: Tensor

    def to(self, device: torch.device) -> Shifts:
        """The same on `device`."""
        return Shifts(*(tensor.to(device) for tensor in self.tensors()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three, in order."""
        return self.dx, self.dy, self.flipped


def draw(
    count: int, width: int, augmentation: Augmentation, generator: torch.Generator
) -> Shifts | None:
    """The shifts of a batch of `count` images of `width` pixels; None where nothing is changed.

    Args:
        count: images.
        width: pixels a side.
        augmentation: which changes; `crop_flip` is done where the images are read.
        generator: a CPU generator; it decides the same for every device.
    """
    if augmentation in ("none", "crop_flip"):
        return None
    reach = max(1, width // 8) if augmentation == "shift_flip" else max(1, width // 16)
    dx, dy = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
    flipped = torch.zeros(count, 1, dtype=torch.bool)
    if augmentation == "shift_flip":
        flipped = torch.rand(count, 1, generator=generator) < 0.5
    return Shifts(dx, dy, flipped)


def shifted(images: Tensor, index: Tensor, shifts: Shifts | None) -> Tensor:
    """The images numbered `index`, each moved as drawn; one gather does it all.

    Args:
        images: M x H x W x C, any type, on any device.
        index: N int64, on that device.
        shifts: of the N images, on that device.

    Returns:
        N x H x W x C.
    """
    if shifts is None:
        return images[index]
    _, height, width, channels = images.shape
    rows = torch.arange(height, device=index.device) + shifts.dy
    columns = torch.arange(width, device=index.device) + shifts.dx
    columns = torch.where(shifts.flipped, columns.flip(1), columns)
    rows, columns = _reflected(rows, height), _reflected(columns, width)
    line = index.unsqueeze(1) * height + rows  # of all rows of pixels, which
    pixel = (line * width).unsqueeze(2) + columns.unsqueeze(1)
    flat = images.reshape(-1, channels) if channels > 1 else images.reshape(-1)  # faster so
    return flat.index_select(0, pixel.view(-1)).view(len(index), height, width, channels)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Positions outside of 0..size-1 mirrored at the edge pixel."""
    position = position.abs()
    return torch.where(position < size, position, 2 * (size - 1) - position)
