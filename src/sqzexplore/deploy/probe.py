"""A folder that measures networks on another machine, and what comes back from there.

The folder holds ONNX files and one script (`board`) that needs numpy and onnxruntime alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch

from .. import provenance
from ..errors import UserError
from ..files import check_writable, read_json, replacing_folder
from ..measure.reference import REFERENCE
from ..measure.runner import built
from ..measure.runtimes import graph
from ..measure.settings import Settings
from ..measure.statistics import PRECISION, over_processes
from ..measure.throughput import Throughput
from ..network.architecture import Architecture
from ..network.cost import cost
from ..network.int8 import InRuntime
from ..network.module import SqueezeNet
from ..network.onnx import require_onnx
from ..network.presets import PRESETS
from . import board

SCRIPT, MODELS, RESULT = "probe.py", "models.json", "probe.json"
_DTYPES = tuple(board.TOLERANCE)
#: What `provenance.json` keeps of a board.
_OF_BOARD = (
    *("device_name", "processor", "machine", "platform", "python", "numpy", "onnxruntime"),
    *("threads", "measured_at"),
)


def write_probe(
    architectures: Mapping[str, Architecture],
    to: Path,
    batches: Sequence[int],
    dtypes: Sequence[str],
    input_size: int,
    sampler: str = "",
) -> list[Path]:
    """Write ONNX files, what they should give, and the script that measures them, into `to`.

    The reference network is among them, so that the board's rows have their ratio to it.

    Args:
        architectures: by name; their weights are those of seed 0.
        to: a new or empty folder, or an earlier probe that was not run, which is replaced.
        batches: images of a pass.
        dtypes: float32 or int8.
        input_size: side of the images, pixels.
        sampler: who chose the architectures; empty if that is not known.

    Raises:
        UserError: a package is missing, a dtype is none of these, or `to` holds something else.
        FeatureMapVanishes: the images are too small for an architecture.
    """
    require_onnx("a probe")
    _check_ready(to)
    for dtype in dtypes:
        if dtype not in _DTYPES:
            raise UserError(f"--dtype: found {dtype}, expected {' or '.join(_DTYPES)} in a probe")
    every = {**architectures, REFERENCE: PRESETS[REFERENCE]}
    for architecture in every.values():
        architecture.check_input_size(input_size)
    with replacing_folder(to) as folder:
        models: list[dict[str, Any]] = []
        for dtype in dtypes:
            for name, architecture in every.items():
                file = f"{name}-{dtype}.onnx"
                at = Settings("cpu", 1, dtype, input_size, "contiguous", runtime="onnxruntime")
                net = cast(SqueezeNet, built(architecture).eval())
                content = graph(architecture, net, at)
                (folder / file).write_bytes(content)
                shape = (1, architecture.in_channels, input_size, input_size)
                known = {
                    "file": file,
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "name": name,
                    "architecture": architecture.model_dump(mode="json"),
                    "dtype": dtype,
                    "expected": _expected(net, content, shape, dtype),
                }
                models += [known | {"shape": [batch, *shape[1:]]} for batch in batches]
        models.sort(key=lambda model: (model["dtype"], model["shape"]))
        made = {"models": models, "reference": REFERENCE, "sampler": sampler}
        made |= {"sqzexplore_version": provenance.version(), "git_commit": provenance.git_commit()}
        (folder / MODELS).write_text(json.dumps(made))
        (folder / SCRIPT).write_text(Path(board.__file__).read_text(encoding="utf-8"))
    return sorted(to.iterdir())


def _check_ready(to: Path) -> None:
    """Refuse a folder that holds anything but a probe, or one that was run."""
    check_writable(to, "--to")
    held = sorted(file.name for file in to.iterdir()) if to.exists() else []
    others = [
        name for name in held if name not in (SCRIPT, MODELS) and Path(name).suffix != ".onnx"
    ]
    if held and (others or not {SCRIPT, MODELS} <= {*held}):
        raise UserError(
            f"--to {to}: found a folder that holds {(others or held)[0]}, expected a new or empty "
            f"one, or a probe's without {RESULT}, which is replaced"
        )


@torch.inference_mode()
def _expected(net: SqueezeNet, content: bytes, shape: tuple[int, ...], dtype: str) -> list[float]:
    """The first image's logits: PyTorch's, or of the values that the integers stand for."""
    images = torch.from_numpy(board.images(shape))
    logits = InRuntime(content, integers=False)(images) if dtype == "int8" else net(images)
    return [float(value) for value in logits[0]]


@dataclass(frozen=True)
class Probed:
    """What a board measured.

    Args:
        rows: of `throughput`, each with its `architecture`'s name.
        board: what `provenance.json` says of it.
        architectures: by name.
        sampler: who chose them; empty if that is not known.
    """

    rows: list[dict[str, Any]]
    board: dict[str, Any]
    architectures: dict[str, Architecture]
    sampler: str


def read_probe(path: Path) -> Probed:
    """What a board wrote.

    Raises:
        UserError: it is no such file, of another format, or incomplete.
    """
    try:
        content = read_json(path, board.FORMAT, f"the {RESULT} that a probe wrote")
    except UserError as error:
        raise error.at("--import") from None
    try:
        rows, models = _rows(content), content["models"]
        board_ = {name: str(content[name]) for name in _OF_BOARD}
        named = {str(m["name"]): Architecture(**m["architecture"]) for m in models["models"]}
        return Probed(rows, board_, named, str(models.get("sampler", "")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--import: {path}: is not whole ({type(error).__name__}: {reason})"
        ) from None


def _rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    models, processes = content["models"]["models"], content["processes"]
    files = [model["file"] for model in models]
    if not processes or any([row["file"] for row in each] != files for each in processes):
        raise ValueError("a process has not measured every file")
    return [_row(content, model, own) for model, *own in zip(models, *processes, strict=True)]


def _row(
    content: Mapping[str, Any], model: Mapping[str, Any], own: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    architecture = Architecture(**model["architecture"])
    batch, _, side, _ = model["shape"]
    medians = _positive(own, "latency_ms_p50")
    latency = over_processes(medians)
    ratio = over_processes(_positive(own, "relative_to_reference"))
    references = over_processes(_positive(own, "reference_latency_ms_p50"))
    sensors: dict[str, Any] = {
        f"{name}_{when}": own[number].get(f"{name}_{when}")
        for name in ("clock_mhz", "temperature_c")
        for when, number in (("before", 0), ("after", -1))
    }
    measured = Throughput(
        device="cpu",
        runtime="onnxruntime",
        runtime_version=f"onnxruntime {content['onnxruntime']}",
        batch=batch,
        dtype=model["dtype"],
        input_size=side,
        memory_format="contiguous",
        form="module",
        mode="eager",
        threads=int(content["threads"]),
        measured_at=str(content["measured_at"]),
        images_per_s=batch / latency.value * 1e3,
        latency_ms_p50=latency.value,
        latency_ms_p50_low=latency.low,
        latency_ms_p50_high=latency.high,
        precision=latency.precision,
        precise=latency.precision <= PRECISION,
        processes=len(own),
        process_latency_ms=" ".join(f"{value:.6g}" for value in medians),
        latency_ms_p99=fmean(_positive(own, "latency_ms_p99")),
        latency_ms_sd=fmean(float(each["latency_ms_sd"]) for each in own),
        repetitions=sum(int(each["repetitions"]) for each in own),
        rounds=sum(int(each["rounds"]) for each in own),
        buffers=int(own[0]["buffers"]),
        largest_difference=max(float(each["largest_difference"]) for each in own),
        relative_to_reference=ratio.value,
        relative_to_reference_low=ratio.low,
        relative_to_reference_high=ratio.high,
        reference_images_per_s=batch / references.value * 1e3,
        macs=cost(architecture, side).macs,
        **sensors,
    )
    row = asdict(measured) | {
        "architecture": str(model["name"]),
        "sweep": "probe",
        "arch_id": architecture.arch_id,
        "net_id": architecture.net_id,
        "device_name": str(content["device_name"]),
        "git_commit": str(content["models"]["git_commit"]),
    }
    # Of one process there is no interval.
    return {name: None if value != value else value for name, value in row.items()}


def _positive(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """A number of each process.

    Raises:
        ValueError: one is none, or not more than 0.
    """
    values = [float(row[name]) for row in rows]
    if not all(0 < value < math.inf for value in values):
        raise ValueError(f"{name}: found {min(values):g}, expected finite numbers > 0")
    return values
