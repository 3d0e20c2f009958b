"""A network of a sweep as files that other programs run: ONNX and a torch.export program.

What is written was read again first, and gave the outputs that PyTorch gives.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from ..compress.settings import MOST_BITS
from ..errors import UserError, shown
from ..evaluation.workload import open_requested, recipe_of
from ..files import check_writable, replacing_folder
from ..network.architecture import Architecture
from ..network.columns import architecture_at
from ..network.frames import columns_of_frame
from ..network.module import SqueezeNet, build
from ..network.onnx import NEEDED, require_onnx
from ..results.folder import ResultFolder, load_results
from ..results.selection import goals
from ..results.selection import pick as pick_trial
from ..spec.models import Spec
from ..train import checkpoint as checkpoint_
from ..train.session import TrainingPlan, Watch, train_one
from .artifacts import ONNX_FILE, PROGRAM_FILE, Check, Classifier, write_programs
from .litert import FLOAT_FILE as LITERT_FILE
from .litert import INT8_FILE as LITERT_INT8_FILE
from .litert import require_litert
from .model_card import Card, card_text
from .smaller import COMPRESSED_FILE, INT8_FILE, SmallFile, write_smaller

CARD_FILE = "MODEL_CARD.md"
#: What an export leaves; weights beyond 2 GB stand beside the ONNX file.
_FILES = (
    *(ONNX_FILE, PROGRAM_FILE, CARD_FILE, f"{ONNX_FILE}.data"),
    *(COMPRESSED_FILE, INT8_FILE, LITERT_FILE, LITERT_INT8_FILE),
)
#: What the card says of a training.
_NOTES = (
    *("mean", "std", "image_size", "classes", "data", "data_sha256", "recipe", "precision"),
    *("augmentation", "epochs", "seed", "top1", "top5", "val_top1", "provenance"),
)
#: Of weights that were not trained.
_SEED = 0


@dataclass(frozen=True)
class Exported:
    """What `export` wrote: the sweep and trial it is of, what its weights are, the files."""

    name: str
    weights: str
    check: Check
    smaller: tuple[SmallFile, ...]
    files: tuple[Path, ...]


def export(
    folder: str | Path,
    pick: str | int,
    to: str | Path,
    checkpoint: str | Path | None = None,
    compress: int | None = None,
    quantize: Literal["int8"] | None = None,
    litert: bool = False,
) -> Exported:
    """Write a network of a sweep as ONNX and as a torch.export program, with a model card.

    A sweep keeps no weights. Without a checkpoint the network is the trial's own architecture at
    the sweep's `input_size`, and its weights are random; the files and the card say so. With one it
    is what was trained, at the size of the training images, and normalises its input itself.

    Both files take any number of images. They are read again and compared with PyTorch before
    anything stands in `to`.

    Args:
        folder: result folder of the sweep.
        pick: `knee` of the front, `best` val_top1, or a trial's number (`results.selection.pick`).
        to: the folder to write: new, empty, or of an earlier export, which is replaced.
        checkpoint: what `train` wrote, a file or its folder: of the trial's architecture, or of
            the form of it that the sweep trains, with the classes and channels of its images.
        compress: bits of a codebook's index: writes `model.sqz` too, retrained on the sweep's
            images (`deploy.smaller`); needs a checkpoint.
        quantize: `int8` writes `model.int8.onnx` too, calibrated on them; needs a checkpoint.
        litert: writes `model.tflite` and `model.int8.tflite` too (`deploy.litert`); needs a
            checkpoint, and the package litert-torch.

    Returns:
        What was written, and how it compares with PyTorch.

    Raises:
        UserError: the extra `export` is not installed; there is no such sweep or trial; `to` holds
            something else; the checkpoint is of another network.
        ExportMismatch: a file gives other outputs than PyTorch; nothing is written.

    Example:
        >>> sqz.export("results/sr", "knee", "exported/sr")  # doctest: +SKIP
    """
    to = Path(to)
    check_ready(to)
    _check_smaller(compress, quantize, litert, checkpoint is not None)
    spec, trials, row, own = _chosen(folder, pick)
    trial = int(row["trial"])
    if checkpoint is None:
        net, notes = _untrained(own), None
    else:
        net, notes = _trained(spec, trial, own, checkpoint)
    card = Card(
        spec=spec,
        row=row,
        pick=str(pick),
        goals=[name for side in goals(spec, trials) for name in side],
        throughput=_throughput(Path(folder), trial),
        own=own,
        exported=net.architecture,
        notes=notes,
        seed=_SEED,
        input_size=int(notes["image_size"]) if notes else spec.input_size,
        packages={name: importlib.metadata.version(name) for name in ("torch", *NEEDED)},
    )
    classifier = Classifier(net, *_normalisation(notes)).eval()
    with replacing_folder(to) as folder:
        check = write_programs(
            classifier, card.exported.in_channels, card.input_size, card.metadata(), folder
        )
        smaller: list[SmallFile] = []
        if notes is not None and (compress or quantize or litert):
            smaller = write_smaller(net, notes, spec, folder, compress, quantize == "int8", litert)
        text = card_text(card, check, smaller, _written(folder))
        (folder / CARD_FILE).write_text(text, encoding="utf-8")
    files = tuple(_written(to))
    return Exported(card.name, card.weights, check, tuple(smaller), files)


def train_picked(
    folder: str | Path,
    pick: str | int,
    into: Path,
    device: torch.device,
    watch: Watch,
) -> dict[str, Any]:
    """Train what the sweep trains for a trial, by its recipe on its data with seed 0.

    An interrupted training goes on; one that is done is not done again.

    Args:
        folder: result folder of the sweep.
        pick: as in `export`.
        into: the folder of the checkpoint.
        device: where to train.
        watch: shows the progress.

    Returns:
        The notes of the checkpoint (`train_one`).

    Raises:
        UserError: the sweep measures no accuracy, its data are not there, or `into` holds another
            training.
    """
    spec, _, _, own = _chosen(folder, pick)
    accuracy = spec.measure.accuracy
    if accuracy is None:
        raise UserError(
            f"--train: the sweep {spec.name} measures no accuracy, so that it has no recipe; "
            "expected --checkpoint alone, of a network that `train` trained"
        )
    try:
        source = open_requested(accuracy)
        trained = spec.trained(own, source.channels, len(source.classes))
        plan = TrainingPlan(trained, recipe_of(accuracy), 0, into, accuracy.threads)
        return train_one(plan, source, accuracy.image_size, device, watch)
    except UserError as error:
        raise error.at("--train") from None


def check_ready(to: Path) -> None:
    """Refuse, before any work, what could not be written or would overwrite something else.

    Raises:
        UserError: the extra `export` is not installed, or `to` cannot take an export.
    """
    require_onnx("an export")
    check_writable(to, "--to")
    held = sorted(file.name for file in to.iterdir()) if to.exists() else []
    others = [name for name in held if name not in _FILES]
    if held and (others or CARD_FILE not in held):
        raise UserError(
            f"--to {to}: found a folder that holds {(others or held)[0]}, expected a new or empty "
            "one, or that of an earlier export, which is replaced"
        )


def _check_smaller(compress: int | None, quantize: str | None, litert: bool, trained: bool) -> None:
    if compress is not None and not 1 <= compress <= MOST_BITS:
        raise UserError(f"--compress: found {compress}, expected 1 to {MOST_BITS} bits")
    if quantize not in (None, "int8"):
        raise UserError(f"--quantize: found {shown(quantize)}, expected int8")
    flags = (("--compress", compress), ("--quantize", quantize), ("--litert", litert))
    for flag, requested in flags:
        if requested and not trained:
            raise UserError(f"{flag}: expected --checkpoint too: random weights have no accuracy")
    if litert:
        require_litert()


def _written(folder: Path) -> list[Path]:
    return [folder / name for name in _FILES if (folder / name).exists()]


# --- which network -----------------------------------------------------------------------------


def _chosen(
    folder: str | Path, pick: str | int
) -> tuple[Spec, pd.DataFrame, pd.Series, Architecture]:
    """The sweep in `folder`, its trials, the row of the one picked, and its architecture."""
    trials = load_results(folder)
    spec = ResultFolder(folder).spec()
    row = pick_trial(spec, trials, pick)
    return spec, trials, row, architecture_at(columns_of_frame(trials.loc[[row.name]]), 0)


def _throughput(folder: Path, trial: int) -> pd.DataFrame:
    """The measurements of a trial; none where the sweep measured no throughput."""
    rows = ResultFolder(folder).table("throughput")
    return pd.DataFrame() if rows is None else rows[rows["trial"] == trial]


def _untrained(architecture: Architecture) -> SqueezeNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return build(architecture).eval()


def _trained(
    spec: Spec, trial: int, own: Architecture, checkpoint: str | Path
) -> tuple[SqueezeNet, dict[str, Any]]:
    """The network of a checkpoint, which is the trial's or the trained form of it, and its notes.

    Raises:
        UserError: it is another network, or no training wrote it.
    """
    net, notes = checkpoint_.load(checkpoint), checkpoint_.notes(checkpoint)
    for key in _NOTES:
        if key not in notes:
            raise UserError(
                f"--checkpoint {checkpoint}: has no {key}, expected a file that `train` wrote"
            )
    found = net.architecture
    images = {"in_channels": found.in_channels, "num_classes": found.num_classes}
    forms = [own, own.replace(**images)]
    if spec.measure.accuracy:
        forms.append(spec.trained(own, found.in_channels, found.num_classes))
    nearest = min(reversed(forms), key=lambda form: len(found.changes(form)))
    if changes := found.changes(nearest):
        said = ", ".join(
            f"{key} {shown(value)} where it has {shown(nearest.get(key))}"
            for key, value in changes.items()
        )
        raise UserError(
            f"--checkpoint {checkpoint}: holds another network than trial {trial} or what the "
            f"sweep trains for it: {said}"
        )
    return net, notes


def _normalisation(notes: Mapping[str, Any] | None) -> tuple[Tensor | None, Tensor | None]:
    """Mean and standard deviation for images in [0, 1]; those of a checkpoint are of 0..255."""
    if notes is None:
        return None, None
    mean, std = (torch.tensor(notes[key], dtype=torch.float32) / 255 for key in ("mean", "std"))
    return mean, std
