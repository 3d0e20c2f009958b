"""A network as files that other programs run, ONNX and torch.export: written, read, compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..network.onnx import INPUT, OUTPUT, as_onnx, traced

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"
#: The extra file of the program that holds its metadata.
METADATA = "metadata.json"
#: Images of the passes that are compared; none is the 2 of the example that is traced.
BATCHES = (1, 3, 8)
#: The largest difference to PyTorch: that share of the largest logit, and so much beside it.
RELATIVE, ABSOLUTE = 1e-4, 1e-6


class ExportMismatch(RuntimeError):
    """An exported file gives other outputs than PyTorch does."""


@dataclass(frozen=True)
class Check:
    """How the outputs of the files differ from PyTorch's, over all images and classes.

    `batches`: images of each pass; `differences`: the largest of each file; `tolerance`: what it
    may be; `largest_logit`: the largest output, to which the tolerance is relative.
    """

    batches: tuple[int, ...]
    largest_logit: float
    tolerance: float
    differences: Mapping[str, float]


class Classifier(nn.Module):
    """A network as it is exported: what training does to images before it is part of it.

    Args:
        net: normalised images to logits.
        mean: of each channel, for images in [0, 1]; None where nothing is normalised.
        std: the same.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self, net: nn.Module, mean: Tensor | None = None, std: Tensor | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", None if mean is None else mean.reshape(-1, 1, 1))
        self.register_buffer("std", None if std is None else std.reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """N x channels x H x W -> N x classes logits."""
        if self.mean is not None and self.std is not None:
            images = (images - self.mean) / self.std
        return self.net(images)


def write_programs(
    classifier: nn.Module,
    channels: int,
    input_size: int,
    metadata: Mapping[str, str],
    folder: Path,
) -> Check:
    """Write `model.onnx` and `model.pt2` into `folder`, read them again and compare.

    The number of images is left open in both; their size is not.

    Args:
        classifier: in evaluation mode, on the CPU: N x channels x H x W -> N x classes.
        channels: of its images.
        input_size: side of its images, pixels.
        metadata: what both files carry; `name` and `weights` are the ONNX graph's name and text.
        folder: an existing folder.

    Raises:
        ExportMismatch: a file's outputs differ from the classifier's by more than the tolerance.
    """
    program = traced(classifier, channels, input_size)
    onnx = as_onnx(program)
    onnx.model.metadata_props.update(metadata)
    onnx.model.graph.name, onnx.model.doc_string = metadata["name"], metadata["weights"]
    onnx.save(folder / ONNX_FILE)
    extra = {METADATA: json.dumps(dict(metadata))}
    torch.export.save(program, folder / PROGRAM_FILE, extra_files=extra)
    return _compared(classifier, channels, input_size, folder)


@torch.inference_mode()
def _compared(classifier: nn.Module, channels: int, input_size: int, folder: Path) -> Check:
    """What the files give beside what PyTorch gives, on random images."""
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(folder / ONNX_FILE), providers=providers)
    loaded = torch.export.load(folder / PROGRAM_FILE).module()
    generator = torch.Generator().manual_seed(0)
    logits, differences = torch.zeros(()), dict.fromkeys((ONNX_FILE, PROGRAM_FILE), torch.zeros(()))
    for count in BATCHES:
        images = torch.rand(count, channels, input_size, input_size, generator=generator)
        expected = classifier(images)
        logits = torch.maximum(logits, expected.abs().max())
        (of_onnx,) = session.run([OUTPUT], {INPUT: images.numpy()})
        found = {ONNX_FILE: torch.from_numpy(of_onnx), PROGRAM_FILE: loaded(images)}
        for name, outputs in found.items():
            if outputs.shape != expected.shape:
                raise ExportMismatch(
                    f"{name}: gives outputs of {tuple(outputs.shape)} for {count} images where "
                    f"PyTorch gives {tuple(expected.shape)}; nothing was written"
                )
            # torch's maximum keeps a NaN, Python's may not.
            worst = (outputs - expected).abs().max()
            differences[name] = torch.maximum(differences[name], worst)
    largest, tolerance = logits.item(), RELATIVE * logits.item() + ABSOLUTE
    check = Check(BATCHES, largest, tolerance, {n: d.item() for n, d in differences.items()})
    for name, difference in check.differences.items():
        if not difference <= tolerance:
            raise ExportMismatch(
                f"{name}: differs from PyTorch by {difference:.3g}, expected at most "
                f"{tolerance:.3g} where the largest logit is {largest:.3g}; nothing was written"
            )
    return check
