"""Where images lie: the names that `data:` takes, and the splits, labels and bytes behind them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from ..augment import Augmentation
from ..errors import UserError, nearest, shown

#: Seed of every split that a set does not bring itself. It is part of the data set, not of an
#: experiment: it never follows a run's seed.
SPLIT_SEED = 0
#: Share of the training images that validate, and of an unsplit set that are kept for the test.
_VALIDATION, _TEST = 0.1, 0.2
#: Sets up to this size are identified by every byte; above it, by the files' names and sizes.
_HASHED_BYTES = 4 * 2**30

BUILT_IN = ("digits", "fashion")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Stored(Protocol):
    """Images of one split as they are stored, encoded; the order is fixed."""

    def __len__(self) -> int:
        """How many images."""

    def read(self, index: int) -> bytes:
        """The encoded image."""

    def where(self, index: int) -> str:
        """The file, and the place in it, that an error message names."""

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """What tells this split from another: with all `contents`, or names and sizes alone."""


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

    def read(self, number: int) -> bytes:
        """The encoded image `number` of this split."""
        return self.stored.read(int(self.index[number]))

    def where(self, number: int) -> str:
        """Where image `number` lies."""
        return self.stored.where(int(self.index[number]))


@dataclass(frozen=True)
class Source:
    """A data set that was found. `name` is no path; `classes` are the labels' names in order.

    `augmentation` suits its images while they are small, `image_size` is the side to train at
    where none is asked for (None: their own, if small), and `cached` whether decoded images are
    worth a file.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    train: Part
    validation: Part
    test: Part
    stored_bytes: int
    augmentation: Augmentation = "shift_flip"
    image_size: int | None = None
    cached: bool = True

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
        """Name, checksum and split sizes, in a line."""
        sizes = (f"{len(part):,}" for part in (self.train, self.validation, self.test))
        return f"{self.name} ({'/'.join(sizes)} images to train/validate/test)"


def check_data_name(text: str) -> None:
    """Refuse what cannot name a data set, before anything is looked up.

    Raises:
        UserError: neither a built-in set, nor a path, nor a Hugging Face name.
    """
    if text in BUILT_IN or any(sign in text for sign in "/$~.\\"):
        return
    raise UserError(
        f"found {shown(text)}, expected {', '.join(BUILT_IN)}, a folder (with a '/' or as "
        f"'${{VARIABLE}}') or the 'owner/name' of a Hugging Face data set{nearest(text, BUILT_IN)}"
    )


def open_data(text: str) -> Source:
    """The data set that `text` names.

    Args:
        text: `digits` or `fashion`; or a folder of image parquet files, IDX files or class
            folders, in which `${NAME}` stands for an environment variable and `~` for the home
            folder; or the `owner/name` of a Hugging Face data set.

    Raises:
        UserError: there is no such set, or it is not usable; the message names the file.
    """
    check_data_name(text)
    if text == "digits":
        from .digits import digits_source

        return digits_source()
    if text == "fashion":
        from .fashion import fashion_source

        return fashion_source()
    path = Path(_expand(text)).expanduser()
    if path.is_dir():
        return _open_folder(path)
    if path.exists():
        raise UserError(f"{path}: found a file, expected the folder that holds the images")
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", text) and text[0] != ".":
        from .hub import open_hub

        return open_hub(text)
    raise UserError(f"{path}: no such folder, expected one with images")


def _expand(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not os.environ.get(name):
            raise UserError(
                f"{text}: the environment variable {name} is not set; "
                f"set it to the folder of the images: export {name}=..."
            )
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def _open_folder(path: Path) -> Source:
    from .folders import open_image_folder
    from .idx import is_idx, open_idx
    from .parquet import open_parquet

    if any(path.glob("*.parquet")):
        return open_parquet(path)
    if any(map(is_idx, path.iterdir())):
        return open_idx(path)
    return open_image_folder(path)


def assemble(
    name: str,
    classes: Sequence[str],
    channels: Callable[[Part], int],
    parts: dict[str, Part],
    stored_bytes: int,
    place: object,
) -> Source:
    """A Source from the splits that a set brings; what is missing is carved out, by class.

    `parts` has `train`, or `all` for an unsplit set, and perhaps `validation` and `test`. A set
    whose only held-out split is `validation`, as ImageNet's, is tested on that, and validates on
    a tenth of `train`.

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
    if "all" in parts:
        parts["train"], parts["test"] = _carve(parts.pop("all"), _TEST, "test", place)
    if "train" not in parts:
        raise UserError(f"{place}: found the splits {', '.join(parts)}, expected train")
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    if "test" not in parts:
        parts["train"], parts["test"] = _carve(parts["train"], _TEST, "test", place)
    if "validation" not in parts:
        carved = _carve(parts["train"], _VALIDATION, "validation", place)
        parts["train"], parts["validation"] = carved
    _check_classes(classes, parts["train"], place)
    return Source(
        name,
        tuple(classes),
        channels(parts["train"]),
        parts["train"],
        parts["validation"],
        parts["test"],
        stored_bytes,
    )


def _carve(part: Part, share: float, what: str, place: object) -> tuple[Part, Part]:
    """The rest, and `share` of the images as a split of their own, stratified by class."""
    try:
        rest, carved = train_test_split(
            np.arange(len(part)), test_size=share, stratify=part.labels, random_state=SPLIT_SEED
        )
    except ValueError:
        raise UserError(
            f"{place}: found {len(part)} images of {len(np.unique(part.labels))} classes, "
            f"too few to carve {share:.0%} out as {what}; expected several of each class"
        ) from None
    return part.take(np.sort(rest)), part.take(np.sort(carved))


def _check_classes(classes: Sequence[str], train: Part, place: object) -> None:
    count = np.bincount(train.labels, minlength=len(classes))
    empty = [name for name, number in zip(classes, count, strict=True) if not number]
    if empty:
        raise UserError(
            f"{place}: found no training image of {len(empty)} of the {len(classes)} classes "
            f"({', '.join(empty[:3])}), expected at least one of each"
        )
