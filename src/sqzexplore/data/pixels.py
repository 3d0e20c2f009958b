"""Images that lie in memory as pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class PixelImages:
    """`pixels`: N x H x W (grey) or N x H x W x 3 uint8; `place` is what messages call the set."""

    def __init__(self, pixels: NDArray[np.uint8], place: str) -> None:
        self.pixels, self.place = pixels, place

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Its pixels."""
        return self.pixels[index]

    def where(self, index: int) -> str:
        """The place, and the image's number from 0."""
        return f"{self.place}, image {index}"

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """The pixels."""
        yield self.pixels.tobytes()
