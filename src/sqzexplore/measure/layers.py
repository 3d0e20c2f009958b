"""What each layer of a network waits for: its latency alone, beside its floor."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..network.architecture import Architecture
from ..network.module import Fire, SqueezeNet
from .clock import cudnn_as, least_warm_up_s, on_device, timer
from .devices import check_choices
from .interleave import alternate, warm_up
from .memory import check_memory
from .roofline import Roofs, floor_of, operations
from .runner import built, captured, images_for, network_for
from .settings import Settings


@dataclass(frozen=True)
class LayerTime:
    """One layer of a network, run alone on its input: a row of `bench --layers`."""

    layer: str
    latency_ms_p50: float
    floor_ms: float
    roofline_share: float
    bound: str
    macs: int
    bytes: int


def measure_layers(
    architecture: Architecture,
    settings: Settings,
    seconds: float = 1.0,
    folder: Path | None = None,
) -> list[LayerTime]:
    """The layers of the module one by one, in rounds; arguments as of `measure`.

    A layer alone may find its input in the cache, and pays its own launch: the sum is near the
    network's latency, and not the same. On a GPU an eager layer is little but launches; as a CUDA
    graph (`mode: cuda_graph`) each layer is launched once.

    Raises:
        FeatureMapVanishes, UserError: as `measure`.
        torch.OutOfMemoryError, MemoryError: it does not fit.
    """
    architecture.check_input_size(settings.input_size)
    device = torch.device(settings.device)
    check_choices([settings.dtype], [settings.mode], device, "")
    if device.type == "cpu":
        check_memory(architecture, settings)
    timed = timer(device)
    with torch.inference_mode(), on_device(device), cudnn_as(settings):
        x = images_for(architecture, settings)[0]
        net = network_for(built(architecture), settings, x)
        names, passes = [], []
        for name, part in layers(net):
            names.append(name)
            graphed = settings.mode == "cuda_graph"
            work = captured(part, [x])[0] if graphed else partial(part, x)
            passes.append(partial(timed, work))
            x = part(x)
        for one in passes:
            warm_up(one, seconds / len(passes) / 4, least_warm_up_s(device) / len(passes))
        medians = alternate(passes, seconds).medians
        roof = Roofs(folder).of(device, settings.dtype)
    parts = list(operations(architecture, settings.input_size))
    rows = []
    for name, latencies in zip(names, medians, strict=True):
        least = floor_of([p for p in parts if p.layer == name], settings.batch, roof)
        latency_s = statistics.median(latencies) / 1e3
        share, bound = least.seconds / latency_s, least.bound(latency_s)
        figures = (latency_s * 1e3, least.seconds * 1e3, share, bound, least.macs, least.bytes)
        rows.append(LayerTime(name, *figures))
    return rows


def layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a SqueezeNet by their name in `describe`; one after the other they are it."""
    assert isinstance(net, SqueezeNet)
    layer, parts = 1, list[tuple[str, list[nn.Module]]]()
    for module in net.features:
        if isinstance(module, nn.Conv2d):
            parts.append(("conv1", [module]))
        elif isinstance(module, Fire):
            layer += 1
            parts.append((f"fire{layer}", [module]))
        elif isinstance(module, nn.MaxPool2d):
            parts.append((f"maxpool{layer}", [module]))
        else:  # BatchNorm and ReLU belong to what they follow
            parts[-1][1].append(module)
    for name, modules in parts:
        yield name, nn.Sequential(*modules)
    yield f"conv{layer + 1}", net.classifier[:3]
    yield f"avgpool{layer + 1}", net.classifier[3]
