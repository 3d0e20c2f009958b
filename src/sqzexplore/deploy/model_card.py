"""The model card of an exported network: what it is, what it takes, its numbers, where from."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from .. import provenance
from ..network.architecture import Architecture
from ..network.cost import cost
from ..network.frames import architecture_name
from ..network.overrides import is_missing
from ..network.presets import PRESETS
from ..spec.models import Spec
from .artifacts import ABSOLUTE, RELATIVE, Check
from .litert import FLOAT_FILE as LITERT_FILE
from .litert import INT8_FILE as LITERT_INT8_FILE
from .smaller import COMPRESSED_FILE, INT8_FILE, SmallFile


@dataclass(frozen=True)
class Card:
    """What is known of a network before its files are written.

    `row`, `throughput`: the trial's, from the sweep's tables; `goals`: what the front was of;
    `own`: the trial's architecture; `exported`: that of the files; `notes`: of the checkpoint, None
    where the weights are random, of `seed`; `input_size`: side of the images, pixels.
    """

    spec: Spec
    row: pd.Series
    pick: str
    goals: Sequence[str]
    throughput: pd.DataFrame
    own: Architecture
    exported: Architecture
    notes: Mapping[str, Any] | None
    seed: int
    input_size: int
    packages: Mapping[str, str]

    @property
    def name(self) -> str:
        """The sweep and the trial."""
        return f"{self.spec.name}-trial{self.row['trial']}"

    @property
    def weights(self) -> str:
        """What the weights are, in a line."""
        if self.notes is None:
            return f"UNTRAINED: random weights of seed {self.seed}; its outputs mean nothing"
        n = self.notes
        return (
            f"trained: {n['data']} at {n['image_size']}x{n['image_size']}, {n['epochs']} epochs, "
            f"seed {n['seed']}, test top-1 {n['top1']:.2f}%"
        )

    @property
    def input(self) -> str:
        """What the files take, in a sentence."""
        a, side = self.exported, self.input_size
        shape = f"float32, N x {a.in_channels} x {side} x {side} (images, channels, rows, columns)"
        if self.notes is None:
            return f"{shape}, any range: random weights expect none, and nothing is normalised"
        colour = {1: "grey", 3: "red, green, blue"}[a.in_channels]
        return (
            f"{shape}, {colour}, from 0 (black) to 1 (white): the bytes of an image / 255; the "
            "files normalise it themselves"
        )

    def metadata(self) -> dict[str, str]:
        """The same for programs: what both files carry, each value as text."""
        known = {
            "name": self.name,
            "weights": self.weights,
            "input": self.input,
            "output": f"N x {self.exported.num_classes} logits",
            "sweep": self.spec.name,
            "trial": str(self.row["trial"]),
            "arch_id": self.exported.arch_id,
            "architecture": json.dumps(self.exported.model_dump(mode="json")),
            "sqzexplore_version": provenance.version(),
            "git_commit": provenance.git_commit(),
        }
        if self.notes is not None:
            known["classes"] = json.dumps(self.notes["classes"])
            known["data_sha256"] = self.notes["data_sha256"]
        return known


def card_text(card: Card, check: Check, smaller: Sequence[SmallFile], files: Sequence[Path]) -> str:
    """The card as Markdown.

    Args:
        card: what is known of the network.
        check: how its files compare with PyTorch.
        smaller: the compressed and quantised files, if any.
        files: the ONNX file and the program, which the checksums are of.
    """
    parts = [
        f"# {card.name}",
        f"> **{_escaped(card.weights)}**",
        _what(card),
        "## Input and output",
        _input_output(card),
        "## Cost",
        _cost(card),
        "## Accuracy",
        _accuracy(card),
        "## Throughput",
        _throughput(card),
        "## How to load",
        _loading(card),
        "## Comparison with PyTorch",
        _comparison(check),
        *(["## Smaller files", _smaller(card, smaller)] if smaller else []),
        "## Provenance",
        _provenance(card, files),
    ]
    return "\n\n".join(parts) + "\n"


# --- the sections ------------------------------------------------------------------------------


def _what(card: Card) -> str:
    spec, row = card.spec, card.row
    axes = spec.design_space.axis_names
    reasons = {
        "knee": f"the knee of the front ({', '.join(card.goals)})",
        "best": "the best val_top1 (chosen on the validation split; the test split is reported)",
    }
    reason = reasons.get(card.pick, "picked by its number")
    lines = [
        f"Trial {row['trial']} of the sweep `{spec.name}`, {reason}: "
        f"{architecture_name(row, axes)} (state: {row['state']}).",
        f"The sweep asks: {_escaped(spec.question)}" if spec.question else "",
        "" if is_missing(row["feasible"]) or row["feasible"] else "**It breaks a constraint.**",
        f"The architecture, `{card.exported.arch_id}`: `{_expression(spec, card.exported)}`",
    ]
    if card.exported != card.own:
        lines.append(
            f"It is what was trained in the place of the trial's own architecture, "
            f"`{card.own.arch_id}`: `{_expression(spec, card.own)}`, which the throughput below "
            "is of."
        )
    return "\n\n".join(line for line in lines if line)


def _input_output(card: Card) -> str:
    lines = [f"- `images`: {card.input}; any number of images."]
    if card.notes is not None:
        mean, std = (_numbers(value / 255 for value in card.notes[key]) for key in ("mean", "std"))
        lines.append(
            f"- In training the shorter side was resized to {card.input_size} pixels (bilinear) "
            "and the centre cut out. Inside, each channel is normalised: "
            f"(x - {mean}) / {std}."
        )
    lines.append(
        f"- `logits`: float32, N x {card.exported.num_classes}; a softmax makes probabilities of "
        "them."
    )
    if card.notes is not None:
        lines.append(f"- Classes, in order: {_escaped(', '.join(card.notes['classes']))}.")
    return "\n".join(lines)


def _cost(card: Card) -> str:
    counted = cost(card.exported, card.input_size)
    text = (
        f"Exact, one image of {card.input_size}x{card.input_size} pixels: **{counted.params:,} "
        f"parameters** ({counted.size_mb:.3f} MB), **{counted.macs:,} MACs**, "
        f"{counted.flops:,} FLOPs, {counted.activations:,} activations, "
        f"{counted.peak_activation_bytes:,} bytes of activations at most at once; in int8 "
        f"{counted.int8_flash_bytes:,} bytes of weights, biases and scales and "
        f"{counted.int8_peak_bytes:,} of activations."
    )
    rows = [
        (x.name, "x".join(map(str, x.output_shape)), x.filters, x.params, x.macs, x.activations)
        for x in counted.layers
    ]
    table = _table(("layer", "output", "filters", "params", "MACs", "activations"), rows)
    if card.exported == card.own and card.input_size == card.spec.input_size:
        return f"{text}\n\n{table}"
    own = cost(card.own, card.spec.input_size)
    return (
        f"{text} The trial's own architecture, at {own.input_size}x{own.input_size}: "
        f"{own.params:,} parameters, {own.macs:,} MACs, {own.flops:,} FLOPs.\n\n{table}"
    )


def _accuracy(card: Card) -> str:
    lines = []
    if (n := card.notes) is not None:
        top5 = "" if n["top5"] is None else f", top-5 {n['top5']:.2f}%"
        lines.append(
            f"Of these weights: test top-1 **{n['top1']:.2f}%**{top5}, validation "
            f"{n['val_top1']:.2f}% ({_escaped(n['data'])} at {n['image_size']}x{n['image_size']}, "
            f"{n['epochs']} epochs, recipe {n['recipe']}, {n['precision']}). One training, of "
            f"seed {n['seed']}: it has no interval."
            + (" The files compute in float32." if n["precision"] != "float32" else "")
        )
        checksum = card.row["data_sha256"]
        if not is_missing(checksum) and checksum != n["data_sha256"]:
            swept = _with_checksum(_escaped(card.row["data"]), checksum)
            lines.append(f"**Other images than the sweep's**, {swept}.")
    else:
        lines.append("Of these weights: none, they are random.")
    lines.append(_swept_accuracy(card.spec, card.row))
    return "\n\n".join(lines)


def _swept_accuracy(spec: Spec, row: pd.Series) -> str:
    """The accuracy that the sweep measured, with its interval and what it is a proxy of."""
    if spec.measure.accuracy is None:
        return "The sweep measured no accuracy."
    if is_missing(row["top1"]):
        return f"The sweep has no accuracy of this trial: it is {row['state']}."
    size, proxy = row["train_input_size"], spec.measure.accuracy.proxy
    interval = "one seed, no interval"
    if not is_missing(row["top1_ci_low"]):
        interval = (
            f"95% interval {row['top1_ci_low']:.2f} to {row['top1_ci_high']:.2f} over "
            f"{row['seeds']} seeds and the test images"
        )
    changed = ", ".join(f"{name}={value}" for name, value in proxy.items())
    return (
        f"The sweep measured top-1 {row['top1']:.2f}% ({interval}): a proxy, not ImageNet: "
        f"{_escaped(row['data'])} at {size}x{size}, test split, {row['epochs']} epochs"
        + (f", trained with {changed}" if changed else "")
        + "."
    )


#: Columns of a measurement that the card shows, with their headings.
_MEASURED = {
    **{"runtime": "runtime", "input_size": "input", "device": "device"},
    **{"device_name": "processor", "batch": "batch"},
    **{"dtype": "dtype", "memory_format": "memory", "form": "form", "mode": "mode"},
    **{"threads": "threads", "torch_version": "torch"},
}


def _throughput(card: Card) -> str:
    if card.throughput.empty:
        return "The sweep measured no throughput of it."
    rows = []
    for _, row in card.throughput.iterrows():
        cells = ["" if is_missing(row[name]) else str(row[name]) for name in _MEASURED]
        if is_missing(row["images_per_s"]):
            rows.append((*cells, row["outcome"], ""))
            continue
        interval = ""
        if not is_missing(row["latency_ms_p50_low"]):
            interval = f" ({row['latency_ms_p50_low']:.3g} to {row['latency_ms_p50_high']:.3g})"
        rows.append(
            (*cells, f"{row['images_per_s']:,.1f}", f"{row['latency_ms_p50']:.3g}{interval}")
        )
    headings = (*_MEASURED.values(), "images/s", "median latency, ms (95% interval)")
    return (
        "Of the trial's own architecture, as the sweep measured it; not of these files.\n\n"
        f"{_table(headings, rows)}"
    )


def _loading(card: Card) -> str:
    shape = f"(4, {card.exported.in_channels}, {card.input_size}, {card.input_size})"
    return f"""\
ONNX:

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
images = np.random.default_rng(0).random({shape}, dtype=np.float32)
(logits,) = session.run(["logits"], {{"images": images}})
```

The torch.export program:

```python
import torch

program = torch.export.load("model.pt2").module()
logits = program(torch.rand{shape})
```

Both files carry what this card says first: ONNX in its metadata
(`session.get_modelmeta().custom_metadata_map`), the program in the extra file `metadata.json`."""


def _comparison(check: Check) -> str:
    batches = ", ".join(map(str, check.batches))
    rows = [(name, f"{difference:.3g}") for name, difference in check.differences.items()]
    return (
        f"The files were read again and run on the CPU on random images, {batches} at a time. The "
        f"largest logit was {check.largest_logit:.4g}; the tolerance, {RELATIVE:g} of that and "
        f"{ABSOLUTE:g}, is {check.tolerance:.3g}.\n\n{_table(('file', 'largest difference'), rows)}"
    )


def _smaller(card: Card, smaller: Sequence[SmallFile]) -> str:
    rows = [
        (
            *(f.name, f.how, f.bytes, f"{f.top1:.2f}%", f"{f.float32_top1 - f.top1:.2f}"),
            f"{f.agreement:.2f}%",
        )
        for f in smaller
    ]
    headings = ("file", "made by", "bytes", "test top-1", "points lost", "agreement")
    texts = [
        _table(headings, rows),
        f"Measured on the test images of {_escaped(str((card.notes or {})['data']))}, against the "
        "float32 network image by image (agreement: the same class). One training: no interval.",
    ]
    if any(file.name == COMPRESSED_FILE for file in smaller):
        texts.append(
            f"`{COMPRESSED_FILE}` is storage, not speed: `sqz.load` decodes it into a network like "
            "any other, which takes normalised images."
        )
    if any(file.name == INT8_FILE for file in smaller):
        texts.append(f"`{INT8_FILE}` takes and gives what `model.onnx` does.")
    if any(file.name == LITERT_FILE for file in smaller):
        texts.append(
            f"`{LITERT_FILE}` takes one image as `model.onnx` does; `{LITERT_INT8_FILE}` takes and "
            "gives integers, with the scale and offset that stand in it."
        )
    return "\n\n".join(texts)


def _provenance(card: Card, files: Sequence[Path]) -> str:
    row, spec = card.row, card.spec
    rows = [
        ("exported", datetime.now(UTC).isoformat(timespec="seconds")),
        ("by", _version(provenance.version(), provenance.git_commit())),
        ("python", platform.python_version()),
        *card.packages.items(),
        ("spec, SHA-256", hashlib.sha256(spec.source.encode()).hexdigest()),
        ("trial measured", _listed(row["started_at"], row["device_name"])),
        ("trial measured by", _version(row["sqzexplore_version"], row["git_commit"])),
        ("trial's data", _with_checksum(row["data"], row["data_sha256"])),
    ]
    if (notes := card.notes) is None:
        rows.append(("seed of the weights", str(card.seed)))
    else:
        by = notes["provenance"]
        rows += [
            ("trained", f"{by['started_at']}, {by['device_name']}, torch {by['torch_version']}"),
            ("trained by", _version(by["sqzexplore_version"], by["git_commit"])),
            ("seed of the training", str(notes["seed"])),
            ("its data", _with_checksum(notes["data"], notes["data_sha256"])),
        ]
    rows += [
        (f"{f.name}, {f.stat().st_size:,} bytes", hashlib.sha256(f.read_bytes()).hexdigest())
        for f in files
    ]
    return _table(("what", "value"), rows)


# --- their parts -------------------------------------------------------------------------------


def _expression(spec: Spec, architecture: Architecture) -> str:
    """The architecture as Python makes it: the sweep's preset, or v1.0, and what differs."""
    name = spec.base if isinstance(spec.base, str) else next(iter(PRESETS))
    changes = architecture.changes(PRESETS[name])
    base = f'sqz.preset("{name}")'
    if not changes:
        return base
    if all(key.isidentifier() for key in changes):
        given = ", ".join(f"{key}={value!r}" for key, value in changes.items())
    else:
        given = f"**{changes!r}"
    return f"{base}.replace({given})"


def _numbers(values: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:.4f}' for value in values)}]"


def _listed(*values: Any) -> str:
    return ", ".join(str(value) for value in values if not is_missing(value) and value != "")


def _version(version: Any, commit: Any) -> str:
    return _listed(f"sqzexplore {version}", commit)


def _with_checksum(name: Any, checksum: Any) -> str:
    return "" if is_missing(name) else f"{name}, checksum {checksum}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; counts with thousands separators."""

    def line(cells: Iterable[Any]) -> str:
        texts = (f"{c:,}" if isinstance(c, int) else _escaped(str(c)) for c in cells)
        return f"| {' | '.join(texts)} |"

    return "\n".join([line(headings), line("---" for _ in headings), *map(line, rows)])


def _escaped(text: str) -> str:
    """Text of the user's that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*\[\]<>|#]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
