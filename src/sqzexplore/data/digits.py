"""scikit-learn's handwritten digits as a source: no file, no download."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from .sources import SPLIT_SEED, Part, Source


class DigitImages:
    """The digits, encoded as 8x8 grey images when they are asked for."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> bytes:
        """The image as PGM, which is a header and the pixels."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels[index]).save(buffer, "ppm")
        return buffer.getvalue()

    def where(self, index: int) -> str:
        """Its number."""
        return f"digits, image {index}"

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """The pixels."""
        yield self.pixels.tobytes()


def digits_source() -> Source:
    """scikit-learn's handwritten digits: 1,797 real 8x8 grey images by 13 writers, ten classes.

    Split 60/15/25 per cent by class (stratified): 1,077 to train, 270 to validate, 450 to test.
    One test image is 0.22 percentage points.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test
    part), as `sklearn.datasets.load_digits` ships it.
    """
    pixels, labels = load_digits(return_X_y=True)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(
        rest, test_size=0.2, stratify=labels[rest], random_state=SPLIT_SEED
    )
    whole = Part(DigitImages(pixels), np.arange(len(labels)), labels.astype(np.int64))
    return Source(
        "digits",
        tuple("0123456789"),
        1,
        whole.take(train),
        whole.take(validation),
        whole.take(test),
        stored_bytes=whole.labels.size * 64,
    )
