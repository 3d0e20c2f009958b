"""A stratified subset of Fashion-MNIST as a source; README.md beside it is its data card."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

from ...errors import UserError
from ..idx import open_idx
from ..source import Source

#: The class of each label, in the original's words.
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
#: SHA-256 of the packed files, as `make` writes them.
PACKED = {
    "train-images-idx3-ubyte.gz": (
        "1be9f4f9ca121046ad2b6998c458a91761c80224e633f037e5be07be9d7c0eff"
    ),
    "train-labels-idx1-ubyte.gz": (
        "35917fb32c98aba39373314c19bc588990c3f49a50ded860d129533eb18d4f90"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "7e07494f5aa9ac5b97eadb29b11e3b1b7ae07ae31ca430d60c72351b81135ce8"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "95ad398cc7768516c905b20cc14cb75da9383cd8d4d1b97c4f8cb9c3a8a5f453"
    ),
}
FOLDER = Path(__file__).parent


@cache
def fashion_source() -> Source:
    """12,000 of Fashion-MNIST's 28x28 grey photographs of clothes, ten classes of equal size.

    7,200 to train, 800 to validate, 4,000 to test, stratified; one test image is 0.025 percentage
    points.

    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms, arXiv:1708.07747, 2017; MIT licence, (c) 2017 Zalando SE.
    """
    return fashion_in(FOLDER)


def fashion_in(folder: Path) -> Source:
    """The set of the four packed files in `folder`.

    Raises:
        UserError: a file is missing or is not what it was when it was packed.
    """
    for name, expected in PACKED.items():
        _check(folder / name, expected)
    return replace(
        open_idx(folder), name="fashion", classes=CLASSES, augmentation="shift_flip", cached=False
    )


def _check(file: Path, expected: str) -> None:
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}), expected a part of the package; install "
            "sqzexplore again"
        ) from None
    if found != expected:
        raise UserError(
            f"{file}: found SHA-256 {found}, expected {expected}; the file is damaged: install "
            "sqzexplore again"
        )
