"""The verbs of a sweep and of its results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table

from .. import distributed
from .. import status as status_
from ..choices import choices
from ..columns import Columns, format_value, take_rows
from ..completeness import SPEC_FILE, completeness
from ..data import Source
from ..display import RowsDisplay, SweepDisplay, print_results
from ..drawing import draw_all, seeds_of
from ..errors import UserError, shown
from ..evaluate import load_data, open_asked, training_macs
from ..export import check_ready, export, train_picked
from ..files import exclusive
from ..programs import ExportMismatch
from ..report import write_report
from ..results import load_results
from ..small_maps import SmallMaps
from ..space import Space
from ..spec import Spec
from ..study import MakeEngine, run_sweep, workers_for
from ..throughput import check_choices, resolve_device
from ..training import follow
from .base import (
    Device,
    Folder,
    Json,
    SpecFile,
    Storage,
    app,
    err,
    fail,
    out,
    resumable,
    warn_of_emulation,
)

#: Trainings by turns on a GPU, if nothing else is asked for: of one, launches leave it idle.
_PACKED = 24
#: Combinations that `validate` goes through: less than a minute.
_MOST_COUNTED = 10**8
#: Architectures that it draws of a larger or a continuous space.
_DRAWN = 100_000


@app.command()
def sweep(
    spec_file: SpecFile,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Result folder [default: results/NAME].")
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="auto|N",
            help="Processes that train side by side. auto: one a core, or as many as a training's "
            "threads leave room for; one a GPU; on a cluster as many as it has room for.",
        ),
    ] = "auto",
    pack: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings by turns in each [default: 8 on a GPU, else 1]."),
    ] = None,
    storage: Storage = None,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="Where trials run: local or ray.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster [default: one on this machine].")
    ] = None,
    trial_cpus: Annotated[
        float, typer.Option(min=0.01, help="CPUs that a trial declares to Ray.")
    ] = 1.0,
    trial_gpus: Annotated[
        float, typer.Option(min=0.0, help="GPUs that it declares, or a share of one.")
    ] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run a sweep, or what is left of it; write its tables and figures."""
    spec = Spec.load(spec_file)
    place = resolve_device(device)
    asked_workers = _workers(workers)
    cluster = _cluster(spec, engine, address, trial_cpus, trial_gpus, asked_workers)
    if cluster:
        place = torch.device("cpu")  # of this process; the tasks have what they declare
    elif place.type == "cuda" and asked_workers != 1 and device in ("auto", "cuda"):
        place = torch.device("cuda")  # all of them
    count = 1 if cluster else asked_workers or workers_for(spec, place)
    if place == torch.device("cuda") and count == 1:
        place = torch.device("cuda:0")
    if (asked := spec.measure.throughput) and not cluster:
        check_choices(asked.dtype, asked.mode, place, f"{spec_file}: measure.throughput.")
    folder = out_dir or Path("results") / spec.name
    display = SweepDisplay(spec, out, quiet)
    with resumable(folder):
        with distributed.group(place) as joined:
            alone = distributed.world() == 1
            if distributed.rank():
                return _follow(spec, joined)
            if spec.measure.accuracy and not quiet and not cluster:
                warn_of_emulation(spec.measure.accuracy.precision, joined)
            with display:
                outcome = run_sweep(
                    spec,
                    folder,
                    joined,
                    display,
                    storage,
                    count,
                    cluster,
                    pack or (_PACKED if joined.type == "cuda" and alone else 1),
                )
            distributed.told(None)
        with exclusive(folder):
            files, _ = draw_all(folder)
    if not quiet:
        print_results(out, load_results(folder), spec, seeds_of(folder))
        _print_files(folder, files)
    if outcome.failures:
        for failure in outcome.failures:
            err.print(f"failed: {failure}", markup=False, highlight=False)
        raise typer.Exit(1)


@app.command()
def validate(spec_file: SpecFile) -> None:
    """Check a spec; say how many architectures it has and what its run will cost."""
    spec = Spec.load(spec_file)
    space = spec.design_space
    source = open_asked(spec.measure.accuracy) if spec.measure.accuracy else None
    feasible, warnings = _look_at(spec, source)
    table = Table(title=f"{spec_file}: valid", show_header=False, title_justify="left")
    table.add_row("sweep", spec.name)
    for axis in space.axes:
        text = f"{axis.low} to {axis.high}, continuous"
        if not axis.continuous:
            few = ", ".join(shown(value) for value in axis.values[:6])
            text = f"{len(axis.values)} values: {few}{', ...' if len(axis.values) > 6 else ''}"
        for name, values in axis.when:
            text += f"; where {name} is {' or '.join(map(format_value, values))}"
        table.add_row(f"axis {axis.field}", text)
    trials = spec.search.trials
    for constraint in spec.result_constraints:
        table.add_row("constraint on results", constraint.text)
    if space.enumerable:
        known = f"{feasible:,}" if feasible is not None else "an unknown number (too many to count)"
        table.add_row("architectures", f"{space.size:,}, of which {known} are feasible")
        if feasible is not None:
            trials = feasible if trials is None else min(trials, feasible)
    if timeout := spec.search.timeout:
        table.add_row("timeout", f"{timeout:,.0f} s")
    if trials is not None:
        table.add_row("trials", f"{trials:,} ({spec.search.sampler})")
        for name, text in _expected_cost(spec, trials, source).items():
            table.add_row(name, text)
    out.print(table)
    if spec.measure.accuracy:
        warn_of_emulation(spec.measure.accuracy.precision, resolve_device("auto"))
    for warning in warnings:
        err.print(f"warning: {warning}", highlight=False, soft_wrap=True)


@app.command()
def results(folder: Folder, as_json: Json = False) -> None:
    """Print the table of a sweep."""
    rows = load_results(folder)
    if as_json:
        print(rows.to_json(orient="records", indent=2))
        return
    spec = Spec.load(folder / SPEC_FILE)
    seeds = seeds_of(folder)
    print_results(out, rows, spec, seeds)
    for line in [*choices(spec, rows, seeds), f"in the table: {completeness(folder)}"]:
        out.print(line, highlight=False, markup=False)
    _print_files(folder, sorted((folder / "figures").glob("*.p*")))


@app.command()
def status(
    folder: Folder,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Say how a sweep stands, while it runs or after: done, failed, rate, what is left, best."""
    now = status_.status(folder, storage)
    if as_json:
        print(json.dumps(asdict(now), indent=2, default=str))
        return
    out.print(f"{now.complete} are in", highlight=False)
    for one in now.unfinished:
        params = ", ".join(f"{name} {value}" for name, value in one.params.items())
        since = one.started_at.isoformat(sep=" ", timespec="seconds")
        state = f"running on {one.host}" if one.running else "interrupted"
        out.print(f"{state}: trial {one.trial} ({params}), since {since}", highlight=False)
    if now.last_ended is not None:
        ended = now.last_ended.isoformat(sep=" ", timespec="seconds")
        rate = f", {now.rate:,.1f} trials an hour of late" if now.rate else ""
        out.print(f"last trial ended {ended}{rate}", highlight=False)
    if now.left_s:
        left = timedelta(seconds=round(now.left_s))
        out.print(f"left: about {left} at that rate", highlight=False)
    for name, (trial, value) in now.best.items():
        out.print(f"best {name}: {value:,.6g} (trial {trial})", highlight=False)
    for trial, error in now.failures.items():
        out.print(f"failed: trial {trial}: {error}", highlight=False)


@app.command()
def report(
    folder: Folder,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="The file [default: DIR/report.html]."),
    ] = None,
) -> None:
    """Write one HTML file that answers the sweep's question: it needs no network."""
    out.print(f"written: {write_report(folder, out_file)}", highlight=False, soft_wrap=True)


@app.command("export")
def export_(
    folder: Folder,
    pick: Annotated[
        str, typer.Option(help="knee (of the front), best (top1), or a trial's number.")
    ],
    to: Annotated[Path, typer.Option(help="The folder to write: new, empty, or an export's.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights, as `train` writes them; without, random ones.")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train it first, as the sweep does, into --checkpoint.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Write a trial's network as ONNX and as a torch.export program, with a model card."""
    check_ready(to)
    if train and checkpoint is None:
        raise UserError(
            "--train: expected --checkpoint DIR too, the folder to keep the training in"
        )
    if train and checkpoint is not None:
        with resumable(checkpoint):
            notes = train_picked(folder, pick, checkpoint, resolve_device(device), out)
        if distributed.rank_of_launch():
            return
        if notes["diverged"]:
            fail("the training diverged; nothing was exported", 1)
    try:
        done = export(folder, pick, to, checkpoint)
    except ExportMismatch as error:
        fail(str(error), 1)
    worst = max(done.check.differences.values())
    out.print(f"{done.name}, {done.weights}", highlight=False)
    out.print(f"differs from PyTorch by at most {worst:.2g} (allowed: {done.check.tolerance:.2g})")
    for file in done.files:
        out.print(f"written: {file}", highlight=False, soft_wrap=True)


@app.command()
def figures(folder: Folder) -> None:
    """Draw the figures of a sweep, or of a bench, again from its tables."""
    files, left_out = draw_all(folder)
    for file in files:
        out.print(str(file), highlight=False, soft_wrap=True)
    for reason in left_out:
        err.print(f"left out: {reason}", highlight=False, markup=False, soft_wrap=True)


def _workers(text: str) -> int | None:
    """The number of `--workers`; None where it is left to us."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--workers: found {shown(text)}, expected auto, or a number from 1 on")
    return int(text)


def _cluster(
    spec: Spec,
    engine: str,
    address: str | None,
    cpus: float,
    gpus: float,
    workers: int | None,
) -> MakeEngine | None:
    """What makes the engine of a cluster; None on this machine."""
    if engine not in ("local", "ray"):
        raise UserError(f"--engine: found {engine!r}, expected local or ray")
    if engine == "local":
        if address:
            raise UserError("--address: expected no such option without --engine ray")
        return None
    try:
        from ..engine.on_ray import OnRay, connect
    except ImportError:
        raise UserError(
            '--engine ray: found no Ray; install it with pip install "sqzexplore[ray]"'
        ) from None
    room = connect(address, cpus, gpus)
    return lambda job, listener: OnRay(job, listener, cpus, gpus, workers or room)


def _follow(spec: Spec, device: torch.device) -> None:
    """What torchrun's other processes do in a sweep: help with its trainings."""
    if (data := load_data(spec, device)) is not None:
        assert spec.measure.accuracy is not None
        torch.set_num_threads(spec.measure.accuracy.threads)
        follow(data)


def _look_at(spec: Spec, source: Source | None) -> tuple[int | None, list[str]]:
    """How many architectures are feasible, exactly, and what to warn of in them.

    Where counting would take minutes or never end, the number is None, and the warnings are of some
    that are drawn.
    """
    space = spec.design_space
    looks = {"deployed": SmallMaps(space.variants[0])}
    if source:
        proxy = space.variants[-1]
        data = {"in_channels": source.channels, "num_classes": len(source.classes)}
        looks["trained"] = SmallMaps(replace(proxy, changes={**proxy.changes, **data}))
    feasible, whole = 0, space.enumerable and space.size <= _MOST_COUNTED
    for columns, rows in _feasible(space) if whole else _drawn(space):
        feasible += rows
        for look in looks.values():
            look.add(columns, rows)
    axes = [axis.field for axis in space.axes]
    texts = {
        f"{name} at {look.input_size}x{look.input_size} pixels": look.text(axes, drawn=not whole)
        for name, look in looks.items()
    }
    warnings = [f"{network}: {text}" for network, text in texts.items() if text]
    return feasible if whole else None, warnings


def _feasible(space: Space) -> Iterator[tuple[Columns, int]]:
    """The feasible architectures of a space as columns, block by block."""
    with RowsDisplay(err) as display:
        display.start("counting", space.size)
        for start, keep in space.blocks():
            numbers = start + np.flatnonzero(keep)
            yield space.columns_at(numbers), len(numbers)
            display.advance(len(keep))


def _drawn(space: Space) -> Iterator[tuple[Columns, int]]:
    """Those that are feasible of some drawn at random."""
    columns = space.sample(_DRAWN, seed=0)
    numbers = np.flatnonzero(space.feasible(columns, _DRAWN))
    yield take_rows(columns, numbers), len(numbers)


def _expected_cost(spec: Spec, trials: int, source: Source | None) -> dict[str, str]:
    """What a run will do: trainings, their arithmetic, measurements."""
    expected = {}
    space = spec.design_space
    if accuracy := spec.measure.accuracy:
        budgets = accuracy.budgets
        count = trials * accuracy.seeds * len(budgets)
        each = " or ".join(map(str, budgets))
        expected["trainings"] = f"{count:,}, of {each} epochs{' each' * (len(budgets) == 1)}"
        assert source is not None
        expected["data"] = source.description
        if spec.search.sampler == "grid" and trials <= 10_000:
            images = len(source.train) * sum(budgets) * accuracy.seeds
            macs = sum(training_macs(space.architecture(i), spec, source) for i in space.indices())
            # Forward, gradient of the inputs, gradient of the weights: three times the forward.
            expected["training arithmetic"] = f"{6 * macs * images / 1e12:,.1f} TFLOPs"
    if throughput := spec.measure.throughput:
        count = trials * len(throughput.settings("cpu", spec.input_size))
        auto = throughput.batch == "auto"
        count *= 1 if auto else len(throughput.batch)
        expected["throughput measurements"] = (
            f"{count:,}{' times the batches that auto takes' if auto else ''}, "
            f"at most about {throughput.seconds * 1.5:g} s each where a pass is short"
        )
    expected["objectives"] = ", ".join(f"{k}: {v}" for k, v in spec.objectives.items())
    return expected


def _print_files(folder: Path, files: list[Path]) -> None:
    out.print(f"tables:  {folder}/trials.csv (and .parquet)", highlight=False, soft_wrap=True)
    for file in files:
        if file.suffix == ".png":
            out.print(f"figure:  {file} (and .pdf)", highlight=False, soft_wrap=True)
