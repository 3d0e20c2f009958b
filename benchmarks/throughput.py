"""torchvision's SqueezeNet against ours, in every mode, in one run and round by round.

    python benchmarks/throughput.py [--device auto] [--network squeezenet1_0,squeezenet1_1]
        [--batch 1,16,256] [--dtype ...] [--mode ...] [--seconds 60] [--out DIR]

Each round runs one block of every variant; ratios are paired by round. The baseline is
torchvision's definition as users run it: eager, float32, contiguous, torch's defaults (which on a
GPU means TF32 convolutions, and no search for algorithms). It comes first and once more last: how
far the second differs from the first is the noise. Where torchvision is missing or does not
import, the same network written below in plain modules stands in; column `definition` says which.

The fastest of ours is chosen in rounds of its own, which come first and are not reported: the
smallest of many numbers is small by luck too. What is said of it is of the rounds after.

A network and batch is one measurement, written to DIR when it is done. Run again, what DIR holds
is skipped, unless more dtypes or modes are asked for.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd
import rich.table
import torch
from rich.console import Console
from torch import Tensor, nn

import sqzexplore as sqz
from sqzexplore import provenance
from sqzexplore.cli import measuring
from sqzexplore.device_errors import is_lost, is_out_of_memory
from sqzexplore.errors import UserError
from sqzexplore.files import check_writable, write_atomically, write_json
from sqzexplore.measure import statistics
from sqzexplore.measure.clock import cudnn_as, least_warm_up_s, on_device
from sqzexplore.measure.devices import resolve_device
from sqzexplore.measure.interleave import Rounds, alternate, summary, warm_up
from sqzexplore.measure.runner import Runner
from sqzexplore.measure.settings import Settings

NETWORKS = ("squeezenet1_0", "squeezenet1_1")
BASELINE = "eager float32, contiguous, torch's defaults"
DTYPES = {"cpu": "float32,bfloat16", "cuda": "float32,tf32,float16,bfloat16"}
MODES = {"cpu": "eager,compile", "cuda": "eager,cuda_graph,compile,compile_graph"}
#: What a table may hold only one of, and what tells two rows of a network and batch apart.
MACHINE = ("device_name", "threads", "input_size")
VARIANT = ("definition", "dtype", "autocast", "memory_format", "mode", "again")
SUSTAINED_S = 0.1  # of a turn of a variant
#: Rounds, and turns without a pause, that choose the fastest; and their share of the time.
CHOOSING, CHOOSING_SHARE = 3, 0.2
#: What is fastest: passes alone, and without a pause.
FASTEST = ("fastest", "fastest_sustained")


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
    again: bool = False  # the baseline once more

    @property
    def row(self) -> dict[str, object]:
        at = {name: value for name, value in asdict(self.settings).items() if name != "form"}
        return {
            "definition": self.definition,
            **at,
            "autocast": self.autocast,
            "again": self.again,
        }

    @property
    def mode(self) -> tuple[str, ...]:
        at = self.settings
        return (at.dtype, self.autocast, at.memory_format, at.mode, str(self.defaults))

    def flags(self) -> AbstractContextManager[None]:
        return nullcontext() if self.defaults else cudnn_as(self.settings)


def variants(
    network: str,
    batch: int,
    device: torch.device,
    input_size: int,
    dtypes: Sequence[str],
    modes: Sequence[str],
) -> list[Variant]:
    """The baseline, the asked dtypes and modes of the peer's definition and ours, the baseline."""
    name, build = peer()
    cuda = device.type == "cuda"
    at = partial(Settings, str(device), batch, input_size=input_size)
    made = partial(build, network)
    half = "float16" if cuda else "bfloat16"
    plain = at("tf32" if cuda else "float32", memory_format="contiguous")
    baseline = Variant(name, plain, made, defaults=True)
    chosen = [baseline]
    if "compile" in modes:

        def casted() -> nn.Module:
            return Autocast(made(), device.type, getattr(torch, half))

        chosen.append(Variant(name, at("float32", mode="compile"), casted, half))
    for dtype, mode in itertools.product(dtypes, modes):
        here = at(dtype, mode=mode)
        chosen.append(Variant(name, here, made))
        chosen.append(Variant("ours, module", here))
        chosen.append(Variant("ours, inference", replace(here, form="inference")))
    return [*chosen, replace(baseline, again=True)]


def prepared(
    network: str, chosen: list[Variant], device: torch.device
) -> tuple[dict[int, Runner], dict[int, str]]:
    """A runner for each variant by its number, or why there is none."""
    runners: dict[int, Runner] = {}
    failed: dict[int, str] = {}
    for number, variant in enumerate(chosen):
        module = variant.build() if variant.build else None
        try:
            with variant.flags():
                runners[number] = Runner(sqz.preset(network), variant.settings, module)
        except (RuntimeError, MemoryError) as error:
            if number == 0 or is_lost(device):
                raise
            kind = "out_of_memory" if is_out_of_memory(error) else "failed"
            failed[number] = f"{kind}: {' '.join(str(error).split())[:200]}"
    return runners, failed


def sustained(
    chosen: list[Variant],
    runners: dict[int, Runner],
    seconds: float,
    turns: int = statistics.LEAST_ROUNDS,
) -> dict[int, list[float]]:
    """Images a second without a pause, by turns: as many as an interval needs, if there is time."""
    rates: dict[int, list[float]] = {number: [] for number in runners}
    started = time.perf_counter()
    for turn in range(turns):
        if turn and time.perf_counter() - started > seconds:
            break
        for number in random.Random(turn).sample(list(runners), len(runners)):
            with chosen[number].flags():
                passes, took = runners[number].run_for(SUSTAINED_S)
            rates[number].append(passes * chosen[number].settings.batch / took)
    return rates


def measure(
    network: str, chosen: list[Variant], device: torch.device, seconds: float
) -> list[dict[str, object]]:
    """A row for each variant, ratios against the first and against the peer in the same mode."""
    runners, failed = prepared(network, chosen, device)

    def timed(number: int) -> float:
        with chosen[number].flags():
            return runners[number].latency_ms()

    passes = {number: partial(timed, number) for number in runners}
    for one in passes.values():  # after all of them are compiled, while a GPU idles
        share = 1 / len(passes)
        warm_up(one, seconds * share / 4, least_warm_up_s(device) * share)
    first = alternate(list(passes.values()), seconds * CHOOSING_SHARE, CHOOSING)
    quickest = fastest(chosen, dict(zip(passes, first.medians, strict=True)), least=True)
    rounds = alternate(list(passes.values()), seconds * (1 - CHOOSING_SHARE))
    latencies = dict(zip(passes, rounds.latencies, strict=True))
    medians = dict(zip(passes, rounds.medians, strict=True))
    trial = sustained(chosen, runners, seconds / 2 * CHOOSING_SHARE, CHOOSING)
    steadiest = fastest(chosen, trial, least=False)
    rates = sustained(chosen, runners, seconds / 2 * (1 - CHOOSING_SHARE))
    rows = []
    for number, variant in enumerate(chosen):
        row = {"network": network, **variant.row, "outcome": failed.get(number, "measured")}
        row |= dict(zip(FASTEST, (number == quickest, number == steadiest), strict=True))
        if number in runners:
            row["expand"] = runners[number].expand
            row["peak_memory_bytes"] = runners[number].peak_memory_bytes
            found = summary(Rounds([latencies[number]], [medians[number]]), variant.settings.batch)
            speed = variant.settings.batch / found["latency_ms_p50"] * 1e3
            row |= {"images_per_s": speed, **found}
            row["sustained_images_per_s"] = statistics.median(rates[number]).value
            row |= ratio("vs_baseline", medians[0], medians[number])
            row |= ratio("sustained_vs_baseline", rates[number], rates[0])
            twins = [n for n in medians if chosen[n].build and chosen[n].mode == variant.mode]
            if twins:
                row |= ratio("vs_same_mode", medians[twins[0]], medians[number])
        rows.append(row)
    return rows


def fastest(chosen: list[Variant], numbers: dict[int, list[float]], least: bool) -> int | None:
    """Which variant of ours has the least, or greatest, median; None if none of them runs."""
    medians = {
        number: statistics.median(found).value
        for number, found in numbers.items()
        if chosen[number].build is None
    }
    if not medians:
        return None
    return (min if least else max)(medians, key=lambda number: medians[number])


class Table:
    """The table of a folder, written after every measurement.

    Raises:
        UserError: the folder cannot be written to, or holds another machine's table.
    """

    def __init__(self, folder: Path | None, device: torch.device, input_size: int) -> None:
        self.folder, self.device, self.frame = folder, device, pd.DataFrame()
        self.machine = {
            "device_name": provenance.device_name(str(device)),
            "threads": torch.get_num_threads(),
            "input_size": input_size,
        }
        if not folder:
            return
        check_writable(folder, "--out")
        if (folder / "benchmark.csv").exists():
            frame = pd.read_csv(folder / "benchmark.csv")
            # What an older version measured has fewer columns, and is measured anew.
            self.frame = frame if {*VARIANT, *FASTEST} <= {*frame} else self.frame
        if len(self.frame):
            for found in self.frame[[*MACHINE]].drop_duplicates().to_dict("records"):
                if found != self.machine:
                    raise UserError(
                        f"--out {folder}: found measurements with {found}, expected "
                        f"{self.machine}; choose another folder"
                    )

    def of(self, network: str, batch: int) -> pd.Series:
        """Which rows are of a network and batch."""
        return (self.frame["network"] == network) & (self.frame["batch"] == batch)

    def holds(self, network: str, batch: int, chosen: list[Variant]) -> bool:
        """Whether every variant of a network and batch is there."""
        if self.frame.empty:
            return False
        rows = self.frame.loc[self.of(network, batch), [*VARIANT]]
        there = {tuple(map(_text, row)) for row in rows.itertuples(index=False, name=None)}
        wanted = {tuple(_text(variant.row[name]) for name in VARIANT) for variant in chosen}
        return wanted <= there

    def add(self, network: str, batch: int, rows: list[dict[str, object]]) -> None:
        """Rows of a network and batch, in the place of those that were there."""
        origin = provenance.of_sweep(str(self.device))
        new = pd.DataFrame(rows).assign(
            threads=self.machine["threads"],
            device_name=self.machine["device_name"],
            torch_version=str(torch.__version__),
            git_commit=origin["git_commit"],
        )
        if len(self.frame):
            new = pd.concat([self.frame[~self.of(network, batch)], new], ignore_index=True)
        self.frame = new
        if not self.folder:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "benchmark.csv", self.frame.to_csv(index=False).encode())
        write_json(self.folder / "provenance.json", origin | {"arguments": sys.argv[1:]})


def _text(value: object) -> str:
    """A cell as the CSV has it."""
    return "" if value is None or value != value else str(value)


def ratio(name: str, theirs: list[float], ours: list[float]) -> dict[str, float]:
    found = statistics.ratio(theirs, ours)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def report(frame: pd.DataFrame, console: Console) -> None:
    """The table, and how the goals stand."""
    for (network, batch), rows in frame.groupby(["network", "batch"], sort=False):
        console.print(shown(rows, f"{network}, batch {batch}"))
        again = rows[rows["again"] & (rows["outcome"] == "measured")]
        for _, row in again.iterrows():
            console.print(f"noise, the baseline against itself: {interval(row, 'vs_baseline')}")
    console.print(f"baseline: {BASELINE}, the first row of each table")
    ours = frame[frame["definition"].str.startswith("ours") & (frame["outcome"] == "measured")]
    for (network, batch), rows in ours.groupby(["network", "batch"], sort=False):
        of = (("vs_baseline", "alone"), ("sustained_vs_baseline", "sustained"))
        for flag, (column, what) in zip(FASTEST, of, strict=True):
            for _, best in rows[rows[flag].astype(bool)].iterrows():
                console.print(
                    f"fastest of ours, {network}, batch {batch}, {what}, as rounds before these "
                    f"chose: {interval(best, column)} the baseline ({best['definition']}, "
                    f"{best['dtype']}, {best['mode']})"
                )
    slower = ours[ours["vs_same_mode_high"] < 1]
    for _, row in slower.iterrows():
        console.print(
            f"slower than the peer in the same mode: {row['definition']}, {row['network']}, batch "
            f"{row['batch']}, {row['dtype']}, {row['mode']}: {interval(row, 'vs_same_mode')}"
        )
    if slower.empty:
        console.print("nothing of ours is slower than the peer in the same mode")


def shown(rows: pd.DataFrame, title: str) -> rich.table.Table:
    """A network and batch: images a second of passes alone, and of passes without a pause."""
    table = rich.table.Table(title=title, title_justify="left")
    for heading in ("definition", "dtype", "layout", "mode", "expand"):
        table.add_column(heading)
    for heading in ("images/s", "95% interval", "vs baseline", "vs peer, same mode"):
        table.add_column(heading, justify="right")
    for heading in ("sustained", "vs baseline"):
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
        cells += [f"{row['sustained_images_per_s']:,.1f}", interval(row, "sustained_vs_baseline")]
        table.add_row(*cells)
    return table


def interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[f"{name}_low"]):
        return "" if pd.isna(row[name]) else f"{row[name]:.2f}x"
    return f"{row[name]:.2f}x ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--network", default=",".join(NETWORKS))
    parser.add_argument("--batch", default="1,16,256")
    parser.add_argument("--dtype", help="of ours, and of the peer's definition beside it")
    parser.add_argument("--mode", help="the same")
    parser.add_argument("--input-size", default="224")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each network and batch")
    parser.add_argument("--out", type=Path, default=None, help="folder for the tables")
    try:
        run(parser.parse_args())
    except UserError as error:
        print(f"throughput.py: {error}", file=sys.stderr)
        sys.exit(2)


def run(options: argparse.Namespace) -> None:
    device = resolve_device(options.device)
    networks = options.network.split(",")
    if unknown := set(networks) - set(NETWORKS):
        raise UserError(f"--network: found {min(unknown)!r}, expected {' or '.join(NETWORKS)}")
    lists = {
        "batch": options.batch,
        "dtype": options.dtype or DTYPES[device.type],
        "mode": options.mode or MODES[device.type],
        "input_size": options.input_size,
    }
    asked = measuring.parse(lists, options.seconds, device)
    if asked.batch == "auto" or not asked.input_size or len(asked.input_size) > 1:
        raise UserError("expected numbers as --batch, and one as --input-size")
    size = asked.input_size[0]
    table = Table(options.out, device, size)
    for network, batch in itertools.product(networks, asked.batch):
        chosen = variants(network, batch, device, size, asked.dtype, asked.mode)
        if table.holds(network, batch, chosen):
            print(f"{network}, batch {batch}: there already", file=sys.stderr)
            continue
        with torch.inference_mode(), on_device(device):
            table.add(network, batch, measure(network, chosen, device, options.seconds))
        print(f"{network}, batch {batch}: done", file=sys.stderr)
    report(table.frame, Console(width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main()
