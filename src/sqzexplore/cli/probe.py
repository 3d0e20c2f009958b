"""`probe`: a folder that measures networks on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from ..files import home
from .app import app, out


@app.command()
def probe(
    to: Annotated[Path, typer.Option(help="The folder to write: new, empty, or a probe's.")],
    target: Annotated[str, typer.Argument(metavar="[PRESET|SPEC]")] = "squeezenet1_0",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1",
    dtype: Annotated[str, typer.Option(help="float32, int8.")] = "float32,int8",
    input_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65536,
            help="Side of the input image, pixels [default: the spec's, else 224].",
        ),
    ] = None,
    networks: Annotated[
        int | None,
        typer.Option(min=1, help="Draw so many of the spec's networks at random, not all."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing.")] = 0,
) -> None:
    """Write a folder that measures networks on a board with numpy and onnxruntime alone."""
    from ..deploy.probe import RESULT, SCRIPT, write_probe
    from ..network.presets import PRESETS
    from ..spec.load import load_spec
    from .measuring import drawn, positive, targets

    to = home(to)
    batches = [positive(item.strip(), "--batch", "1,16") for item in batch.split(",")]
    dtypes = [item.strip() for item in dtype.split(",")]
    if len({*batches}) < len(batches) or len({*dtypes}) < len(dtypes):
        raise UserError("--batch, --dtype: expected each value once")
    if networks is None:
        (chosen, own_size), sampler = targets(target), "" if target in PRESETS else "grid"
    elif target in PRESETS:
        raise UserError(f"--networks: found the preset {target}, expected a spec to draw from")
    else:
        spec = load_spec(target)
        chosen, sampler = {a.arch_id: a for a in drawn(spec, networks, seed)}, "random"
        own_size = spec.input_size
    files = write_probe(chosen, to, batches, dtypes, input_size or own_size, sampler)
    size = sum(file.stat().st_size for file in files) / 1e6
    out.print(f"written: {to}, {len(files)} files, {size:.1f} MB", highlight=False, soft_wrap=True)
    out.print(
        f"copy it to the board and run python3 {SCRIPT} there (it needs numpy and onnxruntime), "
        f"copy {RESULT} back, then: sqzexplore bench --import {RESULT} --out DIR",
        highlight=False,
        soft_wrap=True,
    )
