"""What a report holds: everything that its template and its script show, as plain values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.validation import largest_budget
from ..errors import UserError
from ..figures.tradeoff import default_figures
from ..network.architecture import KEYS
from ..network.columns import architecture_at
from ..network.cost import COST_COLUMNS, cost
from ..network.frames import architecture_name, columns_of_frame
from ..predict.verdict import audit_lines
from ..published import published
from ..results.claims import claim_lines
from ..results.completeness import planned
from ..results.folder import ResultFolder, load_results
from ..results.remarks import training_remarks
from ..results.selection import chosen_by, chosen_front, goals
from ..results.shown import (
    ShownColumn,
    axis_columns,
    interval_column,
    named,
    shown_columns,
    shown_rows,
)
from ..results.smaller import drops_of, smaller_columns, smaller_lines
from ..results.tables import TRIALS
from ..schema import goal, is_derived
from ..spec.checks import figure_columns
from ..spec.models import Spec
from .findings import Effect, answer, effects
from .wording import heading, number, remark

#: Trials whose values the page holds; of more, the front and a random sample.
MOST_TRIALS = 20_000
#: Trials whose layer tables the page holds: the front first.
MOST_LAYER_TABLES = 500
#: Rows of a table that stands in the page as text.
MOST_ROWS = 200
#: With more trials than this, columns that follow from others are left out of the page's data.
_MANY = 5_000

_MORE_NUMBERS = ("top5", "val_top1", "relative_to_reference", "roofline_share", "duration_s")


@dataclass(frozen=True)
class Table:
    """A table as text; `left_out` says how many rows it lacks."""

    headings: list[str]
    rows: list[list[str]]
    left_out: int = 0

    @classmethod
    def of(cls, columns: list[ShownColumn], frame: pd.DataFrame) -> Table:
        """The first rows of a table."""
        shown = shown_columns(columns)
        rows = shown_rows(shown, (row for _, row in frame.head(MOST_ROWS).iterrows()))
        return cls([c.heading for c in shown], rows, max(0, len(frame) - MOST_ROWS))


@dataclass(frozen=True)
class Origin:
    """Where a group of columns comes from: how it was obtained, and on what."""

    name: str
    how: str
    table: Table


@dataclass
class Content:
    """Everything that the page says of one sweep."""

    spec: Spec
    folder: Path
    trials: int
    planned: int | None
    states: dict[str, int]
    last_started: str
    answer: list[str]
    effects: list[Effect]
    front: Table
    smaller: list[tuple[str, Table]]
    throughput: Table | None
    failures: Table
    origins: list[Origin]
    meanings: dict[str, str]
    paper: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Whether trials are still to come, as far as is known."""
        return self.planned is not None and self.trials < self.planned

    @property
    def spans(self) -> dict[str, tuple[float, float]]:
        """For each objective where the bars of its effects begin, and how far they reach."""
        spans = {}
        for name in self.spec.objectives:
            known = [level.spread.get(name) for e in self.effects for level in e.levels]
            ends = [end for spread in known if spread for end in spread[1:]]
            low, high = (min(ends), max(ends)) if ends else (0.0, 0.0)
            spans[name] = (low, (high - low) or 1.0)
        return spans


def gather(folder: Path) -> Content:
    """Everything that there is to say of the sweep in `folder`.

    Raises:
        UserError: the folder holds no sweep, or its files are damaged.
    """
    _check_folder(folder)
    spec = ResultFolder(folder).spec()
    trials = load_results(folder).sort_values("trial", ignore_index=True)
    # What a single Fire overrides has no column while no trial does.
    axes = spec.design_space.axis_names
    trials = trials.reindex(columns=[*dict.fromkeys([*trials, *axes])])
    seeds, throughput = (_optional(folder, name) for name in ("seeds", "throughput"))
    images, claims, audit = (
        ResultFolder(folder).table(name) for name in ("images", "claims", "audit")
    )
    drops = drops_of(ResultFolder(folder))
    remarks = training_remarks(trials, None if seeds.empty else seeds)
    seeds = largest_budget(seeds)
    front = _front(spec, trials)
    data = _data(spec, trials, front)
    shown = {*data["columns"]} | {"state"}
    return Content(
        spec=spec,
        folder=folder,
        trials=len(trials),
        planned=planned(spec),
        states={str(name): int(n) for name, n in trials["state"].value_counts().items()},
        last_started=str(trials["started_at"].max()) if trials["started_at"].notna().any() else "",
        answer=[
            *answer(spec, trials, seeds, images, throughput),
            *map(_sentence, remarks),
            *map(_sentence, smaller_lines(spec, trials, drops)),
            *([] if claims is None else map(_sentence, claim_lines(claims))),
            *([] if audit is None else map(_sentence, audit_lines(audit))),
        ],
        effects=effects(spec, trials),
        front=_front_table(spec, front),
        smaller=[_smaller_table(spec, trials, form, rows) for form, rows in drops.items()],
        throughput=None if throughput.empty else _throughput_table(spec, trials, throughput),
        failures=_failures(spec, trials),
        origins=_origins(trials, throughput),
        meanings={n: c.meaning for n, c in TRIALS.items() if n in shown and c.meaning},
        paper=[f.reference for f in default_figures(spec) if f.reference],
        provenance=_provenance(folder),
        checksums=_checksums(folder),
        data=data,
    )


def _sentence(remark: str) -> str:
    return f"{remark[0].upper()}{remark[1:]}."


def _check_folder(folder: Path) -> None:
    """Say what a folder is that is no sweep's."""
    for name, what in (("census.json", "a census"), ("benchmark.csv", "a benchmark")):
        if (folder / name).exists():
            raise UserError(
                f"{folder}: found {what} ({name}), expected the folder of a sweep; a report "
                "is made of trials"
            )
    tables = ResultFolder(folder)
    if tables.has("throughput") and not tables.has("trials"):
        raise UserError(
            f"{folder}: found a bench (the table throughput alone), expected the folder of a "
            "sweep; a report is made of trials"
        )


def _optional(folder: Path, table: str) -> pd.DataFrame:
    found = ResultFolder(folder).table(table)
    return pd.DataFrame() if found is None else found


def _front(spec: Spec, trials: pd.DataFrame) -> pd.DataFrame:
    """The front by which trials are chosen, in the first objective's order."""
    first, direction = next(iter(spec.objectives.items()))
    front = chosen_front(spec, trials)
    return front.sort_values(chosen_by(first), ascending=direction == "minimize")


# --- what the script draws ---------------------------------------------------------------------


def _data(spec: Spec, trials: pd.DataFrame, front: pd.DataFrame) -> dict[str, Any]:
    axes = spec.design_space.axis_names
    kept = _kept(trials, front)
    names = _plot_columns(spec, trials)
    table = ["trial", *axes, *spec.objectives, "params", "macs"]
    if len(trials) > (trials["state"] == "complete").sum():
        table.insert(1, "state")
    interval = ["top1_ci_low", "top1_ci_high"] if trials["top1"].notna().any() else []
    columns = dict.fromkeys([*table, *names, *interval])
    x, y = _first_axes(spec, names)
    position = {trial: row for row, trial in enumerate(kept["trial"])}
    return {
        "name": spec.name,
        "axes": axes,
        "trials": len(kept),
        "columns": {name: _column(name, kept, spec) for name in columns},
        "numeric": names,
        "table": list(dict.fromkeys(table)),
        "colours": axes + [name for name in ("state",) if name in table],
        "x": x,
        "y": y,
        "front": [position[trial] for trial in front["trial"] if trial in position],
        "layers": _layers(kept, front),
        "layerInput": spec.input_size,
        "paper": [_paper(figure) for figure in dict.fromkeys(_references(spec))],
    }


def _kept(trials: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """The trials that the page holds."""
    if len(trials) <= MOST_TRIALS:
        return trials
    others = trials[~trials["trial"].isin(front["trial"])]
    sample = others.sample(max(0, MOST_TRIALS - len(front)), random_state=0)
    return pd.concat([front, sample]).head(MOST_TRIALS).sort_values("trial", ignore_index=True)


def _plot_columns(spec: Spec, trials: pd.DataFrame) -> list[str]:
    """The numeric columns that can be an axis: what the sweep measured, and what varies."""
    requested = [name for figure in default_figures(spec) for name in (figure.x, figure.y)]
    axes = [axis for axis in spec.design_space.axis_names if KEYS[axis] in (int, float)]
    wanted = dict.fromkeys([*spec.objectives, *requested, *axes])
    others = [*dict.fromkeys([*figure_columns(spec), *_MORE_NUMBERS])]
    if len(trials) > _MANY:
        others = [name for name in others if not is_derived(name)]
    for name in others:
        if trials[name].nunique() > 1:
            wanted[name] = None
    return [name for name in wanted if trials[name].notna().any()]


def _first_axes(spec: Spec, names: list[str]) -> tuple[str, str]:
    """What the scatter shows first: the spec's first figure, as far as it has values."""
    for figure in default_figures(spec):
        if {figure.x, figure.y} <= set(names):
            return figure.x, figure.y
    names = names or ["params", "macs"]
    y = next(iter(spec.objectives))
    x = next((name for name in ("params", *names) if name in names and name != y), names[0])
    return x, y if y in names else names[0]


def _column(name: str, trials: pd.DataFrame, spec: Spec) -> dict[str, Any]:
    """A column's heading, remark, direction and values; one value where all are the same."""
    values = trials[name]
    known = TRIALS.get(name)  # what single Fires override has no column of its own there
    text = known.type == "string" if known else KEYS[name] is str
    plain: list[Any] = [None if pd.isna(v) else v for v in values.tolist()]
    if not text and (known is None or known.type == "Float64"):
        plain = [None if v is None or not np.isfinite(v) else float(f"{v:.7g}") for v in plain]
    better = spec.objectives.get(name) or _direction(name)
    column = {
        "heading": heading(name),
        "remark": remark(name, trials),
        "kind": "text" if text else "number",
        "whole": known is not None and known.type == "Int64",
        "unit": known.unit if known else "",
        "better": better,
    }
    if len(set(plain)) == 1:
        return column | {"value": plain[0]}
    return column | {"values": plain}


def _direction(name: str) -> str | None:
    if (known := goal(name)) is not None:
        return known
    return None if name in KEYS or name in ("trial", "state") else "minimize"


def _layers(trials: pd.DataFrame, front: pd.DataFrame) -> dict[int, list[list[Any]]]:
    """Layer tables of the deployed network by row: the front's, then the first trials'."""
    on_front = set(front["trial"])
    order = sorted(range(len(trials)), key=lambda row: trials["trial"].iloc[row] not in on_front)
    order = order[:MOST_LAYER_TABLES]
    columns = columns_of_frame(trials.iloc[order])
    sizes = trials["input_size"].to_numpy()
    tables = {}
    for place, row in enumerate(order):
        counted = cost(architecture_at(columns, place), int(sizes[row]))
        tables[row] = [
            [
                layer.name,
                "x".join(map(str, layer.output_shape)),
                layer.filters,
                *(layer.params, layer.macs, layer.activations),
            ]
            for layer in counted.layers
        ]
    return tables


def _references(spec: Spec) -> list[str]:
    return [figure.reference for figure in default_figures(spec) if figure.reference]


def _paper(reference: str) -> dict[str, Any]:
    """The paper's points of one figure or table."""
    rows = published(reference)
    known = rows.dropna(subset=["size_mb", "top5"])
    return {
        "name": reference,
        "labels": known["label"].tolist(),
        "size_mb": known["size_mb"].tolist(),
        "top5": known["top5"].tolist(),
    }


# --- tables in the page ------------------------------------------------------------------------


def _front_table(spec: Spec, front: pd.DataFrame) -> Table:
    chosen = [name for side in goals(spec, front) for name in side]
    columns = [_number("trial"), *axis_columns(spec.design_space.axis_names)]
    for name in dict.fromkeys([*spec.objectives, *chosen, "params", "macs"]):
        note = remark(name, front) if len(front) else ""
        columns.append(_number(name, f"{heading(name)}{f', {note}' if note else ''}"))
        if name == "top1":
            columns.append(
                interval_column("95% interval", "top1_ci_low", "top1_ci_high", otherwise="one seed")
            )
    return Table.of(columns, front)


def _number(column: str, named_as: str | None = None) -> ShownColumn:
    """A column of numbers, under its own name and unit or another heading."""
    return ShownColumn(named_as or heading(column), lambda row: number(column, row[column]))


def _trial_columns(spec: Spec, trials: pd.DataFrame) -> list[ShownColumn]:
    """A trial's number, and its architecture by what varies."""
    axes = spec.design_space.axis_names
    names = {row["trial"]: architecture_name(row, axes) for _, row in trials.iterrows()}
    name = ShownColumn("architecture", lambda row: names.get(row["trial"], ""), words=True)
    return [_number("trial"), name]


def _smaller_table(
    spec: Spec, trials: pd.DataFrame, form: str, drops: pd.DataFrame
) -> tuple[str, Table]:
    """A caption, and what each compressed or quantised network lost, a row an architecture and
    setting."""
    what = "in 8-bit integers" if form == "int8" else form
    caption = f"Networks {what} against their float32 selves ({remark('top1', trials)})"
    columns = [_number("trial"), *smaller_columns(spec, trials, form, drops)]
    return caption, Table.of(columns, drops)


_THROUGHPUT_TEXT = (
    *("device", "runtime", "batch", "dtype", "memory_format", "form", "mode", "input_size"),
)


def _throughput_table(spec: Spec, trials: pd.DataFrame, throughput: pd.DataFrame) -> Table:
    """A row a measurement; what is the same in all of them stands in the provenance."""
    varied = [name for name in _THROUGHPUT_TEXT if throughput[name].nunique() > 1]
    columns = [
        *_trial_columns(spec, trials),
        *(named(heading(name), name, words=True) for name in varied),
        _number("images_per_s", "images_per_s (images/s)"),
        _number("latency_ms_p50", "latency_ms_p50 (ms)"),
        interval_column("95% interval (ms)", "latency_ms_p50_low", "latency_ms_p50_high"),
        _number("latency_ms_p99", "latency_ms_p99 (ms)"),
        _number("relative_to_reference"),
        interval_column("95% interval", "relative_to_reference_low", "relative_to_reference_high"),
        ShownColumn("outcome", _outcome, words=True),
    ]
    return Table.of(columns, throughput)


def _outcome(row: pd.Series) -> str:
    """Whether a measurement has numbers, and whether they are as precise as was aimed at."""
    if pd.isna(row["outcome"]):
        return ""
    short = not pd.isna(row["precise"]) and not row["precise"]
    return f"{row['outcome']}, not precise" if short else str(row["outcome"])


def _failures(spec: Spec, trials: pd.DataFrame) -> Table:
    bad = trials[trials["state"] != "complete"]
    columns = [
        *_trial_columns(spec, bad),
        named("state", "state", words=True),
        ShownColumn("why", _why, words=True),
    ]
    return Table.of(columns, bad)


def _why(row: pd.Series) -> str:
    """Why a trial has no result."""
    if row["state"] == "diverged":
        return f"{row['diverged_seeds']} of {row['seeds']} seeds: the loss was not finite"
    why = "" if pd.isna(row["error"]) else str(row["error"])
    return why or ("ended early by the search" if row["state"] == "pruned" else "")


# --- provenance --------------------------------------------------------------------------------


def _origins(trials: pd.DataFrame, throughput: pd.DataFrame) -> list[Origin]:
    counts = [name for name in COST_COLUMNS if trials[name].notna().any()]
    origins = [
        Origin(
            f"Counts: {', '.join(counts)}",
            "Exact, in closed form, of the deployed network and one image; nothing is measured.",
            _distinct(trials, ["input_size", "sqzexplore_version", "git_commit"]),
        )
    ]
    trained = trials[trials["top1"].notna() | trials["seeds"].notna()]
    if len(trained):
        origins.append(
            Origin(
                "Accuracy: top1, top5, val_top1",
                "A proxy: of a network with the same metaparameters but for those under `proxy` in "
                "the spec, trained on the data set below. top1 is the mean over seeds on the test "
                "split after the last epoch; its 95% interval is over seeds and "
                "test images. What is chosen is chosen on the validation split.",
                _distinct(
                    trained,
                    [
                        *("data", "data_sha256", "train_input_size", "recipe", "precision"),
                        *("epochs", "seeds", "device", "device_name", "cpu_capability"),
                        "train_threads",
                        *("torch_version", "sqzexplore_version", "git_commit"),
                    ],
                ),
            )
        )
    if trials["compressed_mb"].notna().any():
        origins.append(
            Origin(
                "Compressed networks: compressed_mb, compressed_top1, compressed_drop",
                "Deep Compression (arXiv:1510.00149) of each trained network, with retraining; of "
                "what the file decodes to. Storage, not speed.",
                _distinct(trials[trials["compressed_mb"].notna()], ["device", "git_commit"]),
            )
        )
    if trials["int8_mb"].notna().any():
        origins.append(
            Origin(
                "8-bit integers: int8_mb, int8_top1, int8_drop",
                "Each trained network quantised statically, without retraining, and run by ONNX "
                "Runtime on the CPU.",
                _distinct(trials[trials["int8_mb"].notna()], ["device_name", "git_commit"]),
            )
        )
    if len(throughput):
        origins.append(
            Origin(
                "Throughput: images_per_s, latency_ms_p50, latency_ms_p99",
                "Measured on the device below: rounds of passes of the network and of "
                "squeezenet1_1 by turns; the median pass. Its 95% interval is over the processes "
                "(Student's t of the logarithms), or, of one, over its rounds (distribution-free).",
                _distinct(
                    throughput,
                    [
                        *("device", "device_name", "threads", "runtime", "runtime_version"),
                        *("torch_version", "input_size", "batch", "dtype", "memory_format"),
                        *("form", "mode", "processes"),
                    ],
                ),
            )
        )
    return origins


def _distinct(frame: pd.DataFrame, names: list[str]) -> Table:
    """The distinct combinations of some columns, and how many rows have each."""
    counted = frame.groupby(names, dropna=False, sort=False).size().reset_index(name="rows")
    return Table.of([named(name, name, words=True) for name in (*names, "rows")], counted)


def _provenance(folder: Path) -> dict[str, Any]:
    """`provenance.json` in one level; empty where there is none yet."""
    file = ResultFolder(folder).provenance
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text())
        packages, processor = content.pop("packages", {}), content.pop("processor", {})
        content |= {f"processor {key}": value for key, value in processor.items()} | packages
        return {str(name): value for name, value in content.items() if value != ""}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from None


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that the report was made from, as they were."""
    sums = {}
    for path in ResultFolder(folder).files():
        with path.open("rb") as file:
            sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
