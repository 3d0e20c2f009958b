"""Encoded images to arrays of pixels."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UserError
from .source import Part

#: An image with a shorter side, or a longer one, is a broken download or no photograph.
_SMALLEST, _LARGEST = 4, 20_000


def open_image(encoded: bytes, where: str, channels: int) -> Image.Image:
    """The decoded image in colour (3 channels) or grey (1).

    Raises:
        UserError: the bytes are no image, or its size is out of range.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(encoded))
        if not _SMALLEST <= min(image.size) <= max(image.size) <= _LARGEST:
            raise UserError(
                f"{where}: found an image of {image.width}x{image.height} pixels, expected "
                f"{_SMALLEST} to {_LARGEST} a side"
            )
        return image.convert("L" if channels == 1 else "RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = " ".join(str(error).split())[:100].replace(repr(io.BytesIO()), "")
        if "cannot identify" in reason:
            reason = "unknown format"
        raise UserError(
            f"{where}: found {len(encoded)} bytes that are no whole image ({reason})"
        ) from None


def fit(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """size x size x channels pixels: the shorter side resized to `size`, the centre cut out."""
    if image.size != (size, size):
        scale = size / min(image.size)
        wide, high = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
        left, top = (wide - size) // 2, (high - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, dtype=np.uint8).reshape(size, size, -1)


def channels_of(part: Part) -> int:
    """1 if the first image is grey, else 3."""
    encoded, where = part.read(0), part.where(0)
    open_image(encoded, where, 3)
    return 1 if Image.open(io.BytesIO(encoded)).mode in ("1", "L", "LA", "I", "I;16", "F") else 3
