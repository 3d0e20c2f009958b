"""A network for LiteRT (TensorFlow Lite), in float32 and in integers alone, for microcontrollers.

Its converter is a heavy package with versions of its own: where it is not installed, nothing else
of an export needs it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from .artifacts import ABSOLUTE, RELATIVE, ExportMismatch

FLOAT_FILE, INT8_FILE = "model.tflite", "model.int8.tflite"
_NEEDED = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
_SIGNATURE = "serving_default"
#: Images whose outputs are compared with PyTorch's.
_COMPARED = 3


def require_litert() -> None:
    """Refuse what LiteRT's packages are missing for.

    Raises:
        UserError: one is; with the command that installs it.
    """
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--litert needs {name}: pip install litert-torch (in an environment of its own: "
                "it asks for other versions of packages that are used here)"
            )


def write_litert(classifier: nn.Module, images: Tensor, folder: Path) -> None:
    """Write `model.tflite` (float32) and `model.int8.tflite` (integers alone, input and output
    too) into `folder`; both take one image.

    Args:
        classifier: in evaluation mode, on the CPU.
        images: N x channels x side x side, as it takes them: their activations decide the ranges of
            the integers.
        folder: an existing folder.

    Raises:
        ExportMismatch: the float32 file gives other outputs than PyTorch.
    """
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    with _quiet():
        litert_torch.convert(classifier, (images[:1],)).export(str(folder / FLOAT_FILE))
        _compare(classifier, images[:_COMPARED], folder / FLOAT_FILE)
        work = quantizer.Quantizer(str(folder / FLOAT_FILE))
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        given = [{"args_0": image.unsqueeze(0).numpy()} for image in images]
        quantised = work.quantize(work.calibrate({_SIGNATURE: given}))
        quantised.export_model(str(folder / INT8_FILE))


@torch.no_grad()
def _compare(classifier: nn.Module, images: Tensor, file: Path) -> None:
    expected, found = classifier(images), InLiteRT(file)(images)
    allowed = RELATIVE * float(expected.abs().max()) + ABSOLUTE
    worst = float((found - expected).abs().max())
    if not worst <= allowed:
        raise ExportMismatch(
            f"{file.name}: differs from PyTorch by {worst:.3g}, expected at most {allowed:.3g}; "
            "nothing was written"
        )


class InLiteRT(nn.Module):
    """A file as a module that LiteRT's interpreter runs on the CPU, an image at a time.

    Args:
        file: of `write_litert`; of integers, images are scaled to what it takes, and its outputs
            back.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        from ai_edge_litert.interpreter import Interpreter

        with _quiet():
            self._runner = Interpreter(str(file)).get_signature_runner()
        ((self._input, self._takes),) = self._runner.get_input_details().items()
        ((self._output, self._gives),) = self._runner.get_output_details().items()

    def forward(self, images: Tensor) -> Tensor:
        """N x channels x side x side -> N x classes logits, on the device of the images."""
        rows = [self._one(image[None].contiguous().cpu().numpy()) for image in images]
        return torch.from_numpy(np.concatenate(rows)).to(images.device)

    def _one(self, image: Any) -> Any:
        scale, zero = self._takes["quantization"]
        if scale:
            limits = np.iinfo(self._takes["dtype"])
            whole = np.round(image / scale) + zero
            image = np.clip(whole, limits.min, limits.max).astype(self._takes["dtype"])
        logits = self._runner(**{self._input: image})[self._output]
        scale, zero = self._gives["quantization"]
        return (logits.astype(np.float32) - zero) * scale if scale else logits


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the converter's account of its passes."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(before)
