"""A compressed network as one file: the header as JSON, then the layers, then a checksum.

Behind `MAGIC` stand the version (one byte), the header's length (four bytes, little-endian) and the
header, JSON packed by zlib: the architecture, the notes, and of each tensor its name and shape.
A kernel has its centroids, the code lengths and the code words of its indices and, where weights
are missing, those of the gaps between survivors. Biases and BatchNorm are float32. Everything is
little-endian; the last four bytes are the CRC-32 of all before.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import huffman

MAGIC, VERSION = b"SQZC", 1
#: The longest gap of one symbol; what is longer is skipped in steps of one more.
LONGEST = 254
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Layer:
    """A kernel: `centroids` float32, `index` of each survivor into them, `mask` of the kernel's
    shape that is set where a weight survives."""

    centroids: NDArray[np.float32]
    index: NDArray[np.int64]
    mask: NDArray[np.bool_]

    def weights(self) -> NDArray[np.float32]:
        """The kernel, zero where no weight survives."""
        dense = np.zeros(self.mask.shape, dtype=np.float32)
        dense[self.mask] = self.centroids[self.index]
        return dense


class Damaged(ValueError):
    """The bytes are no whole file of this version."""


def to_bytes(
    layers: Mapping[str, Layer],
    others: Mapping[str, NDArray[np.float32]],
    header: Mapping[str, Any],
) -> tuple[bytes, dict[str, int]]:
    """The file, and the bytes of each layer in it.

    Args:
        layers: the kernels, by name.
        others: what is stored as it is, by name: biases, BatchNorm.
        header: what JSON can hold: the architecture, and notes.
    """
    parts, sizes, kernels = [], {}, {}
    for name, layer in layers.items():
        content, kernels[name] = _packed(layer)
        parts.append(content)
        sizes[name] = len(content)
    plain = {name: list(value.shape) for name, value in others.items()}
    parts += [value.astype(_FLOAT).tobytes() for value in others.values()]
    known = {**header, "kernels": kernels, "plain": plain}
    packed = zlib.compress(json.dumps(known, allow_nan=False).encode(), 9)
    whole = MAGIC + struct.pack("<BI", VERSION, len(packed)) + packed + b"".join(parts)
    return whole + struct.pack("<I", zlib.crc32(whole)), sizes


def from_bytes(
    content: bytes,
) -> tuple[dict[str, Layer], dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Kernels, other tensors and the header of a file.

    Raises:
        Damaged: it is not whole, of another version, or no such file.
    """
    header, offset = read_header(content)
    if zlib.crc32(content[:-4]) != struct.unpack("<I", content[-4:])[0]:
        raise Damaged("the checksum does not fit: the file is damaged or cut off")
    try:
        reader = _Reader(content, offset, len(content) - 4)
        layers = {name: _unpacked(reader, known) for name, known in header.pop("kernels").items()}
        others = {
            name: reader.array(_FLOAT, int(np.prod(shape))).reshape(shape).astype(np.float32)
            for name, shape in header.pop("plain").items()
        }
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise Damaged(f"the layers do not fit the header ({error})") from None
    return layers, others, header


def read_header(content: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the layers begin.

    Raises:
        Damaged: it is not whole, of another version, or no such file.
    """
    if content[:4] != MAGIC or len(content) < 13:
        raise Damaged("no compressed network")
    version, length = struct.unpack("<BI", content[4:9])
    if version != VERSION:
        raise Damaged(f"found version {version} of the format, expected {VERSION}")
    try:
        return json.loads(zlib.decompress(content[9 : 9 + length])), 9 + length
    except (zlib.error, ValueError):
        raise Damaged("the header cannot be read: the file is damaged or cut off") from None


def _packed(layer: Layer) -> tuple[bytes, dict[str, Any]]:
    """A kernel's bytes, and what the header says of it."""
    streams = [_stream(layer.index, len(layer.centroids))]
    known: dict[str, Any] = {
        "shape": list(layer.mask.shape),
        "centroids": len(layer.centroids),
        "survivors": len(layer.index),
        "index_bytes": len(streams[0]) - len(layer.centroids),
    }
    if not layer.mask.all():
        gaps, skip = _gaps(layer.mask)
        streams.append(_stream(gaps, skip + 1))
        known |= {"gaps": len(gaps), "skip": skip, "gap_bytes": len(streams[1]) - skip - 1}
    return layer.centroids.astype(_FLOAT).tobytes() + b"".join(streams), known


def _unpacked(reader: _Reader, known: Mapping[str, Any]) -> Layer:
    centroids = reader.array(_FLOAT, known["centroids"]).astype(np.float32)
    index = reader.symbols(known["centroids"], known["index_bytes"], known["survivors"])
    mask = np.ones(int(np.prod(known["shape"])), dtype=bool)
    if "gaps" in known:
        skip = known["skip"]
        gaps = reader.symbols(skip + 1, known["gap_bytes"], known["gaps"])
        ends = np.cumsum(np.where(gaps == skip, skip, gaps + 1)) - 1
        mask[:] = False
        mask[ends[gaps != skip]] = True
    if int(mask.sum()) != len(index):
        raise ValueError("survivors and indices are not as many")
    return Layer(centroids, index, mask.reshape(known["shape"]))


def _gaps(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Zeros before each survivor, as symbols, and the symbol that skips as many weights as its own
    number and has no survivor behind it: a long gap is some of these and what is left."""
    gaps = np.diff(np.flatnonzero(mask), prepend=-1) - 1
    skip = min(int(gaps.max()), LONGEST) + 1
    skips = gaps // skip
    symbols = np.full(len(gaps) + int(skips.sum()), skip, dtype=np.int64)
    symbols[np.cumsum(skips + 1) - 1] = gaps % skip
    return symbols, skip


def _stream(symbols: NDArray[np.int64], alphabet: int) -> bytes:
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=alphabet))
    return lengths.tobytes() + huffman.encode(symbols, lengths)


class _Reader:
    """Takes arrays from the bytes, one after the other."""

    def __init__(self, content: bytes, offset: int, end: int) -> None:
        self._content, self._offset, self._end = content, offset, end

    def take(self, size: int) -> bytes:
        start, self._offset = self._offset, self._offset + size
        if size < 0 or self._offset > self._end:
            raise ValueError("they end too early")
        return self._content[start : self._offset]

    def array(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        return np.frombuffer(self.take(count * dtype.itemsize), dtype=dtype)

    def symbols(self, alphabet: int, size: int, count: int) -> NDArray[np.int64]:
        lengths = self.array(np.dtype(np.uint8), alphabet)
        return huffman.decode(self.take(size), count, lengths)
