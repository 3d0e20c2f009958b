"""Stored images to arrays of pixels: the one decoder of all sources."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import UserError
from .source import Part

#: An image with a shorter side, or a longer one, is a broken download or no photograph.
_SMALLEST, _LARGEST = 4, 20_000
#: Pillow's modes without colour.
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")


def open_image(stored: bytes | NDArray[np.uint8], where: str, channels: int) -> Image.Image:
    """The decoded image in colour (3 channels) or grey (1), 8 bits each, upright as its EXIF says.

    16-bit grey is scaled to 8; what is transparent shows white.

    Args:
        stored: as `Part.read` gives it: encoded, or pixels (H x W or H x W x 3).
        where: what an error message calls the image.
        channels: 1 or 3.

    Raises:
        UserError: the bytes are no image, its size is out of range, or its type has no range.
    """
    try:
        image = _opened(stored)
        if not _SMALLEST <= min(image.size) <= max(image.size) <= _LARGEST:
            raise UserError(
                f"{where}: found an image of {image.width}x{image.height} pixels, expected "
                f"{_SMALLEST} to {_LARGEST} a side"
            )
        image = ImageOps.exif_transpose(_eight_bits(image, where))
        return _on_white(image).convert("L" if channels == 1 else "RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = " ".join(str(error).split())[:100].replace(repr(io.BytesIO()), "")
        if "cannot identify" in reason:
            reason = "unknown format"
        raise UserError(
            f"{where}: found {len(stored)} bytes that are no whole image ({reason})"
        ) from None


def _opened(stored: bytes | NDArray[np.uint8]) -> Image.Image:
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored)
    return Image.open(io.BytesIO(stored))


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """Pillow's own conversion cuts 16-bit values off at 255."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if sixteen:
        levels = np.asarray(image).astype(np.float64)
        scaled = Image.fromarray(np.rint(levels / 257).clip(0, 255).astype(np.uint8))
        scaled.info, scaled.format = image.info, image.format
        return scaled
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise UserError(
            f"{where}: found pixels that are {kind}, whose type does not say what is white; "
            "expected 8 or 16 bits"
        )
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, image)


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
    """3 if any image has colour, else 1; decided by the headers, the first that has ends it."""
    open_image(part.read(0), part.where(0), 3)
    for number in range(len(part)):
        try:
            mode = _opened(part.read(number)).mode
        except (OSError, Image.DecompressionBombError):
            continue  # said with its name when it is decoded
        if mode not in _GREY:
            return 3
    return 1


def suffixes() -> frozenset[str]:
    """The endings of files that Pillow opens, with their dot."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in Image.OPEN)
