"""scikit-learn's handwritten digits as a source: no file, no download."""

from __future__ import annotations

from functools import cache

import numpy as np

from .pixels import PixelImages
from .source import SPLIT_SEED, Part, Source


@cache
def digits_source() -> Source:
    """scikit-learn's handwritten digits: 1,797 real 8x8 grey images by 13 writers, ten classes.

    Split 60/15/25 per cent by class (stratified): 1,077 to train, 270 to validate, 450 to test.
    One test image is 0.22 percentage points.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test
    part), as `sklearn.datasets.load_digits` ships it.
    """
    return Source(
        "digits",
        tuple("0123456789"),
        1,
        (1077, 270, 450),
        _divide,
        stored_bytes=1797 * 8 * 8,
        augmentation="shift",
        image_size=32,
        cached=False,
    )


def _divide() -> dict[str, Part]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    levels, labels = load_digits(return_X_y=True)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(
        rest, test_size=0.2, stratify=labels[rest], random_state=SPLIT_SEED
    )
    pixels = np.rint(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    whole = Part(PixelImages(pixels, "digits"), np.arange(len(labels)), labels.astype(np.int64))
    split = {"train": train, "validation": validation, "test": test}
    return {name: whole.take(index) for name, index in split.items()}
