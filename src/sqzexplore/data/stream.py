"""A split that is read while training: decoded and cropped, by worker processes where there are
cores for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import joblib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from .augment import draw, shifted
from .decode import fit, open_image
from .names import Augmentation
from .source import Part

_CPU = torch.device("cpu")
_MOST_WORKERS = 16
#: Random resized crop: share of the image's area, and width over height (Szegedy et al., 2015).
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclass(frozen=True)
class StreamedSplit:
    """Images of `part`, cut to `size` pixels; they reach `device` as bytes, a batch at a time."""

    part: Part
    channels: int
    size: int
    device: torch.device = _CPU

    def __len__(self) -> int:
        return len(self.part)

    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """The classes that have any images, by number, and how many each has."""
        return np.unique(self.part.labels, return_counts=True)

    def to(self, device: torch.device) -> StreamedSplit:
        """The same split, for `device`."""
        return replace(self, device=device)

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        augmentation: Augmentation = "none",
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Split.batches`; `crop_flip` is done in decoding, what else on the device.

        The same images come with any number of worker processes.
        """
        crop = augmentation == "crop_flip"
        seed = int(torch.randint(2**31, (1,), generator=generator)) if crop else 0
        loader = DataLoader(
            _Images(self.part, self.channels, self.size, crop, seed),
            batch_sampler=[index.tolist() for index in order.split(batch_size)],
            num_workers=_workers(self.device),
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
        )
        for images, labels, problem in loader:
            if problem:
                raise UserError(problem)
            images = images.to(self.device, non_blocking=True)
            if not crop and generator is not None:
                shifts = draw(len(images), self.size, augmentation, generator)
                every = torch.arange(len(images), device=self.device)
                images = shifted(images, every, shifts and shifts.to(self.device))
            yield images, labels.to(self.device, non_blocking=True)


def _workers(device: torch.device) -> int:
    """Processes that decode: as many as the process may use cores, by its affinity and its
    container's limit. A training on the CPU shares its cores with others: it takes no more than it
    has threads, and with one thread it decodes by itself.
    """
    cores = min(_MOST_WORKERS, joblib.cpu_count())
    if device.type != "cpu":
        return cores
    threads = torch.get_num_threads()
    return min(cores, threads) if threads > 1 else 0


class _Images(Dataset[tuple[np.ndarray, int, str]]):
    """Decoded images with label; or, because an exception of a worker loses its words, a problem.

    What is random follows from the seed and the image's number, not from who decodes it.
    """

    def __init__(self, part: Part, channels: int, size: int, crop: bool, seed: int) -> None:
        self.part, self.channels, self.size = part, channels, size
        self.crop, self.seed = crop, seed

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int, str]:
        label = int(self.part.labels[number])
        try:
            image = open_image(self.part.read(number), self.part.where(number), self.channels)
        except UserError as error:
            return np.zeros((self.size, self.size, self.channels), np.uint8), label, str(error)
        if self.crop:
            image = _random_crop(image, self.size, np.random.default_rng((self.seed, number)))
        return fit(image, self.size), label, ""


def _random_crop(image: Image.Image, size: int, random: np.random.Generator) -> Image.Image:
    """A random part of the image, resized to size x size, mirrored half of the time."""
    wide, high = image.size
    area = wide * high * random.uniform(*_AREA)
    ratio = np.exp(random.uniform(*np.log(_RATIO)))
    width = min(wide, max(1, round(float(np.sqrt(area * ratio)))))
    height = min(high, max(1, round(float(np.sqrt(area / ratio)))))
    left, top = random.integers(wide - width + 1), random.integers(high - height + 1)
    box = (int(left), int(top), int(left + width), int(top + height))
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def _collate(items: list[tuple[np.ndarray, int, str]]) -> tuple[Tensor, Tensor, str]:
    images, labels, problems = zip(*items, strict=True)
    problem = next(filter(None, problems), "")
    return torch.from_numpy(np.stack(images)), torch.tensor(labels), problem
