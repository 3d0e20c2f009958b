"""The verbs of one architecture, and of throughput."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import UserError, field_problem, nearest, shown
from ..network.presets import preset
from .app import InputSize, Json, Preset, Set, app, err, out

if TYPE_CHECKING:
    from ..network.architecture import Architecture
    from ..network.cost import Cost


@app.command()
def describe(
    preset_name: Preset = "squeezenet1_0",
    set_: Set = None,
    input_size: InputSize = 224,
    as_json: Json = False,
) -> None:
    """Show an architecture layer by layer, as the paper's table 1 does."""
    from ..network.cost import cost
    from ..space import small_maps

    architecture = requested_architecture(preset_name, set_)
    counted = cost(architecture, input_size)
    if as_json:
        plain = {"architecture": architecture.model_dump(mode="json")} | asdict(counted)
        ids = {"arch_id": architecture.arch_id, "net_id": architecture.net_id}
        print(json.dumps(ids | plain, indent=2))
        return
    _print_architecture(f"{preset_name}, network {architecture.net_id}", counted)
    if small := small_maps.described(architecture, input_size):
        err.print(
            f"warning: 3x3 filters see a map below 3x3: {small}", highlight=False, soft_wrap=True
        )


def given_architecture(preset_name: str | None, changes: list[str] | None) -> Architecture | None:
    """What `--preset` and `--set` say of weights; None without a preset.

    Raises:
        UserError: there are changes, and no preset that they change.
    """
    if changes and preset_name is None:
        raise UserError("--set: expected --preset with it, which it changes")
    return requested_architecture(preset_name, changes) if preset_name else None


def requested_architecture(preset_name: str, changes: list[str] | None) -> Architecture:
    """A preset with `--set` applied."""
    from pydantic import ValidationError

    from ..network.architecture import FIELDS, KEYS
    from ..spec import yaml_text

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
            values[key] = yaml_text.load(text)
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


def _print_architecture(name: str, counted: Cost) -> None:
    from ..results.shown import ShownColumn
    from .terminal import terminal_table

    size = counted.input_size

    def count(heading: str, name: str) -> ShownColumn:
        return ShownColumn(heading, lambda layer: f"{n:,}" if (n := getattr(layer, name)) else "")

    columns = [
        ShownColumn("layer", lambda layer: layer.name, words=True),
        ShownColumn(
            "output (channels x height x width)",
            lambda layer: "x".join(map(str, layer.output_shape)),
            words=True,
        ),
        ShownColumn("filters (kernel/stride, number)", lambda layer: layer.filters, words=True),
        *(count(*names) for names in (("params",) * 2, ("MACs", "macs"), ("activations",) * 2)),
    ]
    total = [
        "total",
        f"{counted.size_mb:.2f} MB, peak activations {counted.peak_activation_bytes / 1e6:.2f} MB",
        f"{counted.flops:,} FLOPs",
        *(f"{n:,}" for n in (counted.params, counted.macs, counted.activations)),
    ]
    int8 = [
        "in int8",
        f"{counted.int8_flash_bytes / 1e6:.2f} MB, peak activations "
        f"{counted.int8_peak_bytes / 1e6:.2f} MB",
    ]
    title = f"{name}, input {size}x{size}"
    out.print(terminal_table(title, columns, counted.layers, totals=[total, int8]))
