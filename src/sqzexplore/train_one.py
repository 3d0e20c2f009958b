"""One training from the command line: progress, a checkpoint, and going on after an interrupt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from . import checkpoint, distributed, provenance
from .architecture import Architecture
from .cost import cost
from .data import ImageData, Source, load
from .data.decode import open_image
from .errors import UserError, shown
from .recipe import Recipe
from .training import Epoch, Run, check_precision, fit, identity

_UNFINISHED = "unfinished.safetensors"
#: Of a run, what stands in the notes under another name, or is too long for them.
_ELSEWHERE = ("history", "seed", "epochs", "right")
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


def natural_size(source: Source) -> int:
    """The side to train at when none is asked for: 32 for digits, small images' own, else 224."""
    if source.image_size is not None:
        return source.image_size
    first = source.train
    width, height = open_image(first.read(0), first.where(0), source.channels).size
    return min(width, height) if min(width, height) <= _SMALL else _CROP


def for_images(architecture: Architecture, source: Source, classes: int | None) -> Architecture:
    """`architecture` with the channels and classes of the images.

    Raises:
        UserError: the user asked for another number of classes.
    """
    if classes is not None and classes != len(source.classes):
        raise UserError(
            f"--set num_classes: found {classes}, expected {len(source.classes)}: "
            f"{source.name} has the classes {', '.join(source.classes[:5])}"
            + (", ..." if len(source.classes) > 5 else "")
        )
    return architecture.replace(in_channels=source.channels, num_classes=len(source.classes))


def train_one(
    plan: TrainingPlan,
    source: Source,
    image_size: int,
    device: torch.device,
    console: Console,
) -> dict[str, Any]:
    """Train, or finish what an interrupted process began, and write `folder`/model.safetensors.

    Returns:
        The notes of the checkpoint, which `checkpoint.notes` reads again.

    Raises:
        UserError: the folder holds another training, or an image is damaged.
    """
    plan.architecture.check_input_size(image_size)
    check_precision(plan.recipe, device)
    if plan.folder.exists() and not plan.folder.is_dir():
        raise UserError(f"--out {plan.folder}: found a file, expected a folder")
    torch.set_num_threads(plan.threads)
    with distributed.group(device) as place:
        data = load(source, image_size, plan.recipe.augmentation).to(place)
        asked = identity(plan.recipe, data, plan.seed)
        done = _finished(plan, asked)
        if done is not None:
            return done
        unfinished = plan.folder / _UNFINISHED
        started_at = datetime.now(UTC)
        quiet = Console(quiet=True) if distributed.rank() else console
        with _Live(quiet, plan, data) as live:
            net, run = fit(
                plan.architecture,
                data,
                plan.recipe,
                plan.seed,
                live.epoch,
                unfinished,
                live.batch,
            )
        notes = asked | _outcome(run, data, str(place), started_at)
        if distributed.rank() == 0:
            plan.folder.mkdir(parents=True, exist_ok=True)
            if not run.diverged:
                checkpoint.save(net, plan.folder / checkpoint.MODEL_FILE, notes)
                unfinished.unlink(missing_ok=True)
    return notes


def _outcome(run: Run, data: ImageData, device: str, started_at: datetime) -> dict[str, Any]:
    history = [asdict(epoch) for epoch in run.history]
    return {
        "classes": list(data.classes),
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        **{key: value for key, value in asdict(run).items() if key not in _ELSEWHERE},
        "history": history,
        "provenance": provenance.of_trial(device, started_at, run.duration_s)
        | {"device": device, "processes": distributed.world()}
        | {"train_threads": torch.get_num_threads()},
    }


def _finished(plan: TrainingPlan, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The notes of the same training, if it is done."""
    file = plan.folder / checkpoint.MODEL_FILE
    if not file.exists():
        return None
    notes = checkpoint.notes(file)
    held = notes | notes.get("architecture", {})
    for key, value in (asked | plan.architecture.model_dump(mode="json")).items():
        if held.get(key) != value:
            raise UserError(
                f"{file}: holds another training: {key} {shown(held.get(key))} there, "
                f"{shown(value)} here; choose another folder with --out"
            )
    return notes


class _Live:
    """A line an epoch, and on a terminal a bar with images a second and the time left."""

    def __init__(self, console: Console, plan: TrainingPlan, data: ImageData) -> None:
        self.epochs = plan.recipe.epochs
        self.console, self.total = console, self.epochs * len(data.train)
        params = cost(plan.architecture, data.image_size).params
        self.title = f"{params:,} parameters on {data.description}, seed {plan.seed}"
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=self.total)

    def __enter__(self) -> _Live:
        self.console.print(self.title, highlight=False)
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def batch(self, images: int) -> None:
        """A step is done."""
        self.bar.advance(self.task, images)

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done."""
        self.bar.update(self.task, completed=self.total * epoch.epoch / self.epochs)
        self.console.print(
            f"epoch {epoch.epoch}/{self.epochs}: loss {epoch.train_loss:.3f}, "
            f"validation top-1 {epoch.val_top1:.1f}%",
            highlight=False,
        )
