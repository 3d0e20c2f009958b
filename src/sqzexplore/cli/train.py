"""`train`: one network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError, field_problem, shown
from .app import Device, Preset, Set, app, out, resumable, warn_of_emulation

if TYPE_CHECKING:
    from ..spec.models import AccuracySpec


@app.command("train")
def train_(
    preset_name: Preset = "squeezenet1_0",
    set_: Set = None,
    data: Annotated[
        str, typer.Option(help="digits, fashion, a folder of images, or a Hugging Face owner/name.")
    ] = "digits",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 20,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the training.")] = 0,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the checkpoint [default: checkpoints/..]"),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, max=1024, help="Side of the images [default: their own, at most 224]."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a training step.")] = 64,
    recipe: Annotated[str, typer.Option(help="default or paper.")] = "default",
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak of the schedule [default: the recipe's].")
    ] = None,
    label_smoothing: Annotated[float, typer.Option(help="In [0, 1).")] = 0.0,
    augmentation: Annotated[
        str | None,
        typer.Option(help="none, shift, shift_flip or crop_flip [default: what suits the data]."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, tf32 (on a GPU) or bfloat16.")
    ] = "float32",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training.")] = 1,
    device: Device = "auto",
) -> None:
    """Train one architecture; print its accuracy, write a checkpoint. Under torchrun: together."""
    from ..data.open import open_data
    from ..evaluation.workload import recipe_of
    from ..files import check_writable
    from ..measure.devices import resolve_device
    from ..network.cost import cost
    from ..train import distributed
    from ..train.checkpoint import MODEL_FILE
    from ..train.session import TrainingPlan, for_images, natural_size, train_one
    from .describe import requested_architecture
    from .progress import Live

    on = resolve_device(device)
    requested = _checked_recipe(
        epochs=epochs,
        batch_size=batch_size,
        recipe=recipe,
        learning_rate=learning_rate,
        label_smoothing=label_smoothing,
        augmentation=augmentation,
        precision=precision,
    )
    architecture = requested_architecture(preset_name, set_)
    try:
        source = open_data(data)
    except UserError as error:
        raise error.at("--data") from None
    named = {change.partition("=")[0] for change in set_ or []}
    architecture = for_images(architecture, source, named)
    name = f"{preset_name}-{architecture.arch_id}-{source.name}-{epochs}epochs-seed{seed}"
    folder = out_dir or Path("checkpoints") / name
    size = image_size or natural_size(source)
    check_writable(folder, "--out")
    plan = TrainingPlan(architecture, recipe_of(requested), seed, folder, threads)
    if not distributed.rank_of_launch():
        warn_of_emulation(precision, on)
    with resumable(folder):
        notes = train_one(plan, source, size, on, partial(Live, out))
    if distributed.rank_of_launch():
        return
    if notes["diverged"]:
        out.print(f"diverged in epoch {len(notes['history'])} of {epochs}")
        raise typer.Exit(1)
    top5 = "" if notes["top5"] is None else f", top-5 {notes['top5']:.2f}%"
    out.print(
        f"{cost(architecture, size).params:,} parameters, {source.name} at {size}x{size}: "
        f"test top-1 {notes['top1']:.2f}%{top5}, validation {notes['val_top1']:.2f}% "
        f"({epochs} epochs, seed {seed}, {notes['provenance']['device']}, "
        f"{notes['duration_s']:.0f} s)",
        highlight=False,
    )
    out.print(f"checkpoint: {folder / MODEL_FILE}", highlight=False, soft_wrap=True)


def _checked_recipe(**options: Any) -> AccuracySpec:
    """The options of `train` that a spec has too, checked as a spec's are."""
    from pydantic import ValidationError

    from ..spec.models import AccuracySpec

    try:
        return AccuracySpec(**options)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UserError(
            f"--{option}: found {shown(first['input'])}, {field_problem(first)}"
        ) from None
