"""The verbs of a sweep and of its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError, shown
from .app import (
    Changes,
    Device,
    SpecFile,
    Storage,
    app,
    err,
    out,
    resumable,
    silence_optuna,
    warn_of_emulation,
)

if TYPE_CHECKING:
    import torch

    from ..spec.models import Spec
    from ..sweep.run import MakeEngine

#: Trainings by turns on a GPU, if nothing else is asked for: of one, launches leave it idle.
_PACKED = 24


@app.command()
def sweep(
    spec_file: SpecFile,
    changes: Changes = None,
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
        typer.Option(min=1, help="Trainings by turns in each [default: 24 on a GPU, else 1]."),
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
    import torch

    from ..figures.draw_all import draw_all
    from ..files import exclusive
    from ..measure.devices import check_choices, resolve_device
    from ..measure.runtimes import check_runtimes
    from ..results.folder import ResultFolder, load_results
    from ..spec.load import load_spec
    from ..sweep.going_on import news
    from ..sweep.run import run_sweep, workers_for
    from ..train import distributed
    from .progress import SweepDisplay
    from .results import print_files
    from .tables import print_results

    silence_optuna()
    spec = load_spec(spec_file, changes or ())
    on = resolve_device(device)
    requested_workers = _workers(workers)
    cluster = _cluster(spec, engine, address, trial_cpus, trial_gpus, requested_workers)
    if cluster:
        on = torch.device("cpu")  # of this process; the tasks have what they declare
    elif on.type == "cuda" and requested_workers != 1 and device in ("auto", "cuda"):
        on = torch.device("cuda")  # all of them
    count = 1 if cluster else requested_workers or workers_for(spec, on)
    if on == torch.device("cuda") and count == 1:
        on = torch.device("cuda:0")
    if (requested := spec.measure.throughput) and not cluster:
        check_choices(requested.dtype, requested.mode, on, f"{spec_file}: measure.throughput.")
        check_runtimes(requested.runtime, requested.dtype, on, f"{spec_file}: measure.throughput.")
    folder = out_dir or Path("results") / spec.name
    if not quiet:
        for line in news(spec, folder):
            out.print(f"goes on from what is in {folder}; new: {line}", markup=False)
    display = SweepDisplay(spec, out, quiet)
    with resumable(folder):
        with distributed.group(on) as joined:
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
            distributed.broadcast(None)
        with exclusive(folder):
            files, _ = draw_all(folder)
    if not quiet:
        print_results(out, load_results(folder), spec, ResultFolder(folder).table("seeds"))
        print_files(folder, files)
    if outcome.failures:
        for failure in outcome.failures:
            err.print(f"failed: {failure}", markup=False, highlight=False)
        raise typer.Exit(1)


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
        from ..executors.ray_cluster import OnRay, connect
    except ImportError:
        raise UserError(
            '--engine ray: found no Ray; install it with pip install "sqzexplore[ray]"'
        ) from None
    room = connect(address, cpus, gpus)
    return lambda job, listener: OnRay(job, listener, cpus, gpus, workers or room)


def _follow(spec: Spec, device: torch.device) -> None:
    """What torchrun's other processes do in a sweep: help with its trainings."""
    import torch

    from ..evaluation.workload import load_data
    from ..train.loop import follow

    if (data := load_data(spec, device)) is not None:
        assert spec.measure.accuracy is not None
        torch.set_num_threads(spec.measure.accuracy.threads)
        follow(data)
