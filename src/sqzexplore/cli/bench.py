"""`bench`: throughput of a preset, or of every architecture of a spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..files import home
from .app import ByTurns, Device, Json, app, err, fail, listed, out, resumable

if TYPE_CHECKING:
    import torch

    from ..network.architecture import Architecture
    from ..spec.models import ThroughputSpec
    from . import measuring as bench_


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
    runtime: Annotated[str, listed("runtime")] = "torch",
    input_size: Annotated[
        str | None,
        typer.Option(help="Sides of the input image, pixels [default: the spec's, else 224]."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time budget of a measurement, s.")] = 1.0,
    processes: ByTurns = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write the table, with provenance, here, after every measurement; what is there "
            "already is not measured again.",
        ),
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="PROBE.json",
            help="Take what a board measured instead.",
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
    from ..measure.devices import resolve_device
    from . import measuring as bench_
    from . import tables

    on = resolve_device(device)
    if by_layer and probe is not None:
        raise UserError("--import: expected no --layers with it, which a board does not measure")
    if probe is not None:
        return _imported(home(probe), out_dir, on, as_json)
    options = {"batch": batch, "dtype": dtype, "memory_format": memory_format, "form": form}
    if by_layer and out_dir:
        raise UserError("--out: expected no such option with --layers, which is for the eyes")
    architectures, own_size = bench_.targets(target)
    options |= {"mode": mode, "runtime": runtime, "input_size": input_size or str(own_size)}
    requested = bench_.parse(options, seconds, on, processes)
    if by_layer:
        with err.status("") as status:
            rows = bench_.run_layers(architectures, requested, on, None, status.update)
    else:
        store = bench_.ThroughputStore(out_dir, Path(target).stem, on)
        rows = _measured(architectures, requested, on, store)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    out.print(tables.layers_table(rows) if by_layer else tables.throughput_table(rows))
    for reason in [] if by_layer else tables.reasons(rows):
        out.print(reason, soft_wrap=True)


def _imported(probe: Path, folder: Path | None, device: torch.device, as_json: bool) -> None:
    """Show what a board measured, and write it where that is asked for."""
    from ..deploy.probe import read_probe
    from ..figures.draw_all import draw_all
    from . import measuring as bench_
    from . import tables

    probed = read_probe(probe)
    bench_.ThroughputStore(folder, "probe", device).add_imported(probed.rows, probed.board)
    if folder:
        draw_all(folder)
    if as_json:
        print(json.dumps(probed.rows, indent=2))
        return
    out.print(tables.throughput_table(probed.rows))
    if folder:
        out.print(f"written: {folder}/throughput.csv", highlight=False, soft_wrap=True)


def _measured(
    architectures: Mapping[str, Architecture],
    requested: ThroughputSpec,
    device: torch.device,
    store: bench_.ThroughputStore,
) -> list[dict[str, Any]]:
    """The rows, written and drawn where they are kept."""
    from ..figures.draw_all import draw_all
    from ..measure.devices import DeviceLost
    from . import measuring as bench_

    with resumable(store.folder) if store.folder else nullcontext():
        try:
            with err.status("") as status:
                rows = bench_.run(architectures, requested, device, store, status.update)
        except DeviceLost as error:
            fail(f"this process has lost the GPU ({error}); run the same command again", 1)
        if store.folder:
            draw_all(store.folder)
            there = f"{len(rows)} measurements, {store.found} were there already"
            err.print(f"{store.folder}: {there}", soft_wrap=True)
    return rows
