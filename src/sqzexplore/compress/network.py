"""A network pruned, its weights shared and coded: the file, and the network that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..network.module import SqueezeNet
from .codebook import shared, surviving
from .file import MAGIC, Damaged, Layer, from_bytes, read_header, to_bytes
from .settings import Compression

#: How a network was compressed.
_HOW = tuple(field.name for field in fields(Compression))
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
    how = Compression(density, bits)
    return coded(net, layers_of(net, how), how, notes)


def layers_of(net: SqueezeNet, how: Compression) -> dict[str, Layer]:
    """The kernels of a network by their names in its `state_dict`, pruned and shared.

    Raises:
        UserError: a weight is not finite.
    """
    layers = {}
    for name, kernel in kernels_of(net).items():
        array = kernel.detach().cpu().numpy()
        if not np.isfinite(array).all():
            raise UserError(f"{name}: found a weight that is not finite")
        mask = surviving(array, how.density)
        layers[name] = Layer(*shared(array[mask], how.bits), mask)
    return layers


def kernels_of(net: SqueezeNet) -> dict[str, Tensor]:
    """The weights of the convolutions, by their names in the `state_dict`."""
    convolutions = ((name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d))
    return {f"{name}.weight": module.weight for name, module in convolutions}


def coded(
    net: SqueezeNet,
    layers: Mapping[str, Layer],
    how: Compression,
    notes: Mapping[str, Any] | None,
) -> Compressed:
    """The file of a network whose kernels are `layers`; everything else is as `net` has it.

    Args:
        net: biases, BatchNorm, and the architecture.
        layers: as `layers_of` gives them.
        how: they were made, for the header.
        notes: as of `compress`.
    """
    state = {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}
    others = {n: array.astype(np.float32) for n, array in state.items() if n not in layers}
    for name, array in others.items():
        if not np.isfinite(array).all():
            raise UserError(f"{name}: found a weight that is not finite")
    header = {
        "architecture": net.architecture.model_dump(mode="json"),
        "notes": {key: value for key, value in (notes or {}).items() if key in _NOTES},
        **asdict(how),
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
        return decoded(path.read_bytes())
    except Damaged as error:
        raise UserError(f"{path}: {error}") from None


def decoded(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same of a file's bytes.

    Raises:
        Damaged: they are not whole, or of another version.
    """
    layers, others, header = from_bytes(content)
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
    known = {key: header.get(key) for key in ("architecture", *_HOW)}
    return {**header.get("notes", {}), **known}
