"""`evaluate`: the accuracy of trained weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from ..files import home
from .app import Device, Json, Set, app, out


@app.command("evaluate")
def evaluate_(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT|FILE.pth", help="Weights, ours or torch's.")
    ],
    data: Annotated[
        str, typer.Option(help="digits, fashion, a folder of images, or a Hugging Face owner/name.")
    ],
    preset_name: Annotated[
        str | None, typer.Option("--preset", help="The architecture of a file of weights alone.")
    ] = None,
    set_: Set = None,
    split: Annotated[str, typer.Option(help="test, validation, train, or all.")] = "test",
    image_size: Annotated[
        int | None,
        typer.Option(min=8, max=1024, help="Side of the images [default: the training's, or 224]."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure top-1 and top-5 of trained weights on any data set."""
    from ..data.images import SPLITS, load
    from ..data.open import open_data
    from ..evaluation.checkpoints import evaluate, network_of, normalised_for
    from ..measure.devices import resolve_device
    from .describe import given_architecture

    on = resolve_device(device)
    if split not in (*SPLITS, "all"):
        raise UserError(f"--split: found {split!r}, expected one of {', '.join(SPLITS)}, all")
    given = given_architecture(preset_name, set_)
    net, notes = network_of(home(checkpoint), given)
    try:
        source = open_data(data)
    except UserError as error:
        raise error.at("--data") from None
    size = image_size or int(str(notes.get("image_size", 224)))
    images = normalised_for(load(source, size, "none").to(on), notes)
    found = evaluate(net.to(on), images, split)
    if as_json:
        named = {"data": source.name, "data_sha256": source.sha256, "split": split}
        whole = named | {"image_size": size, "net_id": net.architecture.net_id} | asdict(found)
        if math.isnan(found.top5):
            whole["top5"] = None
        print(json.dumps(whole, indent=2))
        return
    top5 = "" if math.isnan(found.top5) else f", top-5 {found.top5:.2f}%"
    out.print(
        f"network {net.architecture.net_id}, {source.name} at {size}x{size}: {split} top-1 "
        f"{found.top1:.2f}% (95% {found.top1_low:.2f} to {found.top1_high:.2f} over "
        f"{found.images:,} images){top5}",
        highlight=False,
        soft_wrap=True,
    )
