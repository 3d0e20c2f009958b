"""Draws the subset from the whole of Fashion-MNIST and writes it as IDX files, packed.

    python -m sqzexplore.data.fashion.make ORIGINALS TO

ORIGINALS holds Fashion-MNIST's four files, as Debian's package `dataset-fashion-mnist` does in
/usr/share/datasets/fashion-mnist; the four files in TO are the same, byte for byte, wherever zlib
packs as zlib 1.2 and 1.3 do. A line each is printed: SHA-256 of the file and of what it unpacks to.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from ..idx import read_idx
from ..source import SPLIT_SEED

#: Images that are drawn from each split.
DRAWN = {"train": 8_000, "t10k": 4_000}


def draw(originals: Path) -> dict[str, NDArray[np.uint8]]:
    """The drawn images (N x 28 x 28) and labels (N) of each split, by the name of their file.

    As many of each class, in the originals' order. No two images are equal.

    Raises:
        UserError: an original is missing or damaged.
        ValueError: an image was drawn twice.
    """
    drawn = {}
    for split, count in DRAWN.items():
        images = read_idx(originals / f"{split}-images-idx3-ubyte.gz")
        labels = read_idx(originals / f"{split}-labels-idx1-ubyte.gz")
        chosen, _ = train_test_split(
            np.arange(len(labels)), train_size=count, stratify=labels, random_state=SPLIT_SEED
        )
        chosen.sort()
        drawn[f"{split}-images-idx3-ubyte.gz"] = images[chosen]
        drawn[f"{split}-labels-idx1-ubyte.gz"] = labels[chosen]
    pixels = np.concatenate([array for array in drawn.values() if array.ndim == 3])
    if len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) < len(pixels):
        raise ValueError("an image was drawn twice: the originals hold copies")
    return drawn


def idx(array: NDArray[np.uint8]) -> bytes:
    """The array as an IDX file of unsigned bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def packed(content: bytes) -> bytes:
    """The content as a gzip file that holds neither a time nor a name."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def main() -> None:
    """Write the files and print their checksums."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("originals", type=Path, metavar="ORIGINALS")
    parser.add_argument("to", type=Path, metavar="TO")
    requested = parser.parse_args()
    requested.to.mkdir(parents=True, exist_ok=True)
    for name, array in draw(requested.originals).items():
        content = idx(array)
        (requested.to / name).write_bytes(packed(content))
        for written in (packed(content), content):
            print(hashlib.sha256(written).hexdigest(), end=" ")
        print(name)


if __name__ == "__main__":
    main()
