"""A data set in memory: decoded once, cached on disk, kept as bytes on the device."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import filelock
import joblib
import numpy as np
import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import UserError
from ..files import write_atomically
from .decode import fit, open_image
from .names import Augmentation, printable
from .source import Part, Source
from .stream import StreamedSplit

#: Pixels of sets up to this size stay in memory, on the device.
RESIDENT_BYTES = 4 * 2**30
SPLITS = ("train", "validation", "test")
#: Images that a thread decodes at a time.
_BLOCK = 64
#: Mean and standard deviation of photographs, 0..255: the field's constants for ImageNet.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
#: Written into the cache's names; changes when the same source would decode to other pixels.
_DECODER = 3


@dataclass(frozen=True)
class Split:
    """`images`: N x H x W x C uint8; `labels`: N int64; on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images numbered `order` as they are, a batch at a time, with their labels.

        Args:
            order: numbers of images, int64, on the CPU.
            batch_size: images a batch.
        """
        for index in order.to(self.labels.device).split(batch_size):
            yield self.images[index], self.labels[index]

    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """The classes that have any images, by number, and how many each has."""
        return np.unique(self.labels.cpu().numpy(), return_counts=True)

    def to(self, device: torch.device) -> Split:
        """The split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """A data set ready to train on.

    `mean` and `std`: C float32, of the training pixels, 0..255. `augmentation` suits the images;
    `remarks` say what of the files was not taken.
    """

    name: str
    sha256: str
    classes: tuple[str, ...]
    image_size: int
    augmentation: Augmentation
    train: Split | StreamedSplit
    validation: Split | StreamedSplit
    test: Split | StreamedSplit
    mean: Tensor
    std: Tensor
    remarks: tuple[str, ...] = ()

    @cached_property
    def provenance(self) -> dict[str, object]:
        """What `provenance.json` says of the images: their name, checksum, number of each class in
        each split, and what of the files was passed over."""
        counts = {}
        for split in SPLITS:
            labels, images = getattr(self, split).labelled()
            names = (printable(self.classes[int(label)]) for label in labels)
            counts[split] = dict(zip(names, images.tolist(), strict=True))
        return {
            "name": self.name,
            "sha256": self.sha256,
            "images": counts,
            "remarks": list(self.remarks),
        }

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


def load(source: Source, image_size: int, augmentation: Augmentation | None = None) -> ImageData:
    """The images of `source`, `image_size` pixels a side.

    Up to 4 GiB of pixels are decoded once and stay in memory; they are kept in the user's cache
    folder, under the checksum of the source, and checked when they are read. Several processes may
    ask at once. Where the folder cannot be written, a warning says so and nothing is kept. Larger
    sets, and all that are augmented by `crop_flip`, are read while training.

    Args:
        source: what `open_data` found.
        image_size: the shorter side is resized to it, the centre cut out.
        augmentation: how training images are changed; None is what suits the data: `shift` for
            digits and IDX files, whose mirror images are other signs, `shift_flip` for fashion and
            photographs in memory, `crop_flip` for larger sets.

    Raises:
        UserError: an image is damaged, or too small; the message names the file.
    """
    count = len(source.train) + len(source.validation) + len(source.test)
    large = count * image_size**2 * source.channels > RESIDENT_BYTES
    if augmentation is None:
        mirrored = source.augmentation == "shift_flip"
        augmentation = "crop_flip" if large and mirrored else source.augmentation
    parts: dict[str, Split | StreamedSplit]
    if large or augmentation == "crop_flip":
        parts = {
            split: StreamedSplit(getattr(source, split), source.channels, image_size)
            for split in SPLITS
        }
        mean, std = imagenet_moments(source.channels)
    else:
        tensors = (_cached if source.cached else _kept)(source, image_size)
        parts = {
            split: Split(tensors[f"{split}.images"], tensors[f"{split}.labels"]) for split in SPLITS
        }
        _check_differ(tensors["train.images"], source.name)
        mean, std = _moments(tensors["train.images"])
    return ImageData(
        name=source.name,
        sha256=source.sha256,
        classes=source.classes,
        image_size=image_size,
        augmentation=augmentation,
        mean=mean,
        std=std,
        remarks=source.remarks,
        **parts,
    )


def imagenet_moments(channels: int) -> tuple[Tensor, Tensor]:
    """`IMAGENET` for images in colour (3 channels) or grey (1)."""
    mean, std = (torch.tensor(values) for values in IMAGENET)
    return (mean, std) if channels == 3 else (mean.mean(0, True), std.mean(0, True))


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, from its histogram."""
    channels = images.flatten(0, 2).unbind(1)
    count = torch.stack([channel.bincount(minlength=256) for channel in channels]).double()
    levels = torch.arange(256, dtype=torch.float64)
    mean = (count @ levels) / count.sum(1)
    variance = (count @ levels**2) / count.sum(1) - mean**2
    return mean.float(), variance.sqrt().clamp(min=1.0).float()


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


@lru_cache(maxsize=1)
def _kept(source: Source, image_size: int) -> dict[str, Tensor]:
    """Of images that are no files and decoded too fast to be worth one; nobody writes to them."""
    return _decode(source, image_size)


def _decode(source: Source, image_size: int) -> dict[str, Tensor]:
    tensors = {}
    smaller: list[str] = []
    for split in SPLITS:
        part: Part = getattr(source, split)
        tensors[f"{split}.images"] = _decode_part(part, source.channels, image_size, smaller)
        tensors[f"{split}.labels"] = torch.from_numpy(part.labels.astype(np.int64))
    _warn_of_small(smaller, sum(source.sizes), image_size)
    return tensors


def _decode_part(part: Part, channels: int, size: int, smaller: list[str]) -> Tensor:
    pixels = np.empty((len(part), size, size, channels), dtype=np.uint8)

    def decode(numbers: range) -> list[str]:
        small = []
        for number in numbers:
            where = part.where(number)
            image = open_image(part.read(number), where, channels)
            pixels[number] = fit(image, size)
            if min(image.size) < size:
                small.append(where)
        return small

    numbers = range(len(part))
    blocks = (numbers[start : start + _BLOCK] for start in numbers[::_BLOCK])
    with ThreadPoolExecutor(joblib.cpu_count()) as pool:  # Pillow decodes outside of Python's lock
        for small in pool.map(decode, blocks):
            smaller += small
    return torch.from_numpy(pixels)


def _warn_of_small(smaller: list[str], of: int, size: int) -> None:
    """Images of one size may be enlarged together; a few among larger ones are said."""
    if 0 < len(smaller) < of:
        warnings.warn(
            f"{len(smaller):,} of {of:,} images have a side below {size} pixels and were enlarged: "
            f"{smaller[0]}",
            stacklevel=2,
        )


def _check_differ(images: Tensor, name: str) -> None:
    if len(images) > 1 and bool((images == images[:1]).all()):
        raise UserError(
            f"{name}: found {len(images):,} training images that are all alike, expected images "
            "that differ"
        )
