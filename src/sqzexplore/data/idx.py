"""IDX files, the format of MNIST: a header, then the array's unsigned bytes; gzip-packed or not.

Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998, "File formats".
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .decode import channels_of
from .pixels import PixelImages
from .source import SPLIT_NAMES, Part, Source, assemble

_SPLITS = SPLIT_NAMES | {"t10k": "test"}
_NAME = re.compile(
    rf"(?P<set>.*[-_.])?(?P<split>{'|'.join(_SPLITS)})[-_](?P<what>images|labels)"
    r"[-.]idx\d-ubyte(\.gz)?",
    re.IGNORECASE,
)
_EXPECTED = "train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz]"
_UNSIGNED_BYTES = 0x08
_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_GZIP = b"\x1f\x8b"


class IdxImages(PixelImages):
    """The images of one file, unpacked in memory."""

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """Shape and pixels, so that a packed file and an unpacked one are the same images."""
        yield str(self.pixels.shape).encode()
        yield from super().fingerprint(contents)


def is_idx(file: Path) -> bool:
    """Whether the name is one that MNIST's files, or those of a set in its form, bear."""
    return _NAME.fullmatch(file.name) is not None


def open_idx(folder: Path) -> Source:
    """The set of the IDX files in `folder`: images and labels of train, and perhaps of test.

    Their names are MNIST's, with a dot or a hyphen before `idx`, packed or not, behind any prefix
    (`emnist-letters-train-images-idx3-ubyte.gz`). Images are N x H x W (grey) or N x H x W x 3.
    Labels count from 0, or from 1 as those of EMNIST's letters do; a class bears its label's name.

    Raises:
        UserError: a file is missing, damaged or no IDX file of unsigned bytes, images and labels
            are not of one number, or labels leave one out.
    """
    files = _by_split(folder)
    if "train" not in files:
        raise UserError(f"{folder}: found the splits {', '.join(files)}, expected train")
    images = {split: _images(pair["images"]) for split, pair in files.items()}
    labels = {
        split: _labels(pair["labels"], pair["images"], len(images[split]))
        for split, pair in files.items()
    }
    classes = _classes(labels["train"], files["train"]["labels"])
    parts = {}
    for split, stored in images.items():
        _check_shape(stored, images["train"])
        _check_labels(labels[split], classes, files[split]["labels"])
        numbers = labels[split].astype(np.int64) - int(classes[0])
        parts[split] = Part(stored, np.arange(len(stored)), numbers)
    size = sum(stored.pixels.nbytes for stored in images.values())
    source = assemble(folder.resolve().name, classes, channels_of, parts, size, folder)
    return replace(source, augmentation="shift")


def read_idx(file: Path) -> NDArray[np.uint8]:
    """The array in `file`, read-only, in the shape that its header says.

    Raises:
        UserError: the file cannot be read or unpacked, is of another length than its header says,
            or holds something else than unsigned bytes in 1 to 4 dimensions, or none of them.
    """
    content = _unpacked(file)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UserError(
            f"{file}: found {content[:4].hex(' ') or 'nothing'} at its beginning, expected "
            "00 00 08 (IDX, unsigned bytes) or 1f 8b (gzip)"
        )
    kind, dimensions = content[2], content[3]
    if kind != _UNSIGNED_BYTES:
        raise UserError(
            f"{file}: found the type {kind:#04x} ({_TYPES.get(kind, 'unknown')}), expected "
            f"{_UNSIGNED_BYTES:#04x} (unsigned bytes)"
        )
    start = 4 + 4 * dimensions
    if not 1 <= dimensions <= 4 or len(content) < start:
        raise UserError(
            f"{file}: found {dimensions} dimensions in {len(content)} bytes, expected 1 to 4, of "
            "four bytes each"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if 0 in shape:
        raise UserError(f"{file}: found an array of {_times(shape)}, expected images or labels")
    if len(content) != start + math.prod(shape):
        raise UserError(
            f"{file}: found {len(content)} bytes, expected {start + math.prod(shape)}: {start} of "
            f"header, and {_times(shape)}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _unpacked(file: Path) -> bytes:
    """The file's bytes; whether they are packed is seen from them, as browsers unpack in silence
    and leave the name.
    """
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{file}: found {len(content)} bytes that are no whole gzip file ({reason})"
        ) from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def _by_split(folder: Path) -> dict[str, dict[str, Path]]:
    """The files of each split by what they hold; where a file lies packed and unpacked, as
    torchvision leaves them, the unpacked one.
    """
    found: dict[tuple[str, str, str], Path] = {}
    for file in sorted(folder.iterdir(), key=lambda file: (len(file.name), file.name)):
        if name := _NAME.fullmatch(file.name):
            key = (name["set"] or "", _SPLITS[name["split"].lower()], name["what"].lower())
            first = found.setdefault(key, file)
            if file.name not in (first.name, f"{first.name}.gz"):
                raise UserError(f"{folder}: found {first.name} and {file.name}, expected one")
    sets = sorted({key[0] for key in found})
    if len(sets) > 1:
        raise UserError(
            f"{folder}: found the files of {len(sets)} sets ({', '.join(map(repr, sets[:10]))} "
            "before the split's name), expected those of one; give each set a folder of its own"
        )
    splits: dict[str, dict[str, Path]] = {}
    for (_, split, what), file in found.items():
        splits.setdefault(split, {})[what] = file
    for files in splits.values():
        if len(files) < 2:
            (what, file), *_ = files.items()
            other = "labels" if what == "images" else "images"
            raise UserError(f"{file}: found no {other} beside it, expected files as {_EXPECTED}")
    return splits


def _images(file: Path) -> IdxImages:
    pixels = read_idx(file)
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)):
        raise UserError(
            f"{file}: found an array of {_times(pixels.shape)}, expected images: N x height x "
            "width, or N x height x width x 3"
        )
    return IdxImages(pixels, str(file))


def _labels(file: Path, images: Path, count: int) -> NDArray[np.uint8]:
    labels = read_idx(file)
    if labels.shape != (count,):
        raise UserError(
            f"{file}: found an array of {_times(labels.shape)}, expected {count} labels, one for "
            f"each image of {images.name}"
        )
    return labels


def _classes(labels: NDArray[np.uint8], file: Path) -> tuple[str, ...]:
    """The name of every label, which is its number."""
    present = np.unique(labels)
    first = min(int(present[0]), 1)
    expected = np.arange(first, first + len(present))
    if not np.array_equal(present, expected):
        missing = expected[present != expected][0]
        raise UserError(
            f"{file}: found {len(present)} labels from {present[0]} to {present[-1]} and none that "
            f"is {missing}, expected consecutive ones from 0 (or 1)"
        )
    return tuple(map(str, present))


def _check_shape(stored: IdxImages, train: IdxImages) -> None:
    if stored.pixels.shape[1:] != train.pixels.shape[1:]:
        raise UserError(
            f"{stored.place}: found images of {_times(stored.pixels.shape[1:])}, expected "
            f"{_times(train.pixels.shape[1:])} as in {train.place}"
        )


def _check_labels(labels: NDArray[np.uint8], classes: tuple[str, ...], file: Path) -> None:
    wrong = np.flatnonzero((labels < int(classes[0])) | (labels > int(classes[-1])))
    if len(wrong):
        raise UserError(
            f"{file}, row {wrong[0]}: found the label {labels[wrong[0]]}, expected {classes[0]} "
            f"to {classes[-1]} as in train"
        )


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
