"""torchvision's SqueezeNet against ours, in every mode, in one run and round by round.

    python benchmarks/throughput.py [--device auto] [--batch 1,16,256] [--out DIR]

Each round runs one block of every variant; ratios are paired by round. The baseline is
torchvision's definition as users run it: eager, float32, contiguous, torch's defaults (which on a
GPU means TF32 convolutions, and no search for algorithms). Where torchvision is missing or does not
import, the same network written below in plain modules stands in; column `definition` says which.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import sqzexplore as sqz
from sqzexplore import provenance, timing
from sqzexplore.errors import UserError
from sqzexplore.files import write_atomically, write_json
from sqzexplore.prepare import Runner, Settings, cudnn_as, is_out_of_memory
from sqzexplore.rounds import Rounds, alternate, summary, warm_up
from sqzexplore.throughput import resolve_device

NETWORKS = ("squeezenet1_0", "squeezenet1_1")
BASELINE = "eager float32, contiguous, torch's defaults"


class StandInFire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one = nn.Conv2d(squeeze, expand, 1)
        self.three = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.one(x)), self.relu(self.three(x))], 1)


class StandIn(nn.Module):
    """SqueezeNet v1.0 and v1.1 as their authors describe them, with torchvision's operations."""

    def __init__(self, network: str) -> None:
        super().__init__()
        old = network == "squeezenet1_0"
        stem = nn.Conv2d(3, 96, 7, stride=2) if old else nn.Conv2d(3, 64, 3, stride=2)
        layers: list[nn.Module] = [stem, nn.ReLU(inplace=True)]
        channels = stem.out_channels
        pools = {0, 3, 7} if old else {0, 2, 4}  # after so many Fires
        for fire, (squeeze, expand) in enumerate(
            itertools.chain.from_iterable([(s, 4 * s)] * 2 for s in (16, 32, 48, 64))
        ):
            if fire in pools:
                layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            layers.append(StandInFire(channels, squeeze, expand))
            channels = 2 * expand
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Conv2d(channels, 1000, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class Autocast(nn.Module):
    """A module under torch.autocast, as its users write it."""

    def __init__(self, net: nn.Module, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.device, self.dtype = net, device, dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device, dtype=self.dtype):
            return self.net(x)


@lru_cache(maxsize=1)
def peer() -> tuple[str, Callable[[str], nn.Module]]:
    """What users run: torchvision's definition, with its version, or the stand-in for it."""
    try:
        import torchvision

        return f"torchvision {torchvision.__version__}", lambda network: getattr(
            torchvision.models, network
        )(weights=None)
    except (ImportError, RuntimeError) as error:
        print(f"torchvision does not import ({error}): a stand-in takes its place", file=sys.stderr)
        return "stand-in for torchvision", StandIn


@dataclass(frozen=True)
class Variant:
    """One column of a round."""

    definition: str
    settings: Settings
    build: Callable[[], nn.Module] | None = None  # ours if None
    autocast: str = ""
    defaults: bool = False  # cuDNN as torch sets it up

    @property
    def mode(self) -> tuple[str, ...]:
        at = self.settings
        return (at.dtype, self.autocast, at.memory_format, at.mode, str(self.defaults))

    def flags(self) -> AbstractContextManager[None]:
        return nullcontext() if self.defaults else cudnn_as(self.settings)


def variants(
    network: str, batch: int, device: torch.device, input_size: int, compiled: bool
) -> list[Variant]:
    """The baseline first, then every mode that pays on this kind of device."""
    name, build = peer()
    cuda = device.type == "cuda"
    at = partial(Settings, str(device), batch, input_size=input_size)
    made = partial(build, network)
    half = "float16" if cuda else "bfloat16"
    chosen = [
        Variant(name, at("tf32" if cuda else "float32", memory_format="contiguous"), made, "", True)
    ]
    if compiled:

        def casted() -> nn.Module:
            return Autocast(made(), device.type, getattr(torch, half))

        chosen.append(Variant(name, at("float32", mode="compile"), casted, half))
    modes = ["eager", *(["cuda_graph"] if cuda else []), *(["compile"] if compiled else [])]
    dtypes = ["float32", "tf32", "float16", "bfloat16"] if cuda else ["float32", "bfloat16"]
    for dtype, mode in itertools.product(dtypes, modes):
        here = at(dtype, mode=mode)
        chosen.append(Variant(name, here, made))
        chosen.append(Variant("ours, module", here))
        chosen.append(Variant("ours, inference", at(dtype, mode=mode, form="inference")))
    return chosen


@contextmanager
def on(device: torch.device):
    with torch.inference_mode():
        if device.type == "cuda":
            with torch.cuda.device(device):
                yield
        else:
            yield


def measure(network: str, chosen: list[Variant], seconds: float) -> list[dict[str, object]]:
    """A row for each variant, ratios against the first and against the peer in the same mode."""
    architecture = sqz.preset(network)
    runners: dict[int, Runner] = {}
    failed: dict[int, str] = {}
    for number, variant in enumerate(chosen):
        module = variant.build() if variant.build else None
        try:
            with variant.flags():
                runners[number] = Runner(architecture, variant.settings, module)
                warm_up(runners[number].latency_ms, seconds / len(chosen) / 4)
        except (RuntimeError, MemoryError) as error:
            kind = "out_of_memory" if is_out_of_memory(error) else "failed"
            failed[number] = f"{kind}: {' '.join(str(error).split())[:200]}"
            if number == 0:
                raise

    def timed(number: int) -> float:
        with chosen[number].flags():
            return runners[number].latency_ms()

    order = list(runners)
    rounds = alternate([partial(timed, number) for number in order], seconds)
    medians = dict(zip(order, rounds.medians, strict=True))
    rows = []
    for number, variant in enumerate(chosen):
        at = variant.settings
        row: dict[str, object] = {
            "network": network,
            "definition": variant.definition,
            **{k: v for k, v in asdict(at).items() if k != "form"},
            "autocast": variant.autocast,
            "outcome": failed.get(number, "measured"),
        }
        if number in medians:
            row["expand"] = runners[number].expand
            peak = runners[number].peak_memory_bytes
            row["peak_memory_bytes"] = peak
            own = Rounds([rounds.latencies[order.index(number)]], [medians[number]])
            statistics = summary(own, at.batch)
            row |= {"images_per_s": at.batch / statistics["latency_ms_p50"] * 1e3, **statistics}
            row |= ratio("vs_baseline", medians[0], medians[number])
            twins = [n for n in medians if chosen[n].build and chosen[n].mode == variant.mode]
            if twins:
                row |= ratio("vs_same_mode", medians[twins[0]], medians[number])
        rows.append(row)
    return rows


def added(frame: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """`frame`, and of `before` the networks and batches that are not in it."""
    keys = ["network", "batch"]
    kept = before.merge(frame[keys].drop_duplicates(), on=keys, how="left", indicator=True)
    kept = kept[kept.pop("_merge") == "left_only"]
    return pd.concat([frame, kept]).sort_values(keys, kind="stable", ignore_index=True)


def ratio(name: str, theirs: list[float], ours: list[float]) -> dict[str, float]:
    found = timing.ratio(theirs, ours)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def report(frame: pd.DataFrame, console: Console) -> None:
    """The table, and how the goals stand."""
    for (network, batch), rows in frame.groupby(["network", "batch"], sort=False):
        table = Table(title=f"{network}, batch {batch}", title_justify="left")
        for heading in ("definition", "dtype", "layout", "mode", "expand"):
            table.add_column(heading)
        for heading in ("images/s", "95% interval", "vs baseline", "vs peer, same mode"):
            table.add_column(heading, justify="right")
        for _, row in rows.iterrows():
            dtype = f"{row['autocast']} autocast" if row["autocast"] else row["dtype"]
            cells = [row["definition"], dtype, row["memory_format"], row["mode"]]
            cells.append(row["expand"] if isinstance(row["expand"], str) else "")
            if row["outcome"] != "measured":
                table.add_row(*cells, row["outcome"][:24])
                continue
            cells += [f"{row['images_per_s']:,.1f}", f"+-{row['precision']:.1%}"]
            cells += [interval(row, "vs_baseline"), interval(row, "vs_same_mode")]
            table.add_row(*cells)
        console.print(table)
    console.print(f"baseline: {BASELINE}, the first row of each table")
    ours = frame[frame["definition"].str.startswith("ours") & (frame["outcome"] == "measured")]
    for (network, batch), rows in ours.groupby(["network", "batch"], sort=False):
        best = rows.loc[rows["vs_baseline"].idxmax()]
        console.print(
            f"best of ours, {network}, batch {batch}: {interval(best, 'vs_baseline')} the baseline "
            f"({best['definition']}, {best['dtype']}, {best['mode']})"
        )
    slower = ours[ours["vs_same_mode_high"] < 1]
    for _, row in slower.iterrows():
        console.print(
            f"slower than the peer in the same mode: {row['definition']}, {row['network']}, batch "
            f"{row['batch']}, {row['dtype']}, {row['mode']}: {interval(row, 'vs_same_mode')}"
        )
    if slower.empty:
        console.print("nothing of ours is slower than the peer in the same mode")


def interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[f"{name}_low"]):
        return "" if pd.isna(row[name]) else f"{row[name]:.2f}x"
    return f"{row[name]:.2f}x ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", default="1,16,256")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each network and batch")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, default=None, help="folder for the tables")
    parser.add_argument(
        "--add", action="store_true", help="keep what --out has of other networks and batches"
    )
    options = parser.parse_args()
    try:
        device = resolve_device(options.device)
    except UserError as error:
        sys.exit(_fail(str(error)))
    rows: list[dict[str, object]] = []
    for network in NETWORKS:
        for batch in map(int, options.batch.split(",")):
            chosen = variants(network, batch, device, options.input_size, not options.no_compile)
            with on(device):
                rows += measure(network, chosen, options.seconds)
            print(f"{network}, batch {batch}: done", file=sys.stderr)
    origin = provenance.of_sweep(str(device))
    frame = pd.DataFrame(rows).assign(
        threads=torch.get_num_threads(),
        device_name=provenance.device_name(str(device)),
        torch_version=str(torch.__version__),
        git_commit=origin["git_commit"],
    )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        if options.add:
            frame = added(frame, pd.read_parquet(options.out / "benchmark.parquet"))
        content = frame.to_csv(index=False).encode()
        write_atomically(options.out / "benchmark.csv", content)
        write_atomically(options.out / "benchmark.parquet", frame.to_parquet(index=False))
        write_json(options.out / "provenance.json", origin | {"arguments": sys.argv[1:]})
    report(frame, Console(width=None if sys.stdout.isatty() else 160))


def _fail(message: str) -> int:
    print(f"throughput.py: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
