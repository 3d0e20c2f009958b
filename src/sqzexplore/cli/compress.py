"""`compress`: trained weights as a file of a few bits a weight."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from .app import Device, Set, app, out

if TYPE_CHECKING:
    from ..compress.network import Compressed
    from ..compress.settings import Compression
    from ..evaluation.checkpoints import Notes
    from ..network.module import SqueezeNet


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
    data: Annotated[
        str | None,
        typer.Option(help="Images to retrain on, as of evaluate [default: no retraining]."),
    ] = None,
    finetune_epochs: Annotated[
        int | None,
        typer.Option(min=0, help="Passes after pruning, and as many after sharing [default: 4]."),
    ] = None,
    preset_name: Annotated[
        str | None, typer.Option("--preset", help="The architecture of a file of weights alone.")
    ] = None,
    set_: Set = None,
    device: Device = "auto",
) -> None:
    """Prune trained weights, share and Huffman-code what is left (Deep Compression)."""
    from ..compress.network import compress
    from ..compress.settings import Compression
    from ..evaluation.checkpoints import network_of
    from ..files import check_writable, home, write_atomically
    from ..published import alexnet_params
    from ..results.shown import ShownColumn
    from .describe import given_architecture
    from .terminal import terminal_table

    to = home(to)
    if to.is_dir() or not to.parent.is_dir():
        found = "a folder" if to.is_dir() else f"no folder {to.parent}"
        raise UserError(f"--to {to}: found {found}, expected a file in a folder that exists")
    check_writable(to.parent, "--to")
    if data is None and finetune_epochs is not None:
        raise UserError(
            f"--finetune-epochs: found {finetune_epochs}, expected --data DATA beside it"
        )
    setting = Compression(density, bits, 4 if finetune_epochs is None else finetune_epochs)
    net, notes = network_of(home(checkpoint), given_architecture(preset_name, set_))
    if data is None:
        done = compress(net, density, bits, notes)
        said = "without retraining, so its accuracy has to be measured anew: sqzexplore evaluate "
        said += f"{to} --data DIR. It is storage, not speed."
    else:
        done, said = _retrained(net, notes, setting, data, device)
    write_atomically(to, done.content)
    columns = [
        ShownColumn("layer", lambda layer: layer.name, words=True),
        ShownColumn("weights", lambda layer: f"{layer.weights:,}"),
        ShownColumn("survive", lambda layer: f"{layer.survivors:,}"),
        ShownColumn("centroids", lambda layer: f"{layer.centroids:,}"),
        ShownColumn("bytes", lambda layer: f"{layer.bytes:,}"),
        ShownColumn("bits a weight", lambda layer: f"{8 * layer.bytes / layer.weights:.2f}"),
    ]
    out.print(terminal_table("", columns, done.layers))
    alexnet = 4 * alexnet_params() / 1e6  # float32, as the network's own
    out.print(
        f"{done.compressed_mb:.3f} MB, {done.float32_bytes / len(done.content):.1f}x smaller than "
        f"its float32 and {alexnet / done.compressed_mb:.0f}x than AlexNet's {alexnet:.1f} MB",
        highlight=False,
    )
    out.print(said, highlight=False, soft_wrap=True)
    out.print(f"written: {to}", highlight=False, soft_wrap=True)


def _retrained(
    net: SqueezeNet, notes: Notes, setting: Compression, data: str, device: str
) -> tuple[Compressed, str]:
    """The network compressed and retrained on its images, and what became of its accuracy."""
    from ..data.images import load
    from ..data.open import open_data
    from ..evaluation.checkpoints import check_fits, evaluate, normalised_for, recipe_of_notes
    from ..measure.devices import resolve_device
    from ..train.finetune import deep_compression, finished
    from .progress import RowsDisplay

    on = resolve_device(device)
    try:
        source = open_data(data)
    except UserError as error:
        raise error.at("--data") from None
    recipe, size = recipe_of_notes(notes), int(str(notes.get("image_size", 224)))
    images = normalised_for(load(source, size, recipe.augmentation).to(on), notes)
    check_fits(net.architecture, images)
    net = net.to(on)
    before = evaluate(net, images, "test")
    work = deep_compression(net, images, recipe, int(str(notes.get("seed", 0))), setting)
    steps = setting.epochs * math.ceil(len(images.train) / recipe.batch_size)
    with RowsDisplay(out) as display:
        display.start("fine-tuning", steps, "steps")
        found = finished(work, lambda: display.advance(1))
    said = (
        f"{source.name}, test top-1 {found.run.compressed_top1:.2f}%, {before.top1:.2f}% before "
        f"({before.images:,} images; fine-tuned for {setting.epochs} epochs on {on}). "
        "It is storage, not speed."
    )
    return found.compressed, said
