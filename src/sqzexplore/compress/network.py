"""A network pruned, its weights shared and coded: the file, and the network that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..network.module import SqueezeNet
from .codebook import shared, surviving
from .file import MAGIC, Damaged, Layer, from_bytes, read_header, to_bytes

MOST_BITS = 8
#: Notes that stay with a network: what its images must be, and what its classes are.
_NOTES = ("classes", "mean", "std", "image_size", "data")


@dataclass(frozen=True)
class CompressedLayer:
    """A kernel in the file: its weights, how many survive, centroids, and bytes with its tables."""

    name: str
    weights: int
    survivors: int
    centroids: int
    bytes: int


@dataclass(frozen=True)
class Compressed:
    """The file's bytes, the kernels in it, and its size without compression, bytes of float32."""

    content: bytes
    layers: tuple[CompressedLayer, ...]
    float32_bytes: int

    @property
    def compressed_mb(self) -> float:
        """Size of the whole file, MB (10**6 bytes)."""
        return len(self.content) / 1e6


def compress(
    net: SqueezeNet, density: float, bits: int, notes: Mapping[str, Any] | None = None
) -> Compressed:
    """Deep Compression of a network (Han et al., arXiv:1510.00149), without retraining.

    Each convolution keeps its largest weights, these share a k-means codebook, and the indices and
    the gaps between survivors are Huffman-coded. Biases and BatchNorm stay float32. What the file
    holds is smaller, not faster: it is decoded into an ordinary network.

    Args:
        net: the network; it is left as it is.
        density: share of each layer's weights that survives, in (0, 1].
        bits: of an index into a layer's codebook, 1 to 8.
        notes: what a checkpoint says of its images; mean, std and classes are kept.

    Raises:
        UserError: density or bits are out of range, or a weight is not finite.
    """
    if not 0 < density <= 1:
        raise UserError(f"density: found {density:g}, expected a share above 0 and at most 1")
    if not 1 <= bits <= MOST_BITS:
        raise UserError(f"bits: found {bits}, expected 1 to {MOST_BITS}")
    arrays = {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}
    kernels = {f"{name}.weight" for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    layers, others = {}, {}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{name}: found a weight that is not finite")
        if name in kernels:
            mask = surviving(array, density)
            layers[name] = Layer(*shared(array[mask], bits), mask)
        else:
            others[name] = array.astype(np.float32)
    header = {
        "architecture": net.architecture.model_dump(mode="json"),
        "notes": {key: value for key, value in (notes or {}).items() if key in _NOTES},
        "density": density,
        "bits": bits,
    }
    content, sizes = to_bytes(layers, others, header)
    rows = [
        CompressedLayer(
            name=name.removesuffix(".weight"),
            weights=layer.mask.size,
            survivors=len(layer.index),
            centroids=len(layer.centroids),
            bytes=sizes[name],
        )
        for name, layer in layers.items()
    ]
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Compressed(content, tuple(rows), 4 * parameters)


def is_compressed(path: Path) -> bool:
    """Whether a file is a compressed network, whatever its ending."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # which whoever reads it in earnest says better
        return False


def decompress(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a compressed network, as its module's `state_dict`, and its notes.

    Raises:
        UserError: the file is damaged, or of another version.
    """
    try:
        layers, others, header = from_bytes(path.read_bytes())
    except Damaged as error:
        raise UserError(f"{path}: {error}") from None
    arrays = {**{name: layer.weights() for name, layer in layers.items()}, **others}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, _notes(header)


def notes_of(path: Path) -> dict[str, Any]:
    """What stands beside the weights: architecture, density, bits, and what images must be.

    Raises:
        UserError: the header cannot be read.
    """
    try:
        return _notes(read_header(path.read_bytes())[0])
    except Damaged as error:
        raise UserError(f"{path}: {error}") from None


def _notes(header: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: header.get(key) for key in ("architecture", "density", "bits")}
    return {**header.get("notes", {}), **known}
