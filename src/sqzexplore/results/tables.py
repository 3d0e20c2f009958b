"""The tables of a sweep: what their columns mean, writing and loading them.

A result folder holds `trials` (one row an architecture), and in long form `seeds` (one row a
training), `history` (one row an epoch of a training), `images` (one row a training and split),
`compression` (one row a training and setting), `int8` (one row a training and scheme) and
`throughput` (one row a measurement), each as CSV for eyes and diffs and as Parquet for types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from ..network.architecture import FIELDS, Architecture
from ..network.cost import cost
from ..network.frames import format_value
from ..network.overrides import format_overrides
from ..schema import (
    COMPRESSED,
    COST,
    MEASUREMENT,
    OTHER,
    PROVENANCE,
    QUANTISED,
    RUN,
    SPEED,
    TRIAL,
    Column,
    Type,
)

_FIELD_TYPES: dict[type, Type] = {
    int: "Int64",
    float: "Float64",
    bool: "boolean",
    str: "string",
    tuple: "string",
}
#: The columns that every table begins with.
IDENTITY = tuple(TRIAL)

DEFAULTS = Architecture().model_dump()
DEFAULTS["pool_after"] = format_value(DEFAULTS["pool_after"])


def _drop_interval(name: str) -> dict[str, Column]:
    return {
        f"{name}_ci_low": Column(
            "Float64", "points", f"95% interval of {name} over seeds and test images, both paired"
        ),
        f"{name}_ci_high": Column("Float64", "points", "its upper end"),
    }


#: Every column of `trials`, in order.
TRIALS: dict[str, Column] = {
    **TRIAL,
    **{
        name: Column(_FIELD_TYPES[kind], "", Architecture.model_fields[name].description or "")
        for name, kind in FIELDS.items()
    },
    "overrides": Column(
        "string", "", "what single Fires have instead: fire5.squeeze_ratio=0.5,fire7.bypass=none"
    ),
    "input_size": Column("Int64", "pixels", "side of the deployment input: cost and throughput"),
    **COST,
    "top1": replace(
        RUN["top1"], meaning="mean over the seeds of the test top-1; empty if one diverged or died"
    ),
    "top1_sd": Column("Float64", "%", "sample standard deviation over the seeds"),
    "top1_ci_low": Column("Float64", "%", "95% interval over seeds and test images, lower end"),
    "top1_ci_high": Column("Float64", "%", "95% interval over seeds and test images, upper end"),
    "top5": replace(
        RUN["top5"], meaning="mean over the seeds of the test top-5; empty below 6 classes"
    ),
    "balanced_top1": replace(
        RUN["balanced_top1"], meaning="mean over the seeds of the balanced test top-1"
    ),
    "val_top1": replace(RUN["val_top1"], meaning="mean over the seeds of the validation top-1"),
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
    "proxy": Column(
        "string",
        "",
        "architecture fields replaced in the trained network: width_multiplier=0.125 stem_kernel=3",
    ),
    "train_input_size": Column("Int64", "pixels", "side of the training images"),
    **{
        f"train_{name}": Column(
            column.type,
            column.unit,
            f"of the trained network (proxy, data's classes): {name}",
            column.label,
            column.better,
        )
        for name, column in COST.items()
    },
    **{
        name: replace(column, meaning=f"mean over the seeds, at the last setting: {column.meaning}")
        for name, column in COMPRESSED.items()
    },
    **_drop_interval("compressed_drop"),
    **{
        name: replace(column, meaning=f"mean over the seeds, by the first scheme: {column.meaning}")
        for name, column in QUANTISED.items()
    },
    **_drop_interval("int8_drop"),
    **SPEED,
    "throughput_device_name": Column(
        "string", "", "the device_name of what throughput was measured on"
    ),
    **OTHER,
    "feasible": Column(
        "boolean", "", "whether it meets the constraints on measured columns; empty without such"
    ),
    **PROVENANCE,
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
    **TRIAL,
    **_TRAINING,
    "diverged": Column("boolean", "", "whether its loss was not finite"),
    "dead": Column("boolean", "", "whether its accuracy cannot be told from chance"),
    **RUN,
    "duration_s": Column("Float64", "s", "how long it took"),
}
HISTORY: dict[str, Column] = {
    **TRIAL,
    **_TRAINING,
    "epoch": Column("Int64", "", "pass over the training split, from 1"),
    "train_loss": Column("Float64", "nats", "mean cross-entropy over the pass"),
    "val_top1": RUN["val_top1"],
}
IMAGES: dict[str, Column] = {
    **TRIAL,
    **_TRAINING,
    "split": Column("string", "", "test or validation"),
    "right": Column(
        "string", "", "which of its images were classified rightly: bits, the first highest, base64"
    ),
}
COMPRESSION: dict[str, Column] = {
    **TRIAL,
    **_TRAINING,
    "density": Column("Float64", "", "share of each layer's weights that survives"),
    "bits": Column("Int64", "bits", "of an index into a layer's codebook"),
    "finetune_epochs": Column(
        "Int64",
        "",
        "passes over the training split after pruning (where anything is pruned), and as many "
        "after sharing",
    ),
    **COMPRESSED,
    "float32_mb": Column("Float64", "MB", "all parameters of the trained network in float32"),
    "float32_ratio": Column("Float64", "", "float32_mb / compressed_mb"),
    "alexnet_ratio": Column("Float64", "", "AlexNet's parameters in float32 / compressed_mb"),
    "lost": Column(
        "Int64", "images", "of the test split, right before compression and wrong after"
    ),
    "gained": Column("Int64", "images", "of the test split, wrong before and right after"),
    "right": IMAGES["right"],
    "duration_s": Column("Float64", "s", "how long pruning, fine-tuning and coding took"),
}
INT8: dict[str, Column] = {
    **TRIAL,
    **_TRAINING,
    "scheme": Column("string", "", "a weight scale a filter: per_channel, or a layer: per_tensor"),
    "calibration_images": Column("Int64", "images", "that decided the ranges of activations"),
    "reduce_range": Column(
        "boolean",
        "",
        "whether weights have 7 bits, since this processor's kernels overflow with 8",
    ),
    **QUANTISED,
    "agreement": Column(
        "Float64", "%", "test images that it gives the same class as the float32 network"
    ),
    "lost": COMPRESSION["lost"],
    "gained": COMPRESSION["gained"],
    "right": IMAGES["right"],
    "onnxruntime_version": Column("string", "", "version of ONNX Runtime"),
    "duration_s": Column("Float64", "s", "how long quantising and evaluating took"),
}
CONFUSION: dict[str, Column] = {
    **TRIAL,
    **_TRAINING,
    "label": Column("string", "", "class of the images"),
    "predicted": Column("string", "", "class that the network took them for"),
    "images": Column("Int64", "images", "how many test images; pairs without any have no row"),
}
THROUGHPUT: dict[str, Column] = {
    **TRIAL,
    "input_size": Column("Int64", "pixels", "side of the images"),
    **SPEED,
    **MEASUREMENT,
    "device_name": PROVENANCE["device_name"],
    "torch_version": PROVENANCE["torch_version"],
    "git_commit": PROVENANCE["git_commit"],
}
CLAIMS: dict[str, Column] = {
    "sweep": TRIAL["sweep"],
    "claim": Column("string", "", "what is claimed"),
    "source": Column("string", "", "who claims it: a section of the paper; empty: the spec alone"),
    "declared": Column(
        "string",
        "",
        "before: written into the spec before the first trial; after: not, so that "
        "it may have been formed on the data",
    ),
    "data": TRIALS["data"],
    "data_sha256": TRIALS["data_sha256"],
    "epochs": TRIALS["epochs"],
    "first": Column("string", "", "what the first architectures have"),
    "second": Column("string", "", "what the second have instead"),
    "pairs": Column("Int64", "", "pairs of architectures that differ in nothing else"),
    "first_top1": Column("Float64", "%", "mean test top-1 of the first"),
    "second_top1": Column("Float64", "%", "mean test top-1 of the second"),
    "difference": Column("Float64", "points", "second less first, mean over the pairs"),
    "ci_low": Column("Float64", "points", "95% interval of the difference, lower end"),
    "ci_high": Column("Float64", "points", "95% interval of the difference, upper end"),
    "expect": Column("string", "", "higher, lower, or same: of the second"),
    "margin": Column("Float64", "points", "by how much more than this, or within how much"),
    "method": Column("string", "", "what varies in the interval, and whether seeds are paired"),
    "p_value": Column("Float64", "", "of the decided side, one claim alone"),
    "p_holm": Column("Float64", "", "the same after Holm's correction over the sweep's claims"),
    "verdict": Column("string", "", "holds, fails or undecided, at 5% after the correction"),
    "detectable": Column(
        "Float64",
        "points",
        "beyond the margin, seen with probability 80% by this design, one claim alone",
    ),
}
_PREDICTION = {
    "target": Column("string", "", "column that is predicted"),
    "level": Column("Float64", "", "share of the networks that the intervals are to hold"),
}
#: In the unit of the target.
AUDIT: dict[str, Column] = {
    **TRIAL,
    **_PREDICTION,
    "model": Column("string", "", "chosen by the networks that it was fitted to"),
    "sampler": Column("string", "", "who chose the networks, where that is known"),
    "fold": Column("Int64", "", "networks of one fold were held out together"),
    "measured": Column("Float64", "target's", "of the held-out network; empty if it is dead"),
    "one_training": Column(
        "Float64", "target's", "the same of one of its trainings, which the interval is to hold"
    ),
    "predicted": Column("Float64", "target's", "without this network"),
    "low": Column("Float64", "target's", "lower end of its interval"),
    "high": Column("Float64", "target's", "upper end of its interval"),
    "dead_share": Column("Float64", "", "of its trainings, those that did not learn"),
    "dead_probability": Column("Float64", "", "predicted, without this network"),
    "extrapolated": Column(
        "boolean", "", "whether a feature is outside the range of the networks fitted to"
    ),
    "by_middle": Column("Float64", "target's", "the others' median"),
    "by_params": Column("Float64", "target's", "a parabola over log params, fitted to the others"),
    "by_macs": Column("Float64", "target's", "a parabola over log MACs, fitted to the others"),
    "by_neighbour": Column(
        "Float64", "target's", "of the nearest of the others, over all features"
    ),
    "by_roofline": Column(
        "Float64", "target's", "a parabola over the log of the least time; empty for accuracies"
    ),
    "log_macs": Column("Float64", "", "of the measured network, base 2"),
    "mean_log_side": Column("Float64", "", "of its Fires' maps, pixels, base 2"),
}
AUDIT_CURVE: dict[str, Column] = {
    **_PREDICTION,
    "networks": Column("Int64", "", "fitted to; all others are held out"),
    "repetition": Column("Int64", "", "draw of these networks, from 0"),
    "held_out": Column("Int64", "", "networks that have the target"),
    "coverage": Column("Float64", "", "share of them whose interval holds one training"),
    "width": Column("Float64", "target's", "mean of their intervals"),
    "error": Column("Float64", "target's", "mean of the absolute errors"),
    "kendall": Column("Float64", "", "Kendall's tau-b of predicted and measured"),
}
TABLES: dict[str, dict[str, Column]] = {
    "trials": TRIALS,
    "seeds": SEEDS,
    "history": HISTORY,
    "images": IMAGES,
    "confusion": CONFUSION,
    "compression": COMPRESSION,
    "int8": INT8,
    "throughput": THROUGHPUT,
    "claims": CLAIMS,
    "audit": AUDIT,
    "audit_curve": AUDIT_CURVE,
}


def architecture_row(architecture: Architecture, input_size: int) -> dict[str, Any]:
    """The columns of an architecture itself: its names, fields, and costs at a side in pixels."""
    return {
        "arch_id": architecture.arch_id,
        "net_id": architecture.net_id,
        **architecture.model_dump(),
        "pool_after": format_value(architecture.pool_after),
        "overrides": format_overrides(architecture.overrides),
        "input_size": input_size,
        **cost(architecture, input_size).totals(),
    }


def to_frame(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Column]) -> pd.DataFrame:
    """Rows as a typed table with exactly `columns`; what a row lacks is missing."""
    rows = list(rows)
    unknown = {key for row in rows for key in row} - set(columns)
    if unknown:
        raise KeyError(f"undocumented columns: {sorted(unknown)}")
    return pd.DataFrame(
        {
            name: pd.array([row.get(name) for row in rows], dtype=column.type)
            for name, column in columns.items()
        }
    )


def meeting_constraints(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows that break no constraint on what was measured."""
    if "feasible" not in trials:
        return trials
    return trials[trials["feasible"].fillna(True).astype(bool)]


def data_name(trials: pd.DataFrame, otherwise: str) -> str:
    """The data set's own name; the spec, which is `otherwise`, may say where it lies instead."""
    return str(shared_value(trials, "data", otherwise))


def shared_value(frame: pd.DataFrame, name: str, otherwise: Any = None) -> Any:
    """The value of a column that all rows share which have one; `otherwise` where none has."""
    if name not in frame:
        return otherwise
    known = frame[name].dropna()
    return known.iloc[0] if len(known) else otherwise
