"""Where images lie: the names that `data:` takes, and the splits, labels and bytes behind them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .names import Augmentation, printable

#: What a folder, a file or a split of the hub may be called, in any case.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
#: Columns of images and of their labels, as Hugging Face's sets name them.
IMAGES, LABELS = ("image", "img"), ("label", "fine_label", "labels")
#: Seed of every split that a set does not bring itself. It is part of the data set, not of an
#: experiment: it never follows a run's seed.
SPLIT_SEED = 0
#: Share of the training images that validate, and of an unsplit set that are kept for the test.
_VALIDATION, _TEST = 0.1, 0.2
#: Sets up to this size are identified by every byte; above it, by the files' names and sizes.
_HASHED_BYTES = 4 * 2**30


class Stored(Protocol):
    """Images of one split as they are stored; the order is fixed."""

    def __len__(self) -> int:
        """How many images."""

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The encoded image, or its pixels (H x W or H x W x 3)."""

    def where(self, index: int) -> str:
        """The file, and the place in it, that an error message names."""

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """What tells this split from another: with all `contents`, or names and sizes alone."""


def split_named(name: str) -> str | None:
    """The split that a name means: train, validation or test; None where it means none."""
    return SPLIT_NAMES.get(name.lower())


@dataclass(frozen=True)
class Part:
    """One split: some of the images of `stored`, with a label each."""

    stored: Stored
    index: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, chosen: NDArray[np.int64]) -> Part:
        """Some of the images."""
        return Part(self.stored, self.index[chosen], self.labels[chosen])

    def read(self, number: int) -> bytes | NDArray[np.uint8]:
        """Image `number` of this split, encoded, or its pixels (H x W or H x W x 3)."""
        return self.stored.read(int(self.index[number]))

    def where(self, number: int) -> str:
        """Where image `number` lies."""
        return self.stored.where(int(self.index[number]))


@dataclass(frozen=True)
class Source:
    """A data set that was found. `name` is no path; `classes` are the labels' names in order.

    `sizes` are the images to train, validate and test; `divide` makes these splits, when one is
    first used. `augmentation` suits the images while they are small, `image_size` is the side to
    train at where none is asked for (None: their own, if small), and `cached` whether decoded
    images are worth a file. `remarks` say what of the files was not taken.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    sizes: tuple[int, int, int]
    divide: Callable[[], Mapping[str, Part]]
    stored_bytes: int
    augmentation: Augmentation = "shift_flip"
    image_size: int | None = None
    cached: bool = True
    remarks: tuple[str, ...] = ()

    @cached_property
    def _parts(self) -> Mapping[str, Part]:
        return self.divide()

    @property
    def train(self) -> Part:
        """The images to train on."""
        return self._parts["train"]

    @property
    def validation(self) -> Part:
        """Those that choices are made by."""
        return self._parts["validation"]

    @property
    def test(self) -> Part:
        """Those that are looked at once, in the end."""
        return self._parts["test"]

    @cached_property
    def sha256(self) -> str:
        """Sixteen hexadecimal digits that name the images, their labels and their splits.

        Of every stored byte, or of names and sizes where there are more than 4 GiB.
        """
        digest = hashlib.sha256()
        parts = (self.train, self.validation, self.test)
        contents = self.stored_bytes <= _HASHED_BYTES
        for stored in {id(part.stored): part.stored for part in parts}.values():
            for piece in stored.fingerprint(contents):
                digest.update(piece)
        for part in parts:
            digest.update(part.index.tobytes() + part.labels.tobytes())
        return digest.hexdigest()[:16]

    @property
    def description(self) -> str:
        """Name, split sizes and remarks, in a line."""
        sizes = (f"{size:,}" for size in self.sizes)
        text = f"{self.name} ({'/'.join(sizes)} images to train/validate/test)"
        return "; ".join([text, *self.remarks])


def assemble(
    name: str,
    classes: Sequence[str],
    channels: Callable[[Part], int],
    parts: dict[str, Part],
    stored_bytes: int,
    place: object,
    remarks: Sequence[str] = (),
) -> Source:
    """A Source from the splits that a set brings; what is missing is carved out, by class.

    `parts` has `train`, or `all` for an unsplit set, and perhaps `validation` and `test`. What is
    carved out is said in the remarks.

    Raises:
        UserError: a split is empty, there are fewer than two classes, or a class has too few
            images to split.
    """
    if len(classes) < 2:
        raise UserError(
            f"{place}: found {len(classes)} class ({', '.join(classes)}), expected at least 2"
        )
    for split, part in parts.items():
        if not len(part):
            raise UserError(f"{place}: found no image in {split}, expected at least one")
    held = dict(parts)
    if "all" not in held and "train" not in held:
        raise UserError(f"{place}: found the splits {', '.join(parts)}, expected train")
    whole = held.pop("all", None) or held.pop("train")
    lacking = {"test": _TEST, "validation": _VALIDATION}
    carved = {split: share for split, share in lacking.items() if split not in held}
    _check_classes(classes, whole, place)
    sizes, left = {split: len(part) for split, part in held.items()}, len(whole)
    for split, share in carved.items():
        sizes[split] = math.ceil(share * left)
        left -= sizes[split]
        _check_carving(whole, share, sizes[split], split, place, 1 + len(carved))

    def divide() -> dict[str, Part]:
        done, rest = dict(held), whole
        for split, share in carved.items():
            rest, done[split] = _carve(rest, share)
        return {"train": rest, **done}

    return Source(
        printable(name),
        tuple(classes),
        max(map(channels, (whole, *held.values()))),
        (left, sizes["validation"], sizes["test"]),
        divide,
        stored_bytes,
        remarks=(*remarks, *(_carved(split, share) for split, share in carved.items())),
    )


def labelled_part(
    stored: Stored, labels: NDArray[np.int64], split: str
) -> tuple[Part | None, list[str]]:
    """The images of a split that have a label, and what is said of the others: -1 stands for none,
    as in the test split of ImageNet on the hub. No part where none has one."""
    known = np.flatnonzero(labels != -1)
    if len(known) == len(labels):
        return Part(stored, known, labels), []
    remark = f"{split}: {len(labels) - len(known):,} images without a label (-1) are left out"
    return (Part(stored, known, labels[known]) if len(known) else None), [remark]


def _carved(split: str, share: float) -> str:
    return f"{split}: {share:.0%} of the training images, by class, as the set has none"


def _check_carving(
    part: Part, share: float, size: int, what: str, place: object, least: int
) -> None:
    """Each class needs an image in each split that is carved out, and others in the rest: `least`
    in all."""
    _, counts = np.unique(part.labels, return_counts=True)
    if size < len(counts) or counts.min() < least:
        raise UserError(
            f"{place}: found {len(part)} images of {len(counts)} classes, "
            f"too few to carve {share:.0%} out as {what}; expected several of each class"
        )


def _carve(part: Part, share: float) -> tuple[Part, Part]:
    """The rest, and `share` of the images as a split of their own, stratified by class."""
    from sklearn.model_selection import train_test_split

    rest, carved = train_test_split(
        np.arange(len(part)), test_size=share, stratify=part.labels, random_state=SPLIT_SEED
    )
    return part.take(np.sort(rest)), part.take(np.sort(carved))


def _check_classes(classes: Sequence[str], train: Part, place: object) -> None:
    count = np.bincount(train.labels, minlength=len(classes))
    empty = [name for name, number in zip(classes, count, strict=True) if not number]
    if empty:
        raise UserError(
            f"{place}: found no training image of {len(empty)} of the {len(classes)} classes "
            f"({', '.join(empty[:3])}), expected at least one of each"
        )
