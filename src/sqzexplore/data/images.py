"""A data set in memory: decoded once, cached on disk, kept as bytes on the device."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import numpy as np
import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..augment import Augmentation
from ..errors import UserError
from ..files import write_atomically
from .decode import fit, open_image
from .sources import Part, Source

#: Written into the cache's names; changes when the same source would decode to other pixels.
_DECODER = 1


@dataclass(frozen=True)
class Split:
    """`images`: N x H x W x C uint8; `labels`: N int64; on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images numbered `order`, a batch at a time."""
        for index in order.split(batch_size):
            index = index.to(self.labels.device)
            yield self.images[index], self.labels[index]

    def to(self, device: torch.device) -> Split:
        """The split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """A data set ready to train on. `mean` and `std`: C float32, of the training pixels, 0..255."""

    name: str
    sha256: str
    classes: tuple[str, ...]
    image_size: int
    train: Split
    validation: Split
    test: Split
    mean: Tensor
    std: Tensor

    @property
    def augmentation(self) -> Augmentation:
        """What suits the images: mirroring makes other signs of digits, not of photographs."""
        return "shift" if self.name == "digits" else "shift_flip"

    @property
    def description(self) -> str:
        """Name and size, in a line."""
        return f"{self.name} at {self.image_size}x{self.image_size}"

    @property
    def channels(self) -> int:
        """Channels of an image: 1 or 3."""
        return len(self.mean)

    def to(self, device: torch.device) -> ImageData:
        """The data on `device`."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("train", "validation", "test", "mean", "std")
        }
        return replace(self, **moved)


def load(source: Source, image_size: int) -> ImageData:
    """The images of `source`, decoded, `image_size` pixels a side.

    Decoded at most once: the pixels are kept in the user's cache folder, under the checksum of
    the source, and checked when they are read. Several processes may ask at once. Where the
    folder cannot be written, a warning says so and nothing is kept.

    Raises:
        UserError: an image is damaged, or too small; the message names the file.
    """
    if source.name == "digits":
        tensors = _decode(source, image_size)
    else:
        tensors = _cached(source, image_size)
    pixels = tensors["train.images"]
    count = torch.stack(
        [pixels[..., c].flatten().bincount(minlength=256) for c in range(pixels.shape[-1])]
    ).double()
    levels = torch.arange(256, dtype=torch.float64)
    mean = (count @ levels) / count.sum(1)
    variance = (count @ levels**2) / count.sum(1) - mean**2
    train, validation, test = (
        Split(tensors[f"{split}.images"], tensors[f"{split}.labels"])
        for split in ("train", "validation", "test")
    )
    return ImageData(
        name=source.name,
        sha256=source.sha256,
        classes=source.classes,
        image_size=image_size,
        train=train,
        validation=validation,
        test=test,
        mean=mean.float(),
        std=variance.sqrt().clamp(min=1.0).float(),
    )


def _cached(source: Source, image_size: int) -> dict[str, Tensor]:
    folder = user_cache_path("sqzexplore") / "images"
    path = folder / f"{source.name}-{source.sha256}-{image_size}-{_DECODER}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            tensors = _read(path)
            if tensors is None:
                tensors = _decode(source, image_size)
                _write(path, tensors)
        return tensors
    except OSError as error:
        warnings.warn(f"{folder}: decoded images are not kept ({error.strerror})", stacklevel=2)
        return _decode(source, image_size)


def _read(path: Path) -> dict[str, Tensor] | None:
    """What the cache holds, if it is whole."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = file.metadata()["sha256"]
    except (SafetensorError, KeyError, TypeError, OSError):
        return None
    return tensors if _checksum(tensors) == expected else None


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    write_atomically(path, save(tensors, {"sha256": _checksum(tensors)}))


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _decode(source: Source, image_size: int) -> dict[str, Tensor]:
    tensors = {}
    shapes: dict[tuple[int, int], str] = {}
    for split in ("train", "validation", "test"):
        part: Part = getattr(source, split)
        tensors[f"{split}.images"] = _decode_part(part, source.channels, image_size, shapes)
        tensors[f"{split}.labels"] = torch.from_numpy(part.labels.astype(np.int64))
    return tensors


def _decode_part(
    part: Part, channels: int, size: int, shapes: dict[tuple[int, int], str]
) -> Tensor:
    pixels = np.empty((len(part), size, size, channels), dtype=np.uint8)

    def decode(number: int) -> tuple[tuple[int, int], str]:
        where = part.where(number)
        image = open_image(part.read(number), where, channels)
        pixels[number] = fit(image, size)
        return image.size, where

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside of Python's lock
        for shape, where in pool.map(decode, range(len(part))):
            if shape not in shapes:
                shapes[shape] = where
                _check_sizes(shapes, size)
    return torch.from_numpy(pixels)


def _check_sizes(shapes: dict[tuple[int, int], str], size: int) -> None:
    """Images of one size may be enlarged together; one small image among larger is a mistake."""
    if len(shapes) == 1:
        return
    for (wide, high), where in shapes.items():
        if min(wide, high) < size:
            other = next(shape for shape in shapes if shape != (wide, high))
            raise UserError(
                f"{where}: found an image of {wide}x{high} pixels where others have "
                f"{other[0]}x{other[1]}, expected all of one size, or all of at least {size} "
                "a side (image_size)"
            )
