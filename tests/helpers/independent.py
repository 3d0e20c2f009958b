"""The design space a second time: written from its description, sharing no code with the package.

`network` builds a plain PyTorch module with torchvision's key names. `live_params` looks at every
position of every convolution on the maps that it really sees. `peak_activation_bytes` lists every
operation of an inference with the tensors it reads and writes, and simulates which are alive.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from fractions import Fraction
from typing import Any

import torch
from torch import nn


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def plan(a: dict[str, Any]) -> tuple[int, list[tuple[int, int, int, int]]]:
    """Stem filters, and for each Fire: input channels, squeeze, expand 1x1, expand 3x3.

    Products of a width and a float are rounded as doubles are: that is the definition.
    """

    def scaled(width: int) -> int:
        return max(1, half_up(Fraction(width * a["width_multiplier"])))

    stem = scaled(a["stem_width"])
    fires, channels = [], stem
    for i in range(a["fires"]):
        formula = a["base_expand"] + a["expand_increment"] * (i // a["increment_every"])
        expand = scaled(own(a, i + 2, "expand_filters", formula))
        three = half_up(Fraction(expand * own(a, i + 2, "fraction_3x3")))
        squeeze = max(1, half_up(Fraction(expand * own(a, i + 2, "squeeze_ratio"))))
        fires.append((channels, squeeze, expand - three, three))
        channels = expand
    return stem, fires


def own(a: dict[str, Any], layer: int, name: str, otherwise: Any = None) -> Any:
    """What Fire `layer` has: its own, or else what all have."""
    return a["overrides"].get(f"fire{layer}.{name}", a.get(name, otherwise))


class Fire(nn.Module):
    def __init__(self, cin: int, s: int, e1: int, e3: int, bypass: str, bn: bool) -> None:
        super().__init__()
        convs: OrderedDict[str, nn.Module] = OrderedDict()
        convs["squeeze"] = nn.Conv2d(cin, s, 1, bias=not bn)
        if e1:
            convs["expand1x1"] = nn.Conv2d(s, e1, 1, bias=not bn)
        if e3:
            convs["expand3x3"] = nn.Conv2d(s, e3, 3, padding=1, bias=not bn)
        self.add = bypass != "none" and (cin == e1 + e3 or bypass == "complex")
        if self.add and cin != e1 + e3:
            convs["bypass"] = nn.Conv2d(cin, e1 + e3, 1, bias=not bn)
        self.norms = nn.ModuleDict()
        for name, conv in convs.items():
            setattr(self, name, conv)
            self.norms[name] = nn.BatchNorm2d(conv.out_channels) if bn else nn.Sequential()
        self.names = list(convs)

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.norms[name](getattr(self, name)(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.conv("squeeze", x).relu()
        out = torch.cat([self.conv(n, s).relu() for n in self.names if n.startswith("exp")], 1)
        if self.add:
            out = out + (self.conv("bypass", x) if "bypass" in self.names else x)
        return out


class Network(nn.Module):
    def __init__(self, a: dict[str, Any]) -> None:
        super().__init__()
        bn = a["batch_norm"]
        stem, fires = plan(a)
        layers: list[nn.Module] = [
            nn.Conv2d(
                a["in_channels"],
                stem,
                a["stem_kernel"],
                a["stem_stride"],
                a["stem_padding"],
                bias=not bn,
            )
        ]
        layers += [nn.BatchNorm2d(stem)] if bn else []
        layers += [nn.ReLU()]
        for layer in range(1, a["fires"] + 2):
            if layer > 1:
                layers.append(Fire(*fires[layer - 2], own(a, layer, "bypass"), bn))
            if layer in a["pool_after"]:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        last = nn.Conv2d(fires[-1][2] + fires[-1][3], a["num_classes"], 1)
        self.classifier = nn.Sequential(nn.Dropout(a["dropout"]), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x)).relu().mean((2, 3))


def network(architecture: Any) -> Network:
    return Network(architecture.model_dump())


def with_weights(architecture: Any, state: dict[str, torch.Tensor]) -> Network:
    """The network with the weights of the package's, whose norms have other names in a Fire."""
    net = network(architecture)
    renamed = {re.sub(r"(\w+)_norm\.", r"norms.\1.", key): value for key, value in state.items()}
    net.load_state_dict(renamed)
    return net.eval()


def go_through(net: nn.Module, channels: int, size: int) -> None:
    """A batch of no images: torch finds and checks every shape, and computes nothing. (On the
    device `meta`, which is Python's, each operation takes many times as long.)"""
    with torch.no_grad():
        net(torch.empty(0, channels, size, size))


def convolution_counts(net: nn.Module, channels: int, size: int) -> dict[str, tuple[int, int]]:
    """MACs and output elements of every convolution by name, from the shapes it really sees."""
    counts: dict[str, tuple[int, int]] = {}

    def hook(name: str) -> Any:
        def count(module: nn.Conv2d, args: Any, out: torch.Tensor) -> None:
            elements = out.shape[1:].numel()
            counts[name] = (elements * module.weight[0].numel(), elements)

        return count

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(hook(name))
    go_through(net, channels, size)
    return counts


def live_params(net: nn.Module, channels: int, size: int) -> tuple[int, set[int]]:
    """Parameters without the weights that only ever meet padding, and the maps that 3x3 filters of
    Fires see, by their sides."""
    live = sum(p.numel() for p in net.parameters())
    sides: set[int] = set()

    def count(module: nn.Conv2d, args: Any, out: torch.Tensor) -> None:
        nonlocal live
        map_side, positions = args[0].shape[-1], range(out.shape[-1])
        starts = [o * module.stride[0] - module.padding[0] for o in positions]
        kernel = range(module.kernel_size[0])
        taps = sum(any(start + tap in range(map_side) for start in starts) for tap in kernel)
        live -= module.out_channels * module.in_channels * (len(kernel) ** 2 - taps**2)

    def see(fire: Fire, args: Any) -> None:
        if "expand3x3" in fire.names:
            sides.add(args[0].shape[-1])

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
        if isinstance(module, Fire):
            module.register_forward_pre_hook(see)
    go_through(net, channels, size)
    return live, sides


def peak_activation_bytes(architecture: Any, size: int) -> int:
    """Simulate an inference: operations in order, each with what it reads and what it writes."""
    a = architecture.model_dump()
    stem, fires = plan(a)
    sizes: dict[str, int] = {}
    operations: list[tuple[list[str], str]] = []

    def run(reads: list[str], writes: str, elements: int) -> str:
        sizes[writes] = elements
        operations.append((reads, writes))
        return writes

    sizes["image"] = a["in_channels"] * size * size
    side = (size + 2 * a["stem_padding"] - a["stem_kernel"]) // a["stem_stride"] + 1
    x, channels = run(["image"], "conv1", stem * side * side), stem
    for layer in range(1, a["fires"] + 2):
        if layer > 1:
            cin, s, e1, e3 = fires[layer - 2]
            area, out = side * side, e1 + e3
            squeezed = run([x], f"{layer}.squeeze", s * area)
            branches = [
                run([squeezed], f"{layer}.{kind}", n * area)
                for kind, n in (("e1", e1), ("e3", e3))
                if n
            ]
            joined = branches[0]
            if len(branches) == 2:
                joined = run(branches, f"{layer}.cat", out * area)
            bypass = own(a, layer, "bypass")
            if bypass != "none" and cin == out:
                operations.append(([x, joined], joined))
            elif bypass == "complex":
                projected = run([x], f"{layer}.bypass", out * area)
                operations.append(([projected, joined], joined))
            x, channels = joined, out
        if layer in a["pool_after"]:
            side = math.ceil((side - 3) / 2) + 1
            x = run([x], f"{layer}.pool", channels * side * side)
    x = run([x], "last", a["num_classes"] * side * side)
    run([x], "mean", a["num_classes"])

    last_use = {
        name: i for i, (reads, writes) in enumerate(operations) for name in [*reads, writes]
    }
    born = {"image": -1}
    for i, (_, writes) in enumerate(operations):
        born.setdefault(writes, i)
    peak = 0
    for i in range(len(operations)):
        alive = [n for n in sizes if born[n] <= i <= last_use[n]]
        peak = max(peak, sum(sizes[n] for n in alive))
    return 4 * peak


def accuracy_between(
    logits: torch.Tensor, labels: torch.Tensor, rounding: float
) -> tuple[float, float]:
    """Percent whose class is the first guess: by more than `rounding`, and but for `rounding`."""
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    ahead = own - others
    sure, possible = ((ahead > allowed).double().mean().item() for allowed in (rounding, -rounding))
    return 100 * sure, 100 * possible
