"""The verbs of one architecture, and of throughput."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import ValidationError
from rich.table import Table

from .. import bench as bench_
from .. import distributed, small_maps, yamltext
from ..architecture import FIELDS, KEYS, Architecture, preset
from ..checkpoint import MODEL_FILE
from ..cost import Cost, cost
from ..data import open_data
from ..drawing import draw_all
from ..errors import UserError, field_problem, nearest, shown
from ..evaluate import recipe_of
from ..spec import AccuracySpec, ThroughputSpec
from ..throughput import DeviceLost, resolve_device
from ..train_one import TrainingPlan, for_images, natural_size, train_one
from .base import (
    Device,
    InputSize,
    Json,
    Preset,
    Set,
    app,
    err,
    fail,
    listed,
    out,
    resumable,
    warn_of_emulation,
)


@app.command()
def describe(
    preset_name: Preset = "squeezenet1_0",
    set_: Set = None,
    input_size: InputSize = 224,
    as_json: Json = False,
) -> None:
    """Show an architecture layer by layer, as the paper's table 1 does."""
    architecture = _architecture(preset_name, set_)
    counted = cost(architecture, input_size)
    if as_json:
        plain = {"architecture": architecture.model_dump(mode="json")} | asdict(counted)
        ids = {"arch_id": architecture.arch_id, "net_id": architecture.net_id}
        print(json.dumps(ids | plain, indent=2))
        return
    _print_architecture(f"{preset_name}, network {architecture.net_id}", counted)
    if small := small_maps.described(architecture, input_size):
        err.print(
            f"warning: 3x3 filters see a map below 3x3: {small}", highlight=False, soft_wrap=True
        )


@app.command()
def bench(
    target: Annotated[str, typer.Argument(metavar="[PRESET|SPEC]")] = "squeezenet1_0",
    device: Device = "auto",
    batch: Annotated[
        str, typer.Option(help="Batch sizes, or auto: doubled until throughput is flat.")
    ] = "1,64",
    dtype: Annotated[str, listed("dtype")] = "float32",
    memory_format: Annotated[str, listed("memory_format")] = "channels_last",
    form: Annotated[str, listed("form")] = "module",
    mode: Annotated[str, listed("mode")] = "eager",
    input_size: Annotated[str, typer.Option(help="Sides of the input image, pixels.")] = "224",
    seconds: Annotated[float, typer.Option(help="Time budget of a measurement, s.")] = 1.0,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write the table, with provenance, here, after every measurement; what is there "
            "already is not measured again.",
        ),
    ] = None,
    by_layer: Annotated[
        bool, typer.Option("--layers", help="Measure layer by layer instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the throughput of a preset, or of every architecture of a spec.

    Each option takes a list with commas; every combination is measured.
    """
    place = resolve_device(device)
    options = {"batch": batch, "dtype": dtype, "memory_format": memory_format, "form": form}
    if by_layer and out_dir:
        raise UserError("--out: expected no such option with --layers, which is for the eyes")
    asked = bench_.parse(options | {"mode": mode, "input_size": input_size}, seconds, place)
    architectures = bench_.targets(target)
    if by_layer:
        with err.status("") as status:
            rows = bench_.run_layers(architectures, asked, place, None, status.update)
    else:
        kept = bench_.Kept(out_dir, Path(target).stem, place)
        rows = _measured(architectures, asked, place, kept)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    out.print(bench_.layers_table(rows) if by_layer else bench_.table(rows))
    for reason in [] if by_layer else bench_.reasons(rows):
        out.print(reason, soft_wrap=True)


def _measured(
    architectures: Mapping[str, Architecture],
    asked: ThroughputSpec,
    device: torch.device,
    kept: bench_.Kept,
) -> list[dict[str, Any]]:
    """The rows, written and drawn where they are kept."""
    with resumable(kept.folder) if kept.folder else nullcontext():
        try:
            with err.status("") as status:
                rows = bench_.run(architectures, asked, device, kept, status.update)
        except DeviceLost as error:
            fail(f"this process has lost the GPU ({error}); run the same command again", 1)
        if kept.folder:
            draw_all(kept.folder)
            there = f"{len(rows)} measurements, {kept.found} were there already"
            err.print(f"{kept.folder}: {there}", soft_wrap=True)
    return rows


@app.command("train")
def train_(
    preset_name: Preset = "squeezenet1_0",
    set_: Set = None,
    data: Annotated[
        str, typer.Option(help="digits, fashion, a folder of images, or a Hugging Face owner/name.")
    ] = "digits",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 0,
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
    place = resolve_device(device)
    asked = _checked_recipe(
        epochs=epochs,
        batch_size=batch_size,
        recipe=recipe,
        learning_rate=learning_rate,
        label_smoothing=label_smoothing,
        augmentation=augmentation,
        precision=precision,
    )
    architecture = _architecture(preset_name, set_)
    try:
        source = open_data(data)
    except UserError as error:
        raise UserError(f"--data: {error}") from None
    given = any(change.startswith("num_classes=") for change in set_ or [])
    architecture = for_images(architecture, source, architecture.num_classes if given else None)
    name = f"{preset_name}-{architecture.arch_id}-{source.name}-{epochs}epochs-seed{seed}"
    folder = out_dir or Path("checkpoints") / name
    size = image_size or natural_size(source)
    plan = TrainingPlan(architecture, recipe_of(asked), seed, folder, threads)
    if not distributed.rank_of_launch():
        warn_of_emulation(precision, place)
    with resumable(folder):
        notes = train_one(plan, source, size, place, out)
    if distributed.rank_of_launch():
        return
    if notes["diverged"]:
        out.print(f"diverged in epoch {len(notes['history'])} of {epochs}")
        raise typer.Exit(1)
    top5 = "" if math.isnan(notes["top5"]) else f", top-5 {notes['top5']:.2f}%"
    out.print(
        f"{cost(architecture, size).params:,} parameters, {source.name} at {size}x{size}: "
        f"test top-1 {notes['top1']:.2f}%{top5}, validation {notes['val_top1']:.2f}% "
        f"({epochs} epochs, seed {seed}, {notes['provenance']['device']}, "
        f"{notes['duration_s']:.0f} s)",
        highlight=False,
    )
    out.print(f"checkpoint: {folder / MODEL_FILE}", highlight=False, soft_wrap=True)


def _architecture(preset_name: str, changes: list[str] | None) -> Architecture:
    """A preset with `--set` applied."""
    values: dict[str, Any] = {}
    for change in changes or []:
        key, equals, text = change.partition("=")
        if not equals:
            raise UserError(f"--set: found {shown(change)}, expected KEY=VALUE")
        if key not in KEYS:
            raise UserError(
                f"--set {key}: unknown key, expected one of {', '.join(FIELDS)}, or of a "
                f"Fire such as fire5.squeeze_ratio{nearest(key, KEYS)}"
            )
        try:
            values[key] = yamltext.load(text)
        except UserError:
            raise UserError(f"--set {key}: found {shown(text)}, expected a value") from None
        if values[key] is None:
            values[key] = text
        if key == "pool_after" and isinstance(values[key], int):
            values[key] = (values[key],)
    try:
        return preset(preset_name, **values)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0] if first["loc"] else ""
        found = f" {name}: found {shown(values.get(str(name)))}," if name else ""
        raise UserError(f"--set{found} {field_problem(first)}") from None


def _checked_recipe(**options: Any) -> AccuracySpec:
    """The options of `train` that a spec has too, checked as a spec's are."""
    try:
        return AccuracySpec(**options)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UserError(
            f"--{option}: found {shown(first['input'])}, {field_problem(first)}"
        ) from None


def _print_architecture(name: str, counted: Cost) -> None:
    size = counted.input_size
    table = Table(title=f"{name}, input {size}x{size}", title_justify="left")
    table.add_column("layer")
    table.add_column("output (channels x height x width)")
    table.add_column("filters (kernel/stride, number)")
    for heading in ("params", "MACs", "activations"):
        table.add_column(heading, justify="right")
    for layer in counted.layers:
        table.add_row(
            layer.name,
            "x".join(map(str, layer.output_shape)),
            layer.filters,
            *(f"{n:,}" if n else "" for n in (layer.params, layer.macs, layer.activations)),
        )
    table.add_section()
    table.add_row(
        "total",
        f"{counted.size_mb:.2f} MB, peak activations {counted.peak_activation_bytes / 1e6:.2f} MB",
        f"{counted.flops:,} FLOPs",
        *(f"{n:,}" for n in (counted.params, counted.macs, counted.activations)),
    )
    out.print(table)
