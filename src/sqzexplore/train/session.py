"""One training from the command line: progress, a checkpoint, and going on after an interrupt."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from .. import provenance
from ..data.decode import open_image
from ..data.images import ImageData, load
from ..data.source import Source
from ..errors import UserError, shown
from ..network.architecture import Architecture
from . import checkpoint, distributed
from .loop import Epoch, Run, Training, check_recipe, identity
from .recipe import Recipe

_UNFINISHED = "unfinished.safetensors"
#: Of a run, what stands in the notes under another name, or is too long for them.
_ELSEWHERE = ("history", "seed", "epochs", "right", "confusion")
#: Images up to this size are trained on as they are; larger ones as ImageNet's usually are.
_SMALL, _CROP = 64, 224


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, on what, how, and where it is kept."""

    architecture: Architecture
    recipe: Recipe
    seed: int
    folder: Path
    threads: int = 1


class Watcher(Protocol):
    """Hears of a training as it goes on."""

    def batch(self, images: int) -> None:
        """A step on so many images is done."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done."""


#: Begins to watch a training of these images.
Watch = Callable[[TrainingPlan, ImageData], AbstractContextManager[Watcher]]


class _Nobody:
    def batch(self, images: int) -> None: ...
    def epoch(self, epoch: Epoch) -> None: ...


def natural_size(source: Source) -> int:
    """The side to train at when none is asked for: 32 for digits, small images' own, else 224."""
    if source.image_size is not None:
        return source.image_size
    first = source.train
    width, height = open_image(first.read(0), first.where(0), source.channels).size
    return min(width, height) if min(width, height) <= _SMALL else _CROP


def for_images(
    architecture: Architecture, source: Source, requested: Container[str]
) -> Architecture:
    """`architecture` with the channels and classes of the images.

    Args:
        architecture: what the user asked for.
        source: the images.
        requested: the metaparameters that the user named.

    Raises:
        UserError: another number of channels or classes is requested.
    """
    classes, more = ", ".join(source.classes[:5]), ", ..." if len(source.classes) > 5 else ""
    images = "images in colour" if source.channels == 3 else "grey images"
    fixed = {
        "in_channels": (source.channels, images),
        "num_classes": (len(source.classes), f"the classes {classes}{more}"),
    }
    for name, (value, why) in fixed.items():
        if name in requested and (found := getattr(architecture, name)) != value:
            raise UserError(
                f"--set {name}: found {found}, expected {value}: {source.name} has {why}"
            )
    return architecture.replace(**{name: value for name, (value, _) in fixed.items()})


def train_one(
    plan: TrainingPlan,
    source: Source,
    image_size: int,
    device: torch.device,
    watch: Watch,
) -> dict[str, Any]:
    """Train, or finish what an interrupted process began, and write `folder`/model.safetensors.

    Of several processes that train together the first one is watched.

    Returns:
        The notes of the checkpoint, which `checkpoint.notes` reads again.

    Raises:
        UserError: the folder holds another training, the recipe cannot be followed here, or an
            image is damaged.
    """
    plan.architecture.check_input_size(image_size)
    if plan.architecture.batch_norm and plan.recipe.batch_size == 1:
        raise UserError(
            "--batch-size: found 1 with batch_norm: true, expected 2 or more: one image has no "
            "variance"
        )
    if plan.folder.exists() and not plan.folder.is_dir():
        raise UserError(f"{plan.folder}: found a file, expected a folder")
    torch.set_num_threads(plan.threads)
    with distributed.group(device) as on:
        check_recipe(plan.recipe, on)
        data = load(source, image_size, plan.recipe.augmentation).to(on)
        requested = identity(plan.recipe, data, plan.seed)
        done = _finished(plan, requested)
        if done is not None:
            return done
        unfinished = plan.folder / _UNFINISHED
        started_at = datetime.now(UTC)
        watched = nullcontext(_Nobody()) if distributed.rank() else watch(plan, data)
        with watched as watcher:
            training = Training(
                plan.architecture,
                data,
                plan.recipe,
                plan.seed,
                watcher.epoch,
                unfinished,
                watcher.batch,
            )
            run = training.to_the_end()
        notes = requested | _outcome(run, data, str(on), started_at)
        notes["provenance"]["device_name"] = training.device_name
        if distributed.rank() == 0:
            plan.folder.mkdir(parents=True, exist_ok=True)
            if not run.diverged:
                checkpoint.save(training.net, plan.folder / checkpoint.MODEL_FILE, notes)
                unfinished.unlink(missing_ok=True)
    return notes


def _outcome(run: Run, data: ImageData, device: str, started_at: datetime) -> dict[str, Any]:
    history = [{k: _plain(v) for k, v in asdict(epoch).items()} for epoch in run.history]
    return {
        "data": data.name,
        "classes": list(data.classes),
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        **{key: _plain(value) for key, value in asdict(run).items() if key not in _ELSEWHERE},
        "history": history,
        "provenance": provenance.of_trial(device, started_at, run.duration_s)
        | {"device": device, "processes": distributed.world()}
        | {"train_threads": torch.get_num_threads()},
    }


def _plain(value: Any) -> Any:
    """A missing number as JSON has it."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _finished(plan: TrainingPlan, requested: dict[str, Any]) -> dict[str, Any] | None:
    """The notes of the same training, if it is done."""
    file = plan.folder / checkpoint.MODEL_FILE
    if not file.exists():
        return None
    notes = checkpoint.notes(file)
    held = notes | notes.get("architecture", {})
    for key, value in (requested | plan.architecture.model_dump(mode="json")).items():
        if held.get(key) != value:
            raise UserError(
                f"{file}: holds another training: {key} {shown(held.get(key))} there, "
                f"{shown(value)} here; choose another folder"
            )
    return notes
