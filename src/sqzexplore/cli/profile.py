"""`profile`: what a device takes for a whole space, from few networks that are measured there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..files import home
from .app import ByTurns, Device, app, err, fail, listed, out, resumable

if TYPE_CHECKING:
    import torch

    from ..measure.settings import Settings
    from ..network.architecture import Architecture
    from ..predict.profile import Profile
    from ..spec.models import Spec, ThroughputSpec


@app.command()
def profile(
    to: Annotated[
        Path,
        typer.Option(
            metavar="FILE.json",
            help="The profile, written after every network; the same command goes on with it.",
        ),
    ],
    spec_file: Annotated[
        Path | None, typer.Argument(metavar="[SPEC]", help="The space, as a sweep's YAML file.")
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="PROBE.json",
            help="Take what a board measured instead, at --batch and --dtype.",
        ),
    ] = None,
    device: Device = "auto",
    runtime: Annotated[str, listed("runtime")] = "torch",
    dtype: Annotated[str, listed("dtype")] = "float32",
    batch: Annotated[int, typer.Option(min=1, max=65536, help="Images in one pass.")] = 1,
    networks: Annotated[int, typer.Option(help="Networks to draw and measure, 20 or more.")] = 60,
    seconds: Annotated[float, typer.Option(help="Time budget of a network, s.")] = 1.0,
    processes: ByTurns = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing.")] = 0,
) -> None:
    """Measure random networks on a device, and audit the latencies predicted from them.

    `census SPEC --predict FILE.json` then predicts the latency of a whole space.
    """
    to = home(to)
    if (spec_file is None) == (probe is None):
        raise UserError("profile: expected a SPEC to measure, or --import PROBE.json, one of them")
    if probe is not None:
        _audit(_imported(home(probe), to, batch, dtype))
        return
    assert spec_file is not None
    from ..measure.devices import resolve_device
    from ..predict.trained import LEAST
    from ..spec.load import load_spec
    from .measuring import parse

    if networks < LEAST:
        raise UserError(f"--networks: found {networks}, expected at least {LEAST}")
    for option, text in (("--runtime", runtime), ("--dtype", dtype)):
        if "," in text:
            raise UserError(f"{option}: found {text}, expected one: a profile is of one setting")
    on, spec = resolve_device(device), load_spec(spec_file)
    options = {"batch": str(batch), "dtype": dtype, "runtime": runtime}
    requested = parse(options, seconds, on, processes)
    _audit(_measured(spec, to, requested, batch, on, networks, seed))


def _measured(
    spec: Spec,
    to: Path,
    requested: ThroughputSpec,
    batch: int,
    device: torch.device,
    networks: int,
    seed: int,
) -> Profile:
    """The profile with every network that is asked for; those that it held are not measured."""
    from dataclasses import asdict, replace

    from .. import provenance
    from ..measure.apart import default_processes
    from ..predict.profile import Profile
    from .measuring import drawn
    from .tables import reasons

    [at] = requested.settings(str(device), spec.input_size)
    settings = replace(at, batch=batch)
    count = requested.processes or default_processes(str(device))
    origin = provenance.of_sweep(str(device))
    own = {"source": "profile", "spec": spec.name, "seed": seed, "seconds": requested.seconds}
    own |= {"processes": count, **asdict(settings), "threads": origin["threads"]}
    own |= {"device_name": origin["device_name"], "version": _version(settings.runtime)}
    held = Profile(to, own, origin)
    found = len(held.rows)
    chosen = drawn(spec, max(networks, found), seed)
    held.require_drawn(chosen)
    for architecture in chosen:  # before minutes are spent on the others
        architecture.check_input_size(settings.input_size)
    _measure(held, chosen, settings, requested.seconds, count, spec.name)
    named = [{"architecture": row["arch_id"], **row} for row in held.rows]
    for reason in reasons(named):
        err.print(reason, soft_wrap=True)
    there = f"{len(held.rows)} networks, {found} were there already"
    err.print(f"{to}: {there}", highlight=False, soft_wrap=True)
    return held


def _measure(
    held: Profile,
    chosen: list[Architecture],
    settings: Settings,
    seconds: float,
    count: int,
    sweep: str,
) -> None:
    """Measure what a profile does not hold, and write it after each."""
    from contextlib import closing
    from dataclasses import asdict

    import torch

    from .. import provenance
    from ..measure.apart import Processes
    from ..measure.devices import DeviceLost
    from ..predict.profile import profile_row
    from .progress import RowsDisplay

    origin: dict[str, Any] = {
        "sweep": sweep,
        "sqzexplore_version": provenance.version(),
        "git_commit": provenance.git_commit(),
        "torch_version": torch.__version__,
        "device_name": provenance.device_name(settings.device),
    }
    with (
        resumable(held.path),
        closing(Processes(count, torch.get_num_threads())) as processes,
        RowsDisplay(err) as display,
    ):
        display.start("measuring", len(chosen), "networks")
        display.advance(len(held.rows))
        for architecture in chosen[len(held.rows) :]:
            try:
                measured = processes.measure(architecture, settings, seconds)
            except DeviceLost as error:
                fail(f"this process has lost the GPU ({error}); run the same command again", 1)
            held.rows.append(profile_row(architecture, origin | asdict(measured), "random"))
            held.write()
            display.advance(1)


def _version(runtime: str) -> str:
    """The version of what runs the networks: rows of two do not compare."""
    from importlib.metadata import version

    return version(runtime)


def _imported(probe: Path, to: Path, batch: int, dtype: str) -> Profile:
    """The profile of what a board measured, in the place of an earlier one of the same board."""
    from dataclasses import fields

    from ..deploy.probe import read_probe
    from ..measure.reference import REFERENCE
    from ..measure.settings import Settings
    from ..predict.profile import Profile, profile_row
    from ..predict.trained import LEAST

    probed = read_probe(probe)
    every = [row for row in probed.rows if row["architecture"] != REFERENCE]
    rows = [row for row in every if (row["batch"], row["dtype"]) == (batch, dtype)]
    if every and not rows:
        there = sorted({f"--batch {row['batch']} --dtype {row['dtype']}" for row in every})
        raise UserError(
            f"--import {probe}: found no network at batch {batch}, {dtype}, expected one of: "
            f"{', '.join(there)}"
        )
    if (count := len({row["net_id"] for row in rows})) < LEAST:
        raise UserError(
            f"--import {probe}: found {count} networks, expected at least {LEAST}; "
            "sqzexplore probe SPEC --networks 60 --to DIR makes a larger probe"
        )
    shared = (*(field.name for field in fields(Settings)), "threads", "device_name")
    own = {"source": "probe", **{name: rows[0][name] for name in shared}}
    held = Profile(to, own, probed.board)
    held.rows = []
    for row in rows:
        measured = {name: value for name, value in row.items() if name != "architecture"}
        architecture = probed.architectures[row["architecture"]]
        held.rows.append(profile_row(architecture, measured, probed.sampler))
    held.write()
    return held


def _audit(held: Profile) -> None:
    """Say what the latencies predicted from a profile are worth, and write that into it."""
    from ..predict.fit import fit
    from ..predict.profile import TARGET, load_profile
    from ..predict.verdict import audit_lines, within
    from .predict import audit_with_status, print_audit

    with resumable(held.path):
        rows = load_profile(held.path)
        said = fit(rows, TARGET).remarks()
        found = audit_with_status(rows, TARGET)
        held.audit = [*said, *audit_lines(found.rows), within(found.rows)]
        held.write()
    print_audit(found, held.audit)
    out.print(f"written: {held.path}", highlight=False, soft_wrap=True)
