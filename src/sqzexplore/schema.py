"""What every measured column means. A fact of a column stands here and nowhere else.

What may be searched for, constrained, drawn and chosen follows from it: a new measurement is one
entry here, beside the section of the spec and the module that measure it. `results.tables` puts the
columns together with those of the architecture's fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Type = Literal["string", "Int64", "Float64", "boolean"]
#: `cost`, or the section of a spec's `measure` that fills a column.
Section = str


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Args:
        type: of pandas.
        unit: as axes and headings show it.
        meaning: in a line.
        label: the column's name on axes; its own name where it has none.
        better: the end of the axis that one wants, where there is one.
        measured_by: the section of `measure` that fills it (`cost` needs none); such columns may be
            constrained and drawn.
        is_objective: whether a search may aim at it.
        is_setting: whether it is one of the settings that a throughput is measured at.
        derived: whether it is another column times a constant.
    """

    type: Type
    unit: str
    meaning: str
    label: str = ""
    better: Literal["lower", "higher"] | None = None
    measured_by: Section | None = None
    is_objective: bool = False
    is_setting: bool = False
    derived: bool = False


def _cost(type_: Type, unit: str, label: str, meaning: str, derived: bool = False) -> Column:
    return Column(type_, unit, meaning, label, "lower", "cost", is_objective=True, derived=derived)


#: In closed form, of one image. The order is that of `network.cost`'s columns.
COST: dict[str, Column] = {
    "params": _cost("Int64", "", "parameters", "weights, biases and BatchNorm's scales and shifts"),
    "live_params": _cost(
        "Int64",
        "",
        "living parameters",
        "params without the weights whose tap meets padding alone, at the input's size",
    ),
    "macs": _cost("Int64", "", "MACs", "multiply-accumulates of the convolutions, one image"),
    "flops": _cost("Int64", "", "FLOPs", "2 x MACs", derived=True),
    "size_mb": _cost("Float64", "MB", "size", "4 bytes a parameter, 1e6 bytes a MB", derived=True),
    "activations": _cost(
        "Int64", "", "activations", "elements of all convolutions' outputs, one image"
    ),
    "peak_activation_bytes": _cost(
        "Int64",
        "bytes",
        "peak activation memory",
        "most float32 activations alive at once, one image",
    ),
    "int8_peak_bytes": _cost(
        "Int64",
        "bytes",
        "peak int8 activation memory",
        "most int8 activations alive at once where every operation writes a tensor of its own, "
        "one image",
    ),
    "int8_flash_bytes": _cost(
        "Int64",
        "bytes",
        "int8 weights, biases and scales",
        "an int8 a weight, an int32 bias and a float32 scale an output channel, BatchNorm folded",
    ),
}
#: Costs that do not depend on the size of the image.
SIZELESS = ("params", "size_mb", "int8_flash_bytes")
TRIAL: dict[str, Column] = {
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
RUN: dict[str, Column] = {
    "top1": Column(
        "Float64",
        "%",
        "top-1 accuracy on the test split after the last epoch",
        label="top-1 accuracy",
        better="higher",
        measured_by="accuracy",
        is_objective=True,
    ),
    "top5": Column(
        "Float64",
        "%",
        "share of the same whose class is among the five likeliest",
        label="top-5 accuracy",
        better="higher",
        measured_by="accuracy",
    ),
    "balanced_top1": Column(
        "Float64",
        "%",
        "mean over the classes of the top-1 accuracy on their test images",
        label="balanced top-1 accuracy",
        better="higher",
        measured_by="accuracy",
    ),
    "val_top1": Column(
        "Float64",
        "%",
        "top-1 accuracy on the validation split",
        label="validation top-1 accuracy",
        better="higher",
        measured_by="accuracy",
    ),
}
#: Of a network as it is decoded from its file (Deep Compression).
COMPRESSED: dict[str, Column] = {
    "compressed_mb": Column(
        "Float64",
        "MB",
        "size of the compressed file, codebooks, code tables and biases included; MB are 10**6 "
        "bytes",
        label="compressed size",
        better="lower",
        measured_by="compression",
    ),
    "compressed_top1": Column(
        "Float64",
        "%",
        "top-1 accuracy on the test split of the network that the file decodes to",
        label="top-1 accuracy, compressed",
        better="higher",
        measured_by="compression",
    ),
    "compressed_val_top1": Column(
        "Float64",
        "%",
        "the same on the validation split",
        label="validation top-1 accuracy, compressed",
        better="higher",
        measured_by="compression",
    ),
    "compressed_drop": Column(
        "Float64",
        "points",
        "top1 less compressed_top1, of the same trainings; negative where fine-tuning gained more "
        "than compression took",
        label="accuracy lost by compression",
        better="lower",
        measured_by="compression",
    ),
}
#: Of a network quantised and run by ONNX Runtime on the CPU.
QUANTISED: dict[str, Column] = {
    "int8_mb": Column(
        "Float64",
        "MB",
        "size of the ONNX file in 8-bit integers, graph included; MB are 10**6 bytes",
        label="int8 size",
        better="lower",
        measured_by="int8",
    ),
    "int8_top1": Column(
        "Float64",
        "%",
        "top-1 accuracy on the test split of the network in 8-bit integers",
        label="top-1 accuracy, int8",
        better="higher",
        measured_by="int8",
    ),
    "int8_val_top1": Column(
        "Float64",
        "%",
        "the same on the validation split",
        label="validation top-1 accuracy, int8",
        better="higher",
        measured_by="int8",
    ),
    "int8_drop": Column(
        "Float64",
        "points",
        "top1 less int8_top1, of the same trainings",
        label="accuracy lost to int8",
        better="lower",
        measured_by="int8",
    ),
}
SPEED: dict[str, Column] = {
    "device": Column("string", "", "where it ran: cpu or cuda:N", is_setting=True),
    "batch": Column("Int64", "images", "images in one forward pass", is_setting=True),
    "dtype": Column(
        "string",
        "",
        "type of weights and images; tf32: float32, multiplied as TF32",
        is_setting=True,
    ),
    "memory_format": Column(
        "string", "", "order of weights and images: channels_last, contiguous", is_setting=True
    ),
    "form": Column(
        "string", "", "module; inference: the fast form with the same outputs", is_setting=True
    ),
    "mode": Column(
        "string", "", "eager, cuda_graph, compile, or compile_graph: both", is_setting=True
    ),
    "runtime": Column("string", "", "what ran it: torch, onnxruntime or openvino", is_setting=True),
    "outcome": Column("string", "", "measured, out_of_memory, compile_failed or failed"),
    "images_per_s": Column(
        "Float64",
        "images/s",
        "batch / latency_ms_p50",
        label="throughput",
        better="higher",
        measured_by="throughput",
        is_objective=True,
    ),
    "latency_ms_p50": Column(
        "Float64",
        "ms",
        "geometric mean over the processes of the median over the rounds of the median pass",
        label="median latency",
        better="lower",
        measured_by="throughput",
        is_objective=True,
    ),
    "latency_ms_p99": Column(
        "Float64",
        "ms",
        "99th percentile of the passes, mean over the processes",
        label="99th percentile of latency",
        better="lower",
        measured_by="throughput",
        is_objective=True,
    ),
    "latency_ms_sd": Column(
        "Float64", "ms", "standard deviation of the passes, mean over the processes"
    ),
    "repetitions": Column("Int64", "", "timed forward passes"),
    "relative_to_reference": Column(
        "Float64",
        "",
        "speed / that of squeezenet1_1 at the same settings: median over rounds, geometric mean "
        "over processes",
        better="higher",
        measured_by="throughput",
        is_objective=True,
    ),
    "roofline_share": Column("Float64", "", "floor_ms / latency_ms_p50", better="higher"),
    "bound": Column("string", "", "what most of the time went to: arithmetic, memory, overhead"),
    "threads": Column("Int64", "", "CPU threads that torch used"),
    "caching_allocator": Column(
        "boolean",
        "",
        "whether memory that a pass frees stays for the next (a GPU's always, a CPU's by glibc)",
    ),
}
MEASUREMENT: dict[str, Column] = {
    "reason": Column("string", "", "why it was not measured"),
    "runtime_version": Column("string", "", "of another runtime than torch"),
    "largest_difference": Column(
        "Float64",
        "",
        "of another runtime's outputs to PyTorch's (of int8 to the values that its integers stand "
        "for), as a share of the largest, before anything was timed",
    ),
    "expand": Column("string", "", "how the inference form writes the expand branches, or module"),
    "processes": Column("Int64", "", "processes that measured it by turns, each in rounds"),
    "process_latency_ms": Column("string", "ms", "the median latency that each process found"),
    "latency_ms_p50_low": Column(
        "Float64",
        "ms",
        "95% interval of latency_ms_p50, lower end: over the processes (Student's t of the "
        "logarithms), or over the rounds of one",
    ),
    "latency_ms_p50_high": Column("Float64", "ms", "95% interval of latency_ms_p50, upper end"),
    "precision": Column("Float64", "", "half the width of that interval / latency_ms_p50"),
    "precise": Column("boolean", "", "whether precision is at most 1%, which is aimed at"),
    "rounds": Column("Int64", "", "blocks of passes, each beside one of the reference"),
    "warm": Column("boolean", "", "whether the warm-up was stable before its time was over"),
    "buffers": Column("Int64", "", "input buffers, used by turns"),
    "sustained_images_per_s": Column(
        "Float64", "images/s", "of passes without a pause, after the rounds"
    ),
    "sustained_images_per_s_low": Column(
        "Float64", "images/s", "its 95% interval over the processes, lower end"
    ),
    "sustained_images_per_s_high": Column("Float64", "images/s", "the same, upper end"),
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
    "clock_mhz_before": Column("Float64", "MHz", "clock before the rounds (GPU, probe)"),
    "clock_mhz_after": Column("Float64", "MHz", "clock after the rounds (GPU, probe)"),
    "temperature_c_before": Column("Float64", "C", "temperature before the rounds (GPU, probe)"),
    "temperature_c_after": Column("Float64", "C", "temperature after the rounds (GPU, probe)"),
    "power_w": Column("Float64", "W", "GPU board power while it runs without a pause"),
    "energy_mj_per_image": Column("Float64", "mJ", "GPU board energy of an image, the same"),
    "measured_at": Column("string", "", "when the measurement started, UTC"),
}
PROVENANCE: dict[str, Column] = {
    "sqzexplore_version": Column("string", "", "version of this package"),
    "git_commit": Column(
        "string", "", "commit of its checkout; without one what SQZEXPLORE_COMMIT says, or nothing"
    ),
    "torch_version": Column("string", "", "version of PyTorch"),
    "device_name": Column(
        "string",
        "",
        "the processor's or GPU's own name; A + B: both had a part in it, A first",
    ),
    "cpu_capability": Column(
        "string", "", "vector instructions of the processor that torch uses: AVX2, AVX512, ..."
    ),
    "started_at": Column("string", "", "when the trial started, UTC"),
    "duration_s": Column("Float64", "s", "how long it took"),
}

#: One number a trial of other measurements (docs/extending.md adds one).
OTHER: dict[str, Column] = {}

#: Everything that is measured, in the order of the tables.
MEASURED_COLUMNS: dict[str, Column] = {**COST, **RUN, **COMPRESSED, **QUANTISED, **SPEED, **OTHER}


def measured() -> dict[str, Section]:
    """The columns that are known only when an architecture was measured, and the section of
    `measure` that fills each."""
    filled = {name: column.measured_by for name, column in MEASURED_COLUMNS.items()}
    return {name: section for name, section in filled.items() if section and section != "cost"}


def objectives() -> dict[str, Section]:
    """The columns that a search may aim at, and the section that fills each."""
    aims = {n: c.measured_by for n, c in MEASURED_COLUMNS.items() if c.is_objective}
    return {name: section for name, section in aims.items() if section is not None}


def goal(name: str) -> Literal["minimize", "maximize"] | None:
    """The direction in which a column is better, where it has one."""
    column = MEASURED_COLUMNS.get(name.removeprefix("train_"))
    if column is None or column.better is None:
        return None
    return "maximize" if column.better == "higher" else "minimize"


def is_derived(name: str) -> bool:
    """Whether a column is another one times a constant."""
    column = MEASURED_COLUMNS.get(name.removeprefix("train_"))
    return column is not None and column.derived


#: Whether a prediction is outside the range of what was measured.
EXTRAPOLATED = "extrapolated"
#: Columns of a prediction that are true or false.
FLAGS = (EXTRAPOLATED,)


def predicted_names(target: str) -> tuple[str, ...]:
    """The columns that a prediction of a measured column has."""
    ends = (target, f"{target}_low", f"{target}_high")
    dying = ("dead_probability",) if measured()[target] == "accuracy" else ()
    return (*ends, *dying, *FLAGS)


#: Every column that a prediction of anything may have.
PREDICTED: tuple[str, ...] = tuple(
    dict.fromkeys(name for target in measured() for name in predicted_names(target))
)
