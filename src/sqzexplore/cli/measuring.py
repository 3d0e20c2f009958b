"""What the verb `bench` does: which architectures, at which settings, and the table of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from .. import provenance
from ..device_errors import is_out_of_memory
from ..errors import UserError, nearest, shown
from ..files import check_writable, write_json
from ..measure.apart import Processes, default_processes
from ..measure.devices import DeviceLost, check_choices
from ..measure.layers import measure_layers
from ..measure.reference import forget_references
from ..measure.runtimes import check_runtimes
from ..measure.settings import CHOICES, MAX_BATCH, Settings
from ..measure.throughput import Throughput, blank, over_batches
from ..network.architecture import Architecture
from ..network.presets import PRESETS, preset
from ..results.folder import ResultFolder
from ..space.strata import stratified
from ..spec.load import load_spec
from ..spec.models import Spec, ThroughputSpec

#: Architectures of a spec that are measured one after the other.
MAX_TARGETS = 1000
#: ImageNet's, which the presets are for.
_INPUT_SIZE = 224
_EXAMPLES = {"batch": "1,64, or auto", "input_size": "224"}
#: Called with what is being measured.
OnStart = Callable[[str], None]


def targets(target: str) -> tuple[dict[str, Architecture], int]:
    """The preset of that name, or the architectures of the spec in that file; and the side of the
    images that they are for, pixels.

    Raises:
        UserError: neither.
    """
    if target in PRESETS:
        return {target: PRESETS[target]}, _INPUT_SIZE
    if not target.endswith((".yaml", ".yml")) and not Path(target).exists():
        return {target: preset(target)}, _INPUT_SIZE
    spec = load_spec(target)
    space = spec.design_space
    if space.size > MAX_TARGETS:
        raise UserError(
            f"{target}: found {space.size:,} combinations, expected at most {MAX_TARGETS:,} to "
            "measure each"
        )
    return {a.arch_id: a for a in map(space.architecture, space.indices())}, spec.input_size


def drawn(spec: Spec, networks: int, seed: int) -> list[Architecture]:
    """Different networks of a spec's space at random, stratified by log MACs; more of them begin
    with the same ones.

    Raises:
        UserError: the space has fewer.
    """
    found = list(islice(stratified(spec.design_space, "macs", seed, spec.name), networks))
    if len(found) < networks:
        raise UserError(
            f"--networks: found {len(found)} different networks in the space of {spec.name}, "
            f"expected at least {networks}"
        )
    return found


def parse(
    options: Mapping[str, str],
    seconds: float,
    device: torch.device,
    processes: int | None = None,
) -> ThroughputSpec:
    """The measurements that the command line's lists ask for.

    Args:
        options: text by key of `ThroughputSpec`, such as `batch: "1,64"` or `dtype: "float32"`.
        seconds: time budget of one measurement.
        device: where they are to run.
        processes: that measure each by turns; None: as the device suggests.

    Raises:
        UserError: a value that is none, or that the device cannot do.
    """
    values: dict[str, Any] = {}
    for key, text in options.items():
        option, items = f"--{key.replace('_', '-')}", [item.strip() for item in text.split(",")]
        if key in CHOICES:
            values[key] = [_choice(item, option, CHOICES[key]) for item in items]
        elif key == "batch" and text.strip() == "auto":
            values[key] = "auto"
        else:
            values[key] = [positive(item, option, _EXAMPLES[key]) for item in items]
        if (twice := next((v for v in values[key] if values[key].count(v) > 1), None)) is not None:
            raise UserError(f"{option}: expected each value once, {shown(twice)} stands twice")
    if not 0 < seconds <= 600:
        raise UserError(f"--seconds: found {seconds}, expected a number > 0, at most 600")
    requested = ThroughputSpec(**values, seconds=seconds, processes=processes)
    check_choices(requested.dtype, requested.mode, device, "--")
    check_runtimes(requested.runtime, requested.dtype, device, "--")
    return requested


class ThroughputStore:
    """The table `throughput` of a folder, which is written after every measurement.

    What it holds is not measured again: an architecture at the same settings, on a device of the
    same name, with as many threads.

    Args:
        folder: where the table is; None keeps nothing.
        sweep: what column `sweep` says of new rows.
        device: where new rows are measured.

    Raises:
        UserError: the folder cannot be written to, is a sweep's, or its table cannot be read.
    """

    def __init__(self, folder: Path | None, sweep: str, device: torch.device) -> None:
        self.folder = folder
        self._origin = {
            "sweep": sweep,
            "device_name": provenance.device_name(str(device)),
            "torch_version": torch.__version__,
            "git_commit": provenance.git_commit(),
        }
        self._rows: list[dict[str, Any]] = []
        #: What `provenance.json` says of other machines, by their names.
        self._boards: dict[str, Any] = {}
        #: How many measurements were asked for that the table held.
        self.found = 0
        if folder:
            check_writable(folder, "--out")
            if ResultFolder(folder).has("trials"):
                raise UserError(f"--out {folder}: found a sweep's folder, expected one of its own")
            if (there := ResultFolder(folder).table("throughput")) is not None:
                self._rows = _plain(there)
            self._boards = _boards(ResultFolder(folder).provenance)

    def get(
        self, architecture: Architecture, settings: Settings, measure: Callable[[], Throughput]
    ) -> dict[str, Any]:
        """The row of a measurement: the one that is there, or a new one, which is written."""
        known = {"arch_id": architecture.arch_id, "device_name": self._origin["device_name"]}
        known |= asdict(settings) | {"threads": torch.get_num_threads()}
        for row in self._rows:
            if all(row[name] == value for name, value in known.items()):
                self.found += 1
                return row
        known["net_id"] = architecture.net_id
        try:
            return self._add(known, measure())
        except DeviceLost as error:
            self._add(known, replace(blank(settings), outcome="failed", reason=str(error)))
            raise

    def add_imported(self, rows: Sequence[dict[str, Any]], board: Mapping[str, str]) -> None:
        """Add rows that another machine measured, in the place of its own of the same settings.

        Args:
            rows: of one `device_name`.
            board: what `provenance.json` says of it.
        """
        keys = ("arch_id", "device_name", *(f.name for f in fields(Settings)), "threads")
        new = {tuple(row[key] for key in keys) for row in rows}
        self._rows = [row for row in self._rows if tuple(row[key] for key in keys) not in new]
        self._rows += [{k: v for k, v in row.items() if k != "architecture"} for row in rows]
        self._boards[board["device_name"]] = dict(board)
        self._write("cpu")

    def _write(self, device: str) -> None:
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            results = ResultFolder(self.folder)
            results.write({"throughput": self._rows})
            boards = {"boards": self._boards} if self._boards else {}
            write_json(results.provenance, provenance.of_sweep(device) | boards)

    def _add(self, known: dict[str, Any], measured: Throughput) -> dict[str, Any]:
        row = known | self._origin | asdict(measured)
        self._rows.append(row)
        self._write(measured.device)
        return row


def _boards(file: Path) -> dict[str, Any]:
    """What a `provenance.json` says of other machines, if there is one."""
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")).get("boards", {}))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from None


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with the values of Python, None where there is none."""
    plain = table.astype(object).where(table.notna(), None)
    names = [str(name) for name in plain]
    return [dict(zip(names, row, strict=True)) for row in plain.itertuples(index=False)]


def run(
    architectures: Mapping[str, Architecture],
    requested: ThroughputSpec,
    device: torch.device,
    store: ThroughputStore,
    on_start: OnStart = lambda what: None,
) -> list[dict[str, Any]]:
    """Every measurement of every architecture: rows of `throughput`, with its `architecture`.

    All architectures at one combination before the next: the reference network of a combination is
    made once, and what was measured when the time is over compares.

    Raises:
        FeatureMapVanishes: an architecture does not fit an input size; nothing was measured.
        DeviceLost: as `measure`; the row says so.
    """
    rows: list[dict[str, Any]] = []
    for size in requested.input_size or []:
        for architecture in architectures.values():  # before minutes are spent on the others
            architecture.check_input_size(size)
    count = requested.processes or default_processes(str(device))
    with closing(Processes(count, torch.get_num_threads())) as processes:
        for settings in requested.settings(str(device), 224):
            forget_references()
            for name, architecture in architectures.items():

                def at(
                    batch: int,
                    name: str = name,
                    architecture: Architecture = architecture,
                    settings: Settings = settings,
                ) -> dict[str, Any]:
                    this = replace(settings, batch=batch)
                    on_start(f"{name}, {this}")
                    given = (architecture, this, requested.seconds, store.folder)
                    return store.get(architecture, this, partial(processes.measure, *given))

                rows += [{"architecture": name} | row for row in over_batches(requested.batch, at)]
    return rows


def run_layers(
    architectures: Mapping[str, Architecture],
    requested: ThroughputSpec,
    device: torch.device,
    folder: Path | None = None,
    on_start: OnStart = lambda what: None,
) -> list[dict[str, Any]]:
    """Every layer of every architecture at every combination: rows of `LayerTime`, with settings.

    Raises:
        UserError: a batch, form, mode or runtime whose layers cannot be run one by one, or what
            does not fit the memory.
    """
    takes = {"form": ("module",), "mode": ("eager", "cuda_graph"), "runtime": ("torch",)}
    for key, valid in takes.items():
        for found in getattr(requested, key):
            if found not in valid:
                raise UserError(
                    f"--{key}: found {found}, expected {' or '.join(valid)} with --layers"
                )
    if requested.batch == "auto":
        raise UserError("--batch: found auto, expected numbers with --layers")
    rows: list[dict[str, Any]] = []
    for name, architecture in architectures.items():
        for settings in requested.settings(str(device), 224):
            for batch in requested.batch:
                this = replace(settings, batch=batch)
                on_start(f"{name}, {this}")
                try:
                    found = measure_layers(architecture, this, requested.seconds, folder)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    reason = " ".join(str(error).split())[:300]
                    raise UserError(f"{name}, {this}: found too little memory ({reason})") from None
                rows += [{"architecture": name} | asdict(this) | asdict(one) for one in found]
    return rows


def positive(text: str, option: str, example: str) -> int:
    """A whole number of the command line.

    Args:
        text: what was typed.
        option: where.
        example: what could have been.

    Raises:
        UserError: it is none.
    """
    if not text.isdecimal() or not 1 <= int(text) <= MAX_BATCH:
        raise UserError(f"{option}: found {shown(text)}, expected integers >= 1 such as {example}")
    return int(text)


def _choice(text: str, option: str, valid: tuple[str, ...]) -> str:
    if text not in valid:
        raise UserError(
            f"{option}: found {shown(text)}, expected {', '.join(valid)}{nearest(text, valid)}"
        )
    return text
