"""Images that lie in memory as pixels, behind the interface of those that are encoded."""

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

    def read(self, index: int) -> bytes:
        """The image as PGM or PPM, which is a header and the pixels."""
        pixels = self.pixels[index]
        kind = "P5" if pixels.ndim == 2 else "P6"
        return f"{kind} {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + pixels.tobytes()

    def where(self, index: int) -> str:
        """The place, and the image's number from 0."""
        return f"{self.place}, image {index}"

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """The pixels."""
        yield self.pixels.tobytes()
