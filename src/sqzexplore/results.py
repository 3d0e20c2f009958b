"""The tables of a sweep: what their columns mean, writing and loading them.

A result folder holds `trials` (one row an architecture), and in long form `seeds` (one row a
training), `history` (one row an epoch of a training), `images` (one row a training and split) and
`throughput` (one row a measurement), each as CSV for eyes and diffs and as Parquet for types.
"""

from __future__ import annotations

import base64
import glob
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from .architecture import FIELDS, Architecture
from .columns import architecture_at, columns_of_frame, format_value, with_overrides
from .errors import UserError
from .files import write_atomically

_Type = Literal["string", "Int64", "Float64", "boolean"]


@dataclass(frozen=True)
class Column:
    """What a column holds: its pandas type, unit and meaning."""

    type: _Type
    unit: str
    meaning: str


_FIELD_TYPES: dict[type, _Type] = {
    int: "Int64",
    float: "Float64",
    bool: "boolean",
    str: "string",
    tuple: "string",
}
_COST = {
    "params": Column("Int64", "", "weights, biases and BatchNorm's scales and shifts"),
    "live_params": Column(
        "Int64", "", "params without the weights whose tap meets padding alone, at the input's size"
    ),
    "macs": Column("Int64", "", "multiply-accumulates of the convolutions, one image"),
    "flops": Column("Int64", "", "2 x MACs"),
    "size_mb": Column("Float64", "MB", "4 bytes a parameter, 1e6 bytes a MB"),
    "activations": Column("Int64", "", "elements of all convolutions' outputs, one image"),
    "peak_activation_bytes": Column(
        "Int64", "bytes", "most float32 activations alive at once, one image"
    ),
}
_TRIAL = {
    "sweep": Column("string", "", "name of the sweep"),
    "trial": Column("Int64", "", "number of the trial in the Optuna study"),
    "state": Column(
        "string",
        "",
        "complete; diverged: a seed's loss was not finite; dead: a seed's accuracy cannot be told "
        "from chance; pruned: ended early by the search; failed: see error",
    ),
    "arch_id": Column("string", "", "names the architecture's metaparameters"),
    "net_id": Column(
        "string", "", "names the network that they give; other metaparameters may give the same"
    ),
}
#: The columns that every table begins with.
IDENTITY = tuple(_TRIAL)
_RUN = {
    "top1": Column("Float64", "%", "top-1 accuracy on the test split after the last epoch"),
    "top5": Column("Float64", "%", "share of the same whose class is among the five likeliest"),
    "val_top1": Column("Float64", "%", "top-1 accuracy on the validation split"),
}
_SPEED = {
    "device": Column("string", "", "where it ran: cpu or cuda:N"),
    "batch": Column("Int64", "images", "images in one forward pass"),
    "dtype": Column("string", "", "type of weights and images; tf32: float32, multiplied as TF32"),
    "memory_format": Column("string", "", "order of weights and images: channels_last, contiguous"),
    "form": Column("string", "", "module; inference: the fast form with the same outputs"),
    "mode": Column("string", "", "eager, cuda_graph, compile, or compile_graph: both"),
    "outcome": Column("string", "", "measured, out_of_memory, compile_failed or failed"),
    "images_per_s": Column("Float64", "images/s", "batch / median latency"),
    "latency_ms_p50": Column("Float64", "ms", "median over the rounds of the median pass"),
    "latency_ms_p99": Column("Float64", "ms", "99th percentile of the passes"),
    "latency_ms_sd": Column("Float64", "ms", "standard deviation of the passes"),
    "repetitions": Column("Int64", "", "timed forward passes"),
    "relative_to_reference": Column(
        "Float64", "", "speed / that of squeezenet1_1 at the same settings, median over rounds"
    ),
    "roofline_share": Column("Float64", "", "floor_ms / latency_ms_p50"),
    "bound": Column("string", "", "what most of the time went to: arithmetic, memory, overhead"),
    "threads": Column("Int64", "", "CPU threads that torch used"),
}
_MEASUREMENT = {
    "reason": Column("string", "", "why it was not measured"),
    "expand": Column("string", "", "how the inference form writes the expand branches, or module"),
    "latency_ms_p50_low": Column("Float64", "ms", "95% interval of latency_ms_p50, lower end"),
    "latency_ms_p50_high": Column("Float64", "ms", "95% interval of latency_ms_p50, upper end"),
    "precision": Column("Float64", "", "half the width of that interval / latency_ms_p50"),
    "rounds": Column("Int64", "", "blocks of passes, each beside one of the reference"),
    "warm": Column("boolean", "", "whether the warm-up was stable before its time was over"),
    "buffers": Column("Int64", "", "input buffers, used by turns"),
    "sustained_images_per_s": Column(
        "Float64", "images/s", "of passes without a pause, after the rounds"
    ),
    "relative_to_reference_low": Column("Float64", "", "its 95% interval, lower end"),
    "relative_to_reference_high": Column("Float64", "", "its 95% interval, upper end"),
    "reference_images_per_s": Column("Float64", "images/s", "of squeezenet1_1 in the same rounds"),
    "reference_drift": Column(
        "Float64", "", "range / median of the reference's latency since the process began"
    ),
    "macs": Column("Int64", "", "multiply-accumulates of the convolutions, one image"),
    "bytes": Column("Int64", "bytes", "least memory traffic of one pass, operation by operation"),
    "matrix_macs_per_s": Column("Float64", "MAC/s", "best of a matrix product and a convolution"),
    "copy_bytes_per_s": Column("Float64", "bytes/s", "the device's best copy, read and written"),
    "floor_ms": Column("Float64", "ms", "least time of one pass on the roofline"),
    "peak_memory_bytes": Column("Int64", "bytes", "most GPU memory held in a pass"),
    "clock_mhz_before": Column("Float64", "MHz", "GPU clock before the rounds"),
    "clock_mhz_after": Column("Float64", "MHz", "GPU clock after the rounds"),
    "temperature_c_before": Column("Float64", "C", "GPU temperature before the rounds"),
    "temperature_c_after": Column("Float64", "C", "GPU temperature after the rounds"),
    "power_w": Column("Float64", "W", "GPU board power while it runs without a pause"),
    "energy_mj_per_image": Column("Float64", "mJ", "GPU board energy of an image, the same"),
    "measured_at": Column("string", "", "when the measurement started, UTC"),
}
_PROVENANCE = {
    "sqzexplore_version": Column("string", "", "version of this package"),
    "git_commit": Column(
        "string", "", "commit of its checkout; without one what SQZEXPLORE_COMMIT says, or nothing"
    ),
    "torch_version": Column("string", "", "version of PyTorch"),
    "device_name": Column("string", "", "the processor's or GPU's own name"),
    "cpu_capability": Column(
        "string", "", "vector instructions of the processor that torch uses: AVX2, AVX512, ..."
    ),
    "started_at": Column("string", "", "when the trial started, UTC"),
    "duration_s": Column("Float64", "s", "how long it took"),
}

_DEFAULTS = Architecture().model_dump()
_DEFAULTS["pool_after"] = format_value(_DEFAULTS["pool_after"])

#: Every column of `trials`, in order.
TRIALS: dict[str, Column] = {
    **_TRIAL,
    **{
        name: Column(_FIELD_TYPES[kind], "", Architecture.model_fields[name].description or "")
        for name, kind in FIELDS.items()
    },
    "overrides": Column(
        "string", "", "what single Fires have instead: fire5.squeeze_ratio=0.5,fire7.bypass=none"
    ),
    "input_size": Column("Int64", "pixels", "side of the deployment input: cost and throughput"),
    **_COST,
    "top1": Column(
        "Float64", "%", "mean over the seeds of the test top-1; empty if one diverged or died"
    ),
    "top1_sd": Column("Float64", "%", "sample standard deviation over the seeds"),
    "top1_ci_low": Column("Float64", "%", "95% t-interval of the mean over seeds, lower end"),
    "top1_ci_high": Column("Float64", "%", "95% t-interval of the mean over seeds, upper end"),
    "top5": Column("Float64", "%", "mean over the seeds of the test top-5; empty below 6 classes"),
    "val_top1": Column("Float64", "%", "mean over the seeds of the validation top-1"),
    "seeds": Column("Int64", "", "trainings of this architecture"),
    "diverged_seeds": Column("Int64", "", "those whose loss was not finite"),
    "dead_seeds": Column("Int64", "", "those whose accuracy cannot be told from chance"),
    "epochs": Column("Int64", "", "passes over the training split, of the largest budget"),
    "still_learning": Column(
        "boolean",
        "",
        "whether validation top-1 still gained over a point (95% lower bound over the seeds) from "
        "the last budget but one, or over the last third of the training; empty with one seed",
    ),
    "train_threads": Column("Int64", "", "CPU threads of each training"),
    "data": Column("string", "", "data set that accuracy was measured on"),
    "data_sha256": Column("string", "", "checksum of its images, labels and splits"),
    "recipe": Column("string", "", "named recipe of the training"),
    "precision": Column("string", "", "number format of the convolutions in training"),
    "train_input_size": Column("Int64", "pixels", "side of the training images"),
    **{
        f"train_{name}": Column(
            column.type, column.unit, f"of the trained network (proxy, data's classes): {name}"
        )
        for name, column in _COST.items()
    },
    **_SPEED,
    "feasible": Column(
        "boolean", "", "whether it meets the constraints on measured columns; empty without such"
    ),
    **_PROVENANCE,
    "attempts": Column("Int64", "", "evaluations begun: above 1 where a process died of one"),
    "reused_from": Column(
        "string", "", "sweep and trial, of the same storage, that measured it: sr/3"
    ),
    "error": Column("string", "", "why the trial failed"),
}
_TRAINING = {
    "seed": Column("Int64", "", "seed of the training"),
    "epochs": Column("Int64", "", "its budget: passes over the training split"),
}
SEEDS: dict[str, Column] = {
    **_TRIAL,
    **_TRAINING,
    "diverged": Column("boolean", "", "whether its loss was not finite"),
    "dead": Column("boolean", "", "whether its accuracy cannot be told from chance"),
    **_RUN,
    "duration_s": Column("Float64", "s", "how long it took"),
}
HISTORY: dict[str, Column] = {
    **_TRIAL,
    **_TRAINING,
    "epoch": Column("Int64", "", "pass over the training split, from 1"),
    "train_loss": Column("Float64", "nats", "mean cross-entropy over the pass"),
    "val_top1": _RUN["val_top1"],
}
IMAGES: dict[str, Column] = {
    **_TRIAL,
    **_TRAINING,
    "split": Column("string", "", "test or validation"),
    "right": Column(
        "string", "", "which of its images were classified rightly: bits, the first highest, base64"
    ),
}
THROUGHPUT: dict[str, Column] = {
    **_TRIAL,
    "input_size": Column("Int64", "pixels", "side of the images"),
    **_SPEED,
    **_MEASUREMENT,
    "device_name": _PROVENANCE["device_name"],
    "torch_version": _PROVENANCE["torch_version"],
    "git_commit": _PROVENANCE["git_commit"],
}
TABLES: dict[str, dict[str, Column]] = {
    "trials": TRIALS,
    "seeds": SEEDS,
    "history": HISTORY,
    "images": IMAGES,
    "throughput": THROUGHPUT,
}


def to_frame(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Column]) -> pd.DataFrame:
    """Rows as a typed table with exactly `columns`; what a row lacks is missing."""
    frame = pd.DataFrame(list(rows), columns=list(columns))
    unknown = {key for row in rows for key in row} - set(columns)
    if unknown:
        raise KeyError(f"undocumented columns: {sorted(unknown)}")
    return frame.astype({name: column.type for name, column in columns.items()})


def write_tables(folder: Path, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write each table as CSV and Parquet; a reader never sees half a file."""
    for name, rows in tables.items():
        if not rows and name != "trials":
            continue
        frame = to_frame(rows, TABLES[name])
        write_atomically(folder / f"{name}.csv", frame.to_csv(index=False).encode())
        write_atomically(folder / f"{name}.parquet", frame.to_parquet(index=False))


def load_results(path: str | Path, table: str = "trials") -> pd.DataFrame:
    """A table of one sweep, or of all sweeps that a pattern such as `results/*` matches.

    Args:
        path: a result folder, or a pattern; folders without the table are passed over.
        table: trials, seeds, history, images or throughput.

    Returns:
        The rows of all sweeps, typed as `TABLES` says; column `sweep` tells them apart. What any
        row overrides for a single Fire has a column too, such as `fire5.squeeze_ratio`.

    Raises:
        UserError: no folder with such a table.

    Example:
        >>> load_results("results/*").groupby("sweep")["top1"].max()  # doctest: +SKIP
    """
    if table not in TABLES:
        raise UserError(f"no table {table!r}; the tables are {', '.join(TABLES)}")
    folders = [Path(path)]
    if not folders[0].is_dir():  # a folder's name may hold the characters of a pattern
        folders = [Path(match) for match in sorted(glob.glob(str(path)))]
    files = [folder / f"{table}.parquet" for folder in folders]
    frames = [_read(file, table) for file in files if file.is_file()]
    if not frames:
        raise UserError(f"{path}: found no {table}.parquet, expected the folder of a sweep")
    return with_overrides(pd.concat(frames, ignore_index=True))


def _read(file: Path, table: str) -> pd.DataFrame:
    types = {name: column.type for name, column in TABLES[table].items()}
    try:
        # From one opening of the file: between two, a running sweep can put another in its place.
        frame = pd.read_parquet(io.BytesIO(file.read_bytes()))
        missing = [name for name in _TRIAL if name not in frame and name != "net_id"]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        # What an older version did not measure is missing; a metaparameter that it did not have
        # was at what is now its default.
        absent = {name: _DEFAULTS[name] for name in types if name in FIELDS and name not in frame}
        frame = frame.assign(**absent).reindex(columns=[*types]).astype(types)
        unnamed = frame["net_id"].isna()
        if unnamed.any():
            frame.loc[unnamed, "net_id"] = _net_ids(frame[unnamed], file, table)
        return frame
    except (OSError, ValueError, TypeError) as error:  # pyarrow's errors are ValueErrors
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file}: cannot be read as the table {table} ({reason}); the same sweep run again "
            "writes it anew from its study"
        ) from None


def right_images(row: pd.Series, count: int) -> np.ndarray:
    """One row of the table `images` as N bool: whether each image was classified rightly.

    Args:
        row: of the table.
        count: images of the split.
    """
    packed = np.frombuffer(base64.b64decode(row["right"]), np.uint8)
    return np.unpackbits(packed, count=count).astype(bool)


def _net_ids(rows: pd.DataFrame, file: Path, table: str) -> Any:
    """`net_id` of rows that an older version wrote without: by their fields, or, where a table has
    none, by the table of trials beside it, if there is one."""
    if table == "trials":
        rows = rows.dropna(subset=[*FIELDS])
        columns = columns_of_frame(rows)
        ids = [architecture_at(columns, row).net_id for row in range(len(rows))]
        return pd.Series(ids, index=rows.index, dtype="string")
    beside = file.with_name("trials.parquet")
    if not beside.is_file():
        return pd.NA
    trials = _read(beside, "trials")
    return rows["arch_id"].map(dict(zip(trials["arch_id"], trials["net_id"], strict=True)))


def meeting_constraints(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows that break no constraint on what was measured."""
    if "feasible" not in trials:
        return trials
    return trials[trials["feasible"].fillna(True).astype(bool)]


def data_name(trials: pd.DataFrame, otherwise: str) -> str:
    """The data set's own name; the spec, which is `otherwise`, may say where it lies instead."""
    names = list(trials["data"].dropna().unique()) if "data" in trials else []
    return str(names[0]) if names else otherwise
