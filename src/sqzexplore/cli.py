"""The command line: what each verb says, and the exit codes.

0 done; 1 finished, but some trials failed; 2 the user's input is wrong; 130 interrupted.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import optuna
import pandas as pd
import torch
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from . import bench as bench_
from . import distributed, yamltext
from . import status as status_
from .architecture import FIELDS, KEYS, PRESETS, Architecture, preset
from .census import Query, take_census, write_census
from .checkpoint import MODEL_FILE
from .choices import choices
from .columns import format_value
from .completeness import SPEC_FILE, completeness
from .cost import COST_COLUMNS, Cost, cost
from .data import open_data
from .display import RowsDisplay, SweepDisplay, print_census, print_results
from .errors import UserError, field_problem, nearest, shown
from .evaluate import load_data, open_asked, recipe_of, training_macs
from .export import check_ready, export, train_picked
from .expressions import Expression
from .figures import write_figures
from .figures_analysis import write_analysis_figures
from .figures_census import write_census_figures
from .figures_throughput import write_throughput_figures
from .files import check_writable, exclusive
from .prepare import CHOICES
from .programs import ExportMismatch
from .report import write_report
from .results import load_results
from .space import Space
from .spec import AccuracySpec, Spec
from .storage import JOURNAL
from .study import MakeEngine, run_sweep
from .throughput import check_choices, resolve_device
from .train_one import Training, for_images, natural_size, train_one
from .training import follow


class _Terminal(Console):
    """rich ends the process with 1 when its reader has gone; `_Verbs` knows better."""

    def on_broken_pipe(self) -> None:
        """Leave it to `_Verbs`."""
        raise BrokenPipeError


class _Verbs(TyperGroup):
    """Typer swallows an interrupt in silence, and a reader that leaves is an error to it."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
            return done
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except BrokenPipeError:  # as `| head` leaves
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


app = typer.Typer(
    name="sqzexplore",
    cls=_Verbs,
    help="Design-space exploration of small convolutional networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
# Text is shown as it is: a question or a path may hold brackets that rich would take for markup.
out = _Terminal(width=None if sys.stdout.isatty() else 130, markup=False, emoji=False)
err = _Terminal(stderr=True, markup=False, emoji=False)

#: Combinations that `validate` goes through: less than a minute.
_MOST_COUNTED = 10**8

Preset = Annotated[str, typer.Argument(help=f"One of {', '.join(PRESETS)}.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a metaparameter.")
]
InputSize = Annotated[int, typer.Option(help="Side of the input image, pixels.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def _choices(key: str) -> Any:
    return typer.Option(help=f"{key}: {', '.join(CHOICES[key])}.")


Storage = Annotated[
    str | None,
    typer.Option(
        envvar="SQZEXPLORE_STORAGE",
        show_envvar=False,
        help="Database URL of the study [default: a file in the result folder]; it is also read "
        "from SQZEXPLORE_STORAGE, where no list of processes shows it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep's YAML file.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The result folder of a sweep.")]


def main() -> None:
    """Run the command line; a user's error is one message and exit code 2."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except UserError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(str(error), 1)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """The first one ends the verb in order; the second ends the process."""
    signal.signal(signum, _stop)
    raise KeyboardInterrupt


def _stop(signum: int, frame: FrameType | None) -> None:
    os._exit(130)


def _fail(message: str, code: int) -> NoReturn:
    print(f"sqzexplore: {message}", file=sys.stderr)
    sys.exit(code)


@app.command()
def sweep(
    spec_file: SpecFile,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Result folder [default: results/NAME].")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trials at once, each on its GPU or its share of the cores [default: 1; on a "
            "cluster as many as it has room for].",
        ),
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
    cluster = _cluster(spec, engine, address, trial_cpus, trial_gpus, workers)
    if cluster:
        place = torch.device("cpu")  # of this process; the tasks have what they declare
    elif place.type == "cuda" and (workers or 1) > 1 and device in ("auto", "cuda"):
        place = torch.device("cuda")  # all of them
    if (asked := spec.measure.throughput) and not cluster:
        check_choices(asked.dtype, asked.mode, place, f"{spec_file}: measure.throughput.")
    folder = out_dir or Path("results") / spec.name
    display = SweepDisplay(spec, out, quiet)
    with _resumable(folder):
        with distributed.group(place) as joined:
            if distributed.rank():
                return _follow(spec, joined)
            with display:
                outcome = run_sweep(spec, folder, joined, display, storage, workers or 1, cluster)
            distributed.told(None)
        with exclusive(folder):
            files, _ = _draw(folder)
    if not quiet:
        print_results(out, load_results(folder), spec)
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
        feasible = _count(space)
        known = f"{feasible:,}" if feasible is not None else "an unknown number (too many to count)"
        table.add_row("architectures", f"{space.size:,}, of which {known} are feasible")
        if feasible is not None:
            trials = feasible if trials is None else min(trials, feasible)
    if timeout := spec.search.timeout:
        table.add_row("timeout", f"{timeout:,.0f} s")
    if trials is not None:
        table.add_row("trials", f"{trials:,} ({spec.search.sampler})")
        for name, text in _expected_cost(spec, trials).items():
            table.add_row(name, text)
    out.print(table)


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
        print(json.dumps({"arch_id": architecture.arch_id, **plain}, indent=2))
        return
    _print_architecture(preset_name, counted)


@app.command()
def census(
    spec_file: SpecFile,
    where: Annotated[
        str | None, typer.Option(help="Condition that rows must meet: 'params < 5e5'.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Show and write the first N only.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="Columns to sort by, commas; -macs: descending [default: macs]."),
    ] = None,
    minimize: Annotated[
        str | None,
        typer.Option(help="Columns of the Pareto front [default: the spec's, or params,macs]."),
    ] = None,
    maximize: Annotated[str | None, typer.Option(help="The same, the other way round.")] = None,
    sample: Annotated[
        int | None, typer.Option(help="Draw N architectures instead of looking at all.")
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.parquet", help="Write the rows kept.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Write the front, a summary and figures into this folder.")
    ] = None,
) -> None:
    """Count the exact cost of every architecture of a spec: filter, rank, Pareto front."""
    spec = Spec.load(spec_file)
    if sort is not None and top is None and out_file is None:
        top = 10  # an order is for looking at its beginning
    if sort is None and top is not None:
        sort = "macs"
    query = _query(spec, where, sort, top, minimize, maximize, sample)
    _check_places(out_file, folder)
    try:
        with RowsDisplay(err) as display:
            taken = take_census(spec.design_space, query, out_file, display)
        files = [out_file] if out_file else []
        if folder:
            files += write_census(taken, spec, folder)
            files += write_census_figures(taken, spec.name, folder)
    except OSError as error:
        _fail(f"{error.strerror or error}; no file was left half-written", 1)
    print_census(out, taken, f"{spec.name}: {spec.question}")
    for file in files:
        out.print(f"written: {file}", highlight=False, soft_wrap=True)


@app.command()
def bench(
    target: Annotated[str, typer.Argument(metavar="[PRESET|SPEC]")] = "squeezenet1_0",
    device: Device = "auto",
    batch: Annotated[
        str, typer.Option(help="Batch sizes, or auto: doubled until throughput is flat.")
    ] = "1,64",
    dtype: Annotated[str, _choices("dtype")] = "float32",
    memory_format: Annotated[str, _choices("memory_format")] = "channels_last",
    form: Annotated[str, _choices("form")] = "module",
    mode: Annotated[str, _choices("mode")] = "eager",
    input_size: Annotated[str, typer.Option(help="Sides of the input image, pixels.")] = "224",
    seconds: Annotated[float, typer.Option(help="Time budget of a measurement, s.")] = 1.0,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Write the table, with provenance, here.")
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
    with err.status("") as status:
        run = bench_.run_layers if by_layer else bench_.run
        rows = run(architectures, asked, place, out_dir, status.update)
    if out_dir:
        bench_.write(rows, architectures, Path(target).stem, out_dir)
        _draw(out_dir)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        out.print(bench_.layers_table(rows) if by_layer else bench_.table(rows))


@app.command("train")
def train_(
    preset_name: Preset = "squeezenet1_0",
    set_: Set = None,
    data: Annotated[
        str, typer.Option(help="digits, a folder of images, or a Hugging Face owner/name.")
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
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
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
    training = Training(architecture, recipe_of(asked), seed, folder)
    with _resumable(folder):
        notes = train_one(training, source, size, place, out)
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


@app.command()
def results(folder: Folder, as_json: Json = False) -> None:
    """Print the table of a sweep."""
    rows = load_results(folder)
    if as_json:
        print(rows.to_json(orient="records", indent=2))
        return
    spec = Spec.load(folder / SPEC_FILE)
    print_results(out, rows, spec)
    for line in [*choices(spec, rows, _seeds(folder)), f"in the table: {completeness(folder)}"]:
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
        with _resumable(checkpoint):
            notes = train_picked(folder, pick, checkpoint, resolve_device(device), out)
        if distributed.rank_of_launch():
            return
        if notes["diverged"]:
            _fail("the training diverged; nothing was exported", 1)
    try:
        done = export(folder, pick, to, checkpoint)
    except ExportMismatch as error:
        _fail(str(error), 1)
    worst = max(done.check.differences.values())
    out.print(f"{done.name}, {done.weights}", highlight=False)
    out.print(f"differs from PyTorch by at most {worst:.2g} (allowed: {done.check.tolerance:.2g})")
    for file in done.files:
        out.print(f"written: {file}", highlight=False, soft_wrap=True)


@app.command()
def figures(folder: Folder) -> None:
    """Draw the figures of a sweep, or of a bench, again from its tables."""
    files, left_out = _draw(folder)
    for file in files:
        out.print(str(file), highlight=False, soft_wrap=True)
    for reason in left_out:
        err.print(f"left out: {reason}", highlight=False, markup=False, soft_wrap=True)


# --- parts of the verbs ------------------------------------------------------------------------


def _seeds(folder: Path) -> pd.DataFrame | None:
    """The trainings of a sweep; None if it made none."""
    return load_results(folder, "seeds") if (folder / "seeds.parquet").exists() else None


def _draw(folder: Path) -> tuple[list[Path], list[str]]:
    """The figures of what the folder holds, a sweep's trials and throughput; what was left out."""
    files: list[Path] = []
    left_out: list[str] = []
    if (folder / "trials.parquet").exists() or not (folder / "throughput.parquet").exists():
        trials, spec = load_results(folder), Spec.load(folder / SPEC_FILE)
        files += write_figures(spec, trials, folder)
        drawn, left_out = write_analysis_figures(spec, trials, _seeds(folder), folder)
        files += drawn
    if (folder / "throughput.parquet").exists():
        files += write_throughput_figures(load_results(folder, "throughput"), folder)
    return files, left_out


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Say how to go on after an interrupt, or when the disk gives out."""
    again = f"what was measured is kept in {folder}; run the same command again to resume"
    try:
        yield
    except KeyboardInterrupt:
        _fail(f"interrupted; {again}", 130)
    except OSError as error:
        _fail(f"{error}; {again}", 1)


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
    if spec.measure.throughput and (gpus < 1 or gpus != int(gpus)):
        raise UserError(
            f"--trial-gpus: found {gpus:g}, expected a GPU for each trial alone: the spec measures "
            "throughput, which neighbours would disturb"
        )
    try:
        from .engine.on_ray import OnRay, connect
    except ImportError:
        raise UserError(
            '--engine ray: found no Ray; install it with pip install "sqzexplore[ray]"'
        ) from None
    room = connect(address, cpus, gpus)
    return lambda job, listener: OnRay(job, listener, cpus, gpus, workers or room)


def _follow(spec: Spec, device: torch.device) -> None:
    """What torchrun's other processes do in a sweep: help with its trainings."""
    if (data := load_data(spec, device)) is not None:
        follow(data)


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


def _query(
    spec: Spec,
    where: str | None,
    sort: str | None,
    top: int | None,
    minimize: str | None,
    maximize: str | None,
    sample: int | None,
) -> Query:
    """The options of `census`; without any of its own, the front is that of the spec."""
    try:
        condition = Expression(where) if where is not None else None
    except UserError as error:
        raise UserError(f"--where: {error}") from None
    least, most = _names(minimize), _names(maximize)
    if not least and not most:
        goals = spec.search.objectives
        if not goals or not set(goals) <= set(COST_COLUMNS):
            goals = {"params": "minimize", "macs": "minimize"}
        least = tuple(name for name, goal in goals.items() if goal == "minimize")
        most = tuple(name for name, goal in goals.items() if goal == "maximize")
    return Query(condition, _names(sort), top, least, most, sample, spec.search.seed)


def _check_places(out_file: Path | None, folder: Path | None) -> None:
    """Refuse, before anything is counted, what could not be written or would be overwritten."""
    if out_file:
        if out_file.is_dir():
            raise UserError(f"--out {out_file}: found a folder, expected a file")
        if not out_file.parent.is_dir():
            raise UserError(f"--out {out_file}: there is no folder {out_file.parent}")
        check_writable(out_file.parent, "--out")
    if folder:
        check_writable(folder, "--folder")
        if (folder / JOURNAL).exists() or (folder / "trials.parquet").exists():
            raise UserError(f"--folder {folder}: holds the results of a sweep, choose another")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text is not None else ()


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


def _count(space: Space) -> int | None:
    """How many architectures are feasible, exactly; None where counting would take minutes."""
    if space.size > _MOST_COUNTED:
        return None
    with RowsDisplay(err) as display:
        display.start("counting", space.size)
        return space.count(display.advance)


def _expected_cost(spec: Spec, trials: int) -> dict[str, str]:
    """What a run will do: trainings, their arithmetic, measurements."""
    expected = {}
    space = spec.design_space
    if accuracy := spec.measure.accuracy:
        expected["trainings"] = f"{trials * accuracy.seeds:,}, of {accuracy.epochs} epochs each"
        source = open_asked(accuracy)
        expected["data"] = source.description
        if spec.search.sampler == "grid" and trials <= 10_000:
            images = len(source.train) * accuracy.epochs * accuracy.seeds
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
