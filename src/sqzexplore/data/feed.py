"""An epoch of a split in memory: drawn on the host beforehand, picked on the device, step by step.

The order of the images and their changes come from the generators of the host, which decide the
same on every device. A step then reads its batch by a counter on the device: nothing is copied,
nothing waits, and every step is the same program, which can be replayed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .augment import Shifts, draw, shifted
from .images import Split
from .names import Augmentation


class Feed:
    """The batches of one pass over `split`.

    Args:
        split: the images.
        images: how many a pass takes.
        batch_size: images a step; what is left over makes a smaller last one.
        augmentation: how the images are changed.
    """

    def __init__(
        self, split: Split, images: int, batch_size: int, augmentation: Augmentation
    ) -> None:
        self._split, self._augmentation = split, augmentation
        self._width = split.images.shape[2]
        #: Whole batches, and the images of the smaller one after them.
        self.steps, self.rest = divmod(images, batch_size)
        self._whole = _Batches(self.steps, batch_size, split.labels.device)
        self._last = _Batches(1 if self.rest else 0, self.rest, split.labels.device)

    def draw(self, order: Tensor, generator: torch.Generator) -> None:
        """Fill the pass.

        Args:
            order: numbers of the images, int64, on the CPU.
            generator: a CPU generator; it decides the changes.
        """
        whole = order[: len(order) - self.rest]
        for batches, part in ((self._whole, whole), (self._last, order[len(whole) :])):
            shifts = [
                draw(batches.size, self._width, self._augmentation, generator)
                for _ in range(batches.steps)
            ]
            batches.fill(part, shifts)

    def whole(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of whole batch number `at`, an int64 tensor of one element."""
        return self._of(*self._whole.pick(at))

    def last(self) -> tuple[Tensor, Tensor]:
        """Images and labels of the smaller last batch."""
        return self._of(*self._last.pick(torch.zeros_like(self._last.order[0, :1])))

    def _of(self, index: Tensor, shifts: Shifts | None) -> tuple[Tensor, Tensor]:
        return shifted(self._split.images, index, shifts), self._split.labels[index]


class _Batches:
    """`steps` batches of `size` images: their numbers and shifts, where they stay on the device."""

    def __init__(self, steps: int, size: int, device: torch.device) -> None:
        self.steps, self.size = steps, size
        self.order = torch.zeros(steps, size, dtype=torch.int64, device=device)
        self._shifts: list[Tensor] = []

    def fill(self, order: Tensor, shifts: list[Shifts | None]) -> None:
        """Write a new pass in the place of the last one."""
        self.order.copy_(order.view(self.steps, self.size))
        drawn = [shift.tensors() for shift in shifts if shift is not None]
        stacked = [torch.stack(column) for column in zip(*drawn, strict=True)]
        if not self._shifts:
            self._shifts = [column.to(self.order.device) for column in stacked]
        for there, column in zip(self._shifts, stacked, strict=True):
            there.copy_(column)

    def pick(self, at: Tensor) -> tuple[Tensor, Shifts | None]:
        """Numbers and shifts of batch `at`."""
        shifts = [column.index_select(0, at)[0] for column in self._shifts]
        return self.order.index_select(0, at)[0], Shifts(*shifts) if shifts else None
