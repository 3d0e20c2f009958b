"""`compress`: trained weights as a file of a few bits a weight."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .app import Set, app, out


@app.command("compress")
def compress_(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT|FILE.pth", help="Weights, ours or torch's.")
    ],
    to: Annotated[Path, typer.Option(help="The file to write, of any ending.")],
    density: Annotated[
        float, typer.Option(help="Share of each layer's weights that survives, 0 to 1.")
    ] = 0.33,
    bits: Annotated[int, typer.Option(help="Bits of an index into a codebook, 1 to 8.")] = 6,
    preset_name: Annotated[
        str | None, typer.Option("--preset", help="The architecture of a file of weights alone.")
    ] = None,
    set_: Set = None,
) -> None:
    """Prune trained weights, share and Huffman-code what is left (Deep Compression)."""
    from rich.table import Table

    from ..compress.network import compress
    from ..evaluation.checkpoints import network_of
    from ..files import check_writable, write_atomically
    from ..published import alexnet_params
    from .describe import given_architecture

    to = to.expanduser()
    if to.is_dir() or not to.parent.is_dir():
        found = "a folder" if to.is_dir() else f"no folder {to.parent}"
        raise UserError(f"--to {to}: found {found}, expected a file in a folder that exists")
    check_writable(to.parent, "--to")
    net, notes = network_of(checkpoint.expanduser(), given_architecture(preset_name, set_))
    done = compress(net, density, bits, notes)
    write_atomically(to, done.content)
    table = Table("layer", "weights", "survive", "centroids", "bytes", "bits a weight")
    for layer in done.layers:
        counts = (layer.weights, layer.survivors, layer.centroids, layer.bytes)
        table.add_row(
            layer.name,
            *(f"{count:,}" for count in counts),
            f"{8 * layer.bytes / layer.weights:.2f}",
        )
    out.print(table)
    alexnet = 4 * alexnet_params() / 1e6  # float32, as the network's own
    out.print(
        f"{done.compressed_mb:.3f} MB, {done.float32_bytes / len(done.content):.1f}x smaller than "
        f"its float32 and {alexnet / done.compressed_mb:.0f}x than AlexNet's {alexnet:.1f} MB",
        highlight=False,
    )
    out.print(
        "without retraining, so its accuracy has to be measured anew: sqzexplore evaluate "
        f"{to} --data DIR. It is storage, not speed.",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"written: {to}", highlight=False, soft_wrap=True)
