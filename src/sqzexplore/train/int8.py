"""A trained network in 8-bit integers: what that costs of its accuracy."""

from __future__ import annotations

import copy
import importlib.metadata
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compress.settings import Int8
from ..data.images import ImageData
from ..network.int8 import InRuntime, quantised, saturates
from ..network.module import SqueezeNet
from .accuracy import Normalisation, guesses, packed


@dataclass(frozen=True)
class Int8Run:
    """A network quantised and run by ONNX Runtime on the CPU. `int8_mb`: of its ONNX file, 10**6
    bytes; accuracies in percent; `agreement`: percent of the test images of which it says the same
    class as the float network; `right`: which of them it classified rightly (`packed`)."""

    scheme: str
    calibration_images: int
    reduce_range: bool
    int8_mb: float
    int8_top1: float
    int8_val_top1: float
    agreement: float
    right: str
    onnxruntime_version: str
    duration_s: float


def int8_runs(net: SqueezeNet, data: ImageData, settings: Sequence[Int8]) -> Iterator[Int8Run]:
    """Quantise a trained network, without retraining, and evaluate it.

    Args:
        net: on the device of the images; it is left as it is.
        data: the images; the first of the training split, spread evenly, calibrate.
        settings: how; they differ in the scheme alone.
    """
    started = time.perf_counter()
    before = guesses(net, data, data.test)
    plain = copy.deepcopy(net).cpu().eval()
    images = calibration_images(data, settings[0].calibration_images)
    files = quantised(plain, images, [setting.scheme for setting in settings])
    for setting, content in zip(settings, files, strict=True):
        small = InRuntime(content)
        test, validation = (guesses(small, data, split) for split in (data.test, data.validation))
        yield Int8Run(
            scheme=setting.scheme,
            calibration_images=len(images),
            reduce_range=saturates(),
            int8_mb=len(content) / 1e6,
            int8_top1=test.top1,
            int8_val_top1=validation.top1,
            agreement=100 * float((test.guessed == before.guessed).mean()),
            right=packed(test.right),
            onnxruntime_version=importlib.metadata.version("onnxruntime"),
            duration_s=time.perf_counter() - started,
        )
        started = time.perf_counter()


def calibration_images(data: ImageData, count: int) -> Tensor:
    """Images of the training split, spread evenly over it, normalised, on the CPU: N x C x side x
    side."""
    places = torch.linspace(0, len(data.train) - 1, min(count, len(data.train))).long()
    batches = data.train.batches(places, len(places))
    images, _ = next(iter(batches))
    return Normalisation(data)(images).contiguous().cpu()
