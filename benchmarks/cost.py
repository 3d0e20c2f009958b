"""How many architectures a second, and whether the counts agree: ours against five counters.

    python benchmarks/cost.py [--rows 1000000] [--rounds 5] [--sample 1000] [--out FILE.csv]

One run, one core, tools interleaved round by round. A peer's time is what a user spends on one
architecture: build the network, count it. Ours is `cost_table` on a table of architectures in which
every metaparameter varies. `FlopCounterMode` must agree on every one of `--sample` architectures;
each other tool counts more than convolutions, and the run checks that what its convention adds
explains the difference to the last operation.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import itertools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import ptflops
import thop
import torch
import torchinfo
from fvcore.nn import FlopCountAnalysis
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sqzexplore as sqz
from sqzexplore import provenance

SIZE = 224
Counts = tuple[int, int]  # parameters, multiply-accumulates as the tool counts them


def random_table(rows: int, seed: int) -> pd.DataFrame:
    """Architectures in which every metaparameter but the image's varies."""
    rng = np.random.default_rng(seed)
    pools = [c for k in (2, 3) for c in itertools.combinations(range(1, 10), k)]
    texts = [",".join(map(str, c)) for c in pools]
    return pd.DataFrame(
        {
            "squeeze_ratio": rng.uniform(0.05, 1.0, rows),
            "fraction_3x3": rng.uniform(0.0, 1.0, rows),
            "base_expand": rng.integers(16, 257, rows),
            "expand_increment": rng.integers(0, 257, rows),
            "increment_every": rng.integers(1, 5, rows),
            "fires": rng.integers(8, 11, rows),
            "pool_after": pd.Categorical.from_codes(rng.integers(0, len(texts), rows), texts),
            "bypass": pd.Categorical.from_codes(
                rng.integers(0, 3, rows), ["none", "simple", "complex"]
            ),
            "stem_width": rng.integers(16, 129, rows),
            "stem_kernel": rng.integers(3, 8, rows),
            "stem_padding": rng.integers(0, 4, rows),
            "width_multiplier": rng.uniform(0.5, 1.0, rows),
            "batch_norm": rng.random(rows) < 0.5,
            "num_classes": rng.integers(10, 1001, rows),
        }
    )


def architectures(table: pd.DataFrame) -> list[sqz.Architecture]:
    return [sqz.Architecture.model_validate(row) for row in table.to_dict("records")]


# --- the peers ---------------------------------------------------------------------------------


def flop_counter_mode(architecture: sqz.Architecture) -> Counts:
    with torch.device("meta"):
        net = sqz.build(architecture).eval()
        image = torch.empty(1, 3, SIZE, SIZE)
    with FlopCounterMode(display=False) as counter:
        net(image)
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def fvcore(architecture: sqz.Architecture) -> Counts:
    net = sqz.build(architecture).eval()
    analysis = FlopCountAnalysis(net, torch.zeros(1, 3, SIZE, SIZE))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return sum(p.numel() for p in net.parameters()), int(analysis.total())


def torchinfo_(architecture: sqz.Architecture) -> Counts:
    net = sqz.build(architecture).eval()
    summary = torchinfo.summary(net, input_data=torch.zeros(1, 3, SIZE, SIZE), verbose=0)
    return summary.total_params, summary.total_mult_adds


def thop_(architecture: sqz.Architecture) -> Counts:
    net = sqz.build(architecture).eval()
    macs, params = thop.profile(net, (torch.zeros(1, 3, SIZE, SIZE),), verbose=False)
    return int(params), int(macs)


def ptflops_(architecture: sqz.Architecture) -> Counts:
    net = sqz.build(architecture).eval()
    with contextlib.redirect_stdout(io.StringIO()):
        macs, params = ptflops.get_model_complexity_info(
            net, (3, SIZE, SIZE), as_strings=False, print_per_layer_stat=False
        )
    return int(params), int(macs)


@dataclass(frozen=True)
class Elements:
    """Elements that a network's operations see, by forward hooks on the real module."""

    biased: int  # outputs of convolutions with a bias
    relu: int
    max_pool: int  # inputs
    average_pool: int  # inputs
    classes: int
    batch_norm: int
    batch_norm_params: int


def elements(architecture: sqz.Architecture) -> Elements:
    seen: dict[str, int] = dict.fromkeys(("biased", "relu", "max", "average", "bn", "bn_params"), 0)

    def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        match module:
            case nn.Conv2d() if module.bias is not None:
                seen["biased"] += output.numel()
            case nn.ReLU():
                seen["relu"] += output.numel()
            case nn.MaxPool2d():
                seen["max"] += inputs[0].numel()
            case nn.AdaptiveAvgPool2d():
                seen["average"] += inputs[0].numel()
            case nn.BatchNorm2d():
                seen["bn"] += output.numel()
                seen["bn_params"] += sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        net = sqz.build(architecture).eval()
        image = torch.empty(1, 3, SIZE, SIZE)
    for module in net.modules():
        module.register_forward_hook(hook)
    net(image)
    return Elements(
        seen["biased"],
        seen["relu"],
        seen["max"],
        seen["average"],
        architecture.num_classes,
        seen["bn"],
        seen["bn_params"],
    )


@dataclass(frozen=True)
class Peer:
    name: str
    count: Callable[[sqz.Architecture], Counts]
    convention: str
    extra: Callable[[Elements], int]  # what the convention adds to the MACs of the convolutions


PEERS = (
    Peer(
        "torch FlopCounterMode, meta",
        flop_counter_mode,
        "convolutions alone: the same",
        lambda e: 0,
    ),
    Peer(
        "fvcore",
        fvcore,
        "+ BatchNorm (2 an element), average pooling (1 an input)",
        lambda e: 2 * e.batch_norm + e.average_pool,
    ),
    Peer(
        "torchinfo",
        torchinfo_,
        "+ biases (1 an output), BatchNorm's parameters once",
        lambda e: e.biased + e.batch_norm_params,
    ),
    Peer(
        "thop",
        thop_,
        "+ BatchNorm (4 an element), average pooling (1 an input, 1 an output)",
        lambda e: 4 * e.batch_norm + e.average_pool + e.classes,
    ),
    Peer(
        "ptflops",
        ptflops_,
        "+ biases, BatchNorm (2), ReLU and pooling twice: as modules, as functions",
        lambda e: e.biased + 2 * e.batch_norm + 2 * (e.relu + e.max_pool + e.average_pool),
    ),
)


# --- the run -----------------------------------------------------------------------------------


def check(peer: Peer, sample: list[sqz.Architecture]) -> tuple[int, int, int]:
    """Architectures on which params agree, MACs agree, and the convention explains the MACs."""
    params = macs = explained = 0
    for architecture in track(sample, f"checking {peer.name}", transient=True):
        ours, theirs = sqz.cost(architecture, SIZE), peer.count(architecture)
        params += theirs[0] == ours.params
        macs += theirs[1] == ours.macs
        explained += theirs[1] == ours.macs + peer.extra(elements(architecture))
    return params, macs, explained


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rates(rows: int, rounds: int, each: int) -> dict[str, list[float]]:
    """Architectures a second of every tool, `rounds` times, in turn."""
    table = random_table(rows, seed=1)
    some = architectures(table.head(each))
    found: dict[str, list[float]] = {"sqzexplore": [], **{peer.name: [] for peer in PEERS}}
    sqz.cost_table(table.head(10_000))
    for peer in PEERS:
        peer.count(some[0])  # first use compiles and imports
    for _ in track(range(rounds), "timing", transient=True):
        found["sqzexplore"].append(rows / timed(lambda: sqz.cost_table(table)))
        for peer in PEERS:
            count = peer.count
            spent = timed(lambda count=count: [count(a) for a in some])
            found[peer.name].append(each / spent)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=20, help="architectures a peer, a round")
    parser.add_argument("--sample", type=int, default=1000, help="checked with FlopCounterMode")
    parser.add_argument("--others", type=int, default=50, help="checked with each other tool")
    parser.add_argument("--out", type=Path, help="CSV of the table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    speed = rates(options.rows, options.rounds, options.each)
    sample = architectures(random_table(options.sample, seed=2))
    ours = statistics.median(speed["sqzexplore"])
    rows = [{"tool": f"sqzexplore {provenance.version()}", "architectures_per_s": ours, "ratio": 1}]
    failed = False
    for peer in PEERS:
        some = sample if peer is PEERS[0] else sample[: options.others]
        params, macs, explained = check(peer, some)
        failed |= explained < len(some) or params < len(some)
        ratios = [a / b for a, b in zip(speed["sqzexplore"], speed[peer.name], strict=True)]
        package = peer.name.split()[0]
        rows.append(
            {
                "tool": f"{peer.name} {importlib.metadata.version(package)}",
                "architectures_per_s": statistics.median(speed[peer.name]),
                "ratio": statistics.median(ratios),
                "ratio_least": min(ratios),
                "ratio_greatest": max(ratios),
                "checked": len(some),
                "params_equal": params,
                "macs_equal": macs,
                "macs_explained": explained,
                "convention": peer.convention,
            }
        )
    frame = pd.DataFrame(rows)
    for name, value in provenance.of_sweep("cpu").items():
        if name in ("git_commit", "python", "platform", "device_name"):
            frame[name] = value
    frame["rows"], frame["rounds"], frame["threads"] = options.rows, options.rounds, 1
    show(frame)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.out, index=False)
        print(f"written: {options.out}")
    if failed:
        sys.exit("some counts differ by more than their tool's convention says")


def show(frame: pd.DataFrame) -> None:
    first = frame.iloc[0]
    table = Table(
        title=f"exact cost of {first['rows']:,} architectures (peers: one by one), "
        f"{first['device_name']}, 1 core, median of {first['rounds']} rounds",
        title_justify="left",
    )
    for name in ("tool", "architectures/s", "ours / theirs", "params equal", "MACs equal"):
        table.add_column(name, justify="left" if name == "tool" else "right")
    table.add_column("its convention (explains every difference exactly on)")
    for _, row in frame.iterrows():
        peer = row["ratio"] != 1
        ratio = f"{row['ratio']:,.0f} ({row['ratio_least']:,.0f} to {row['ratio_greatest']:,.0f})"
        table.add_row(
            row["tool"],
            f"{row['architectures_per_s']:,.{1 if peer else 0}f}",
            ratio if peer else "",
            f"{row['params_equal']:.0f}/{row['checked']:.0f}" if peer else "",
            f"{row['macs_equal']:.0f}/{row['checked']:.0f}" if peer else "",
            f"{row['convention']} ({row['macs_explained']:.0f}/{row['checked']:.0f})"
            if peer
            else "",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
