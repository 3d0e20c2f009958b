"""The smaller files of an exported network: compressed, and in 8-bit integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..compress.settings import Compression
from ..data.images import ImageData, load
from ..errors import UserError
from ..evaluation.checkpoints import normalised_for, recipe_of_notes
from ..evaluation.workload import open_requested
from ..network.int8 import InRuntime, quantised_file, saturates
from ..network.module import SqueezeNet
from ..spec.models import Spec
from ..train.accuracy import Guesses, guesses
from ..train.finetune import deep_compression, finished
from ..train.int8 import calibration_images
from .artifacts import ONNX_FILE, Classifier, ExportMismatch
from .litert import FLOAT_FILE as LITERT_FILE
from .litert import INT8_FILE as LITERT_INT8_FILE
from .litert import InLiteRT, write_litert

COMPRESSED_FILE, INT8_FILE = "model.sqz", "model.int8.onnx"
#: Where the sweep does not say it: table 2's share of the weights.
_DENSITY, _EPOCHS = 0.33, 4
#: Training images that decide the ranges of activations.
_CALIBRATION = 256
#: How far integers may be from the float values that they stand for, as a share of the largest.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class SmallFile:
    """A smaller file: its name, how it was made, its bytes, and percent of the test images that it
    classifies rightly, that the float32 network does, and that both take for the same class."""

    name: str
    how: str
    bytes: int
    top1: float
    float32_top1: float
    agreement: float


def write_smaller(
    net: SqueezeNet,
    notes: Mapping[str, Any],
    spec: Spec,
    folder: Path,
    bits: int | None,
    int8: bool,
    litert: bool = False,
) -> list[SmallFile]:
    """Write `model.sqz` (`bits`) and `model.int8.onnx` (`int8`) of a trained network into `folder`.

    Args:
        net: on the CPU, in evaluation mode.
        notes: of its checkpoint.
        spec: of the sweep, which names the images: to retrain on, to calibrate, to measure by.
        folder: holds the network's `model.onnx`.
        bits: of an index into a codebook; the density and the epochs of fine-tuning are those that
            the sweep measured with as many bits, or else a third and 4. None: no such file.
        int8: whether to quantise, a weight scale a filter.
        litert: whether to write both files of `litert` too.

    Raises:
        UserError: the images are not those that the network was trained on.
        ExportMismatch: integers give other outputs than the values that they stand for.
    """
    data = _images(spec, notes)
    # The files normalise bytes / 255 themselves.
    plain = replace(data, mean=torch.zeros_like(data.mean), std=255 * torch.ones_like(data.std))
    classifier = Classifier(net, data.mean / 255, data.std / 255).eval()
    images = calibration_images(plain, _CALIBRATION)
    before = guesses(net, data, data.test)
    files = []

    def written(name: str, how: str, found: Guesses) -> None:
        same = 100 * float((found.guessed == before.guessed).mean())
        size = (folder / name).stat().st_size
        files.append(SmallFile(name, how, size, found.top1, before.top1, same))

    if bits is not None:
        setting = setting_of(spec, bits)
        work = deep_compression(net, data, recipe_of_notes(notes), int(notes["seed"]), setting)
        done = finished(work)
        how = f"Deep Compression: density {setting.density:g}, {bits} bits, "
        how += f"fine-tuned for {setting.epochs} epochs"
        (folder / COMPRESSED_FILE).write_bytes(done.compressed.content)
        written(COMPRESSED_FILE, how, guesses(done.net, data, data.test))
    if int8:
        content = _in_integers(folder / ONNX_FILE, images)
        (folder / INT8_FILE).write_bytes(content)
        how = "static QDQ, weights per channel" + (", of 7 bits" if saturates() else "")
        written(INT8_FILE, how, guesses(InRuntime(content), plain, plain.test))
    if litert:
        write_litert(classifier, images, folder)
        for name, how in ((LITERT_FILE, "LiteRT, float32"), (LITERT_INT8_FILE, "LiteRT, int8")):
            written(name, how, guesses(InLiteRT(folder / name), plain, plain.test))
    return files


def setting_of(spec: Spec, bits: int) -> Compression:
    """How the sweep compressed with so many bits; of several settings, the last."""
    own = [setting for setting in spec.compressions if setting.bits == bits]
    return own[-1] if own else Compression(_DENSITY, bits, _EPOCHS)


def _images(spec: Spec, notes: Mapping[str, Any]) -> ImageData:
    accuracy = spec.measure.accuracy
    if accuracy is None:
        raise UserError(
            f"--compress, --quantize: the sweep {spec.name} measures no accuracy, expected one "
            "whose images can be retrained on and measured by"
        )
    source = open_requested(accuracy)
    if source.sha256 != notes["data_sha256"]:
        raise UserError(
            f"--checkpoint: trained on {notes['data']} with checksum {notes['data_sha256']}, "
            f"found {source.name} with {source.sha256}, which the sweep names: a smaller file is "
            "retrained and measured on the same images"
        )
    return normalised_for(load(source, int(notes["image_size"]), notes["augmentation"]), notes)


def _in_integers(plain: Path, images: Tensor) -> bytes:
    """The int8 file, which takes what the float32 file takes."""
    content = next(iter(quantised_file(plain, images, ["per_channel"])))
    integers, values = (InRuntime(content, integers=kind)(images) for kind in (True, False))
    worst, largest = (integers - values).abs().max(), values.abs().max()
    if not worst <= _TOLERANCE * largest:  # a NaN is no agreement
        raise ExportMismatch(
            f"{INT8_FILE}: integers differ by {worst:.3g} from the values that they stand for, "
            f"expected at most {_TOLERANCE * largest:.3g}; nothing was written"
        )
    return content
