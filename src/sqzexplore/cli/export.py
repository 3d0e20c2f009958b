"""`export`: the network of a trial as files of other programs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .app import Device, Folder, app, fail, out, resumable


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
    compress: Annotated[
        int | None,
        typer.Option(
            metavar="BITS", help="Also a compressed file, retrained: bits of an index, 1 to 8."
        ),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8: also an ONNX file in 8-bit integers.")
    ] = None,
    litert: Annotated[
        bool, typer.Option("--litert", help="Also files for LiteRT, float32 and int8.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Write a trial's network as ONNX and as a torch.export program, with a model card."""
    from ..deploy.artifacts import ExportMismatch
    from ..deploy.export import check_ready, export, train_picked
    from ..measure.devices import resolve_device
    from ..train import distributed
    from .progress import Live

    check_ready(to)
    if train and checkpoint is None:
        raise UserError(
            "--train: expected --checkpoint DIR too, the folder to keep the training in"
        )
    if train and checkpoint is not None:
        with resumable(checkpoint):
            notes = train_picked(
                folder, pick, checkpoint, resolve_device(device), partial(Live, out)
            )
        if distributed.rank_of_launch():
            return
        if notes["diverged"]:
            fail("the training diverged; nothing was exported", 1)
    try:
        done = export(folder, pick, to, checkpoint, compress, quantize, litert)  # type: ignore[arg-type]
    except ExportMismatch as error:
        fail(str(error), 1)
    worst = max(done.check.differences.values())
    out.print(f"{done.name}, {done.weights}", highlight=False)
    out.print(f"differs from PyTorch by at most {worst:.2g} (allowed: {done.check.tolerance:.2g})")
    for small in done.smaller:
        out.print(
            f"{small.name}: {small.bytes / 1e6:.3f} MB, test top-1 {small.top1:.2f}%, "
            f"{small.float32_top1:.2f}% before; {small.how}",
            highlight=False,
            soft_wrap=True,
        )
    for file in done.files:
        out.print(f"written: {file}", highlight=False, soft_wrap=True)
