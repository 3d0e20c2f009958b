"""The cost of architectures in closed form: params, MACs, FLOPs, activations, memory, int8.

One walk over the stages of a network, written as column arithmetic, serves one architecture and a
million rows alike. The convention, the same everywhere:

- **params** - weights and biases of the convolutions; scale and shift of BatchNorm.
- **live_params** - the parameters without the weights whose tap meets padding alone, wherever the
  kernel stands: their gradient is zero for every image. Such are 8 of 9 taps of a 3x3 filter of a
  Fire on a map of 1x1 pixels, and the rim of a stem whose padding is large for the image. Biases,
  BatchNorm and 1x1 convolutions of the Fires always live.
- **macs** - multiply-accumulates of the convolutions; every other operation counts nothing.
- **flops** - 2 per MAC, which is what `torch.utils.flop_counter.FlopCounterMode` counts.
- **size_mb** - 4 bytes (float32) a parameter, 1e6 bytes a MB.
- **activations** - elements of the output tensors of all convolutions (Radosavovic et al.,
  arXiv:2003.13678, section 3), for one image.
- **peak_activation_bytes** - the largest sum, over the operations of an inference at batch 1, of
  the float32 tensors alive during it: inputs, output, and whatever a later operation still reads.
  Operations run in the order squeeze, expand 1x1, expand 3x3, concatenation, bypass convolution,
  addition; convolutions, pools and the concatenation write a new tensor; bias, BatchNorm, ReLU
  and the bypass addition work in place. Weights are not counted.
- **int8_peak_bytes** - the same, at 1 byte an element, of the tensors that an interpreter of int8
  networks plans memory for (TFLite Micro: David et al., arXiv:2010.08678): BatchNorm and ReLU are
  part of a convolution, everything else writes a new tensor, the bypass addition too. It is what
  a perfect plan needs: gaps, alignment, scratch buffers and the interpreter come on top.
- **int8_flash_bytes** - what such a network stores: an int8 a weight and, for each output channel
  of a convolution, an int32 bias (BatchNorm folded into both) and a float32 scale. What follows
  from these (zero points, the biases' scales), the activations' scales, the graph and the program
  are not counted.

Columns are float64 inside: integers below 2**53 are exact there, and vectorise better than
int64 does. A total beyond that raises `CostOverflow`; nothing wraps around.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from ..errors import CostOverflow, UserError, field_problem, shown
from .architecture import Architecture
from .columns import (
    Columns,
    architecture_at,
    bypassed,
    columns_of,
    fire_filters,
    of_fire,
    take_rows,
)
from .frames import columns_of_frame
from .overrides import OVERRIDES
from .rules import pooled_size, scaled_width, stem_output_size

#: The totals that every cost has, in table order.
COST_COLUMNS = (
    *("params", "live_params", "macs", "flops", "size_mb"),
    *("activations", "peak_activation_bytes"),
    *("int8_peak_bytes", "int8_flash_bytes"),
)

#: Rows that one table may have.
MAX_ROWS = 50_000_000

_BLOCK = 8192  # rows at a time: the working set of one block stays in the processor's cache
_EXACT = 2.0**53
#: Of an output channel of an int8 convolution beside its weights: int32 bias and float32 scale.
_CHANNEL_BYTES = 8.0
#: Side of the larger expand filters, pixels.
FILTER_SIDE = 3


@dataclass(frozen=True)
class LayerCost:
    """One row of `describe`: a stage of the network and what it costs for one image."""

    name: str
    output_shape: tuple[int, int, int]
    filters: str
    params: int
    macs: int
    activations: int


@dataclass(frozen=True)
class Cost:
    """Cost of one architecture for one image of `input_size` x `input_size` pixels."""

    input_size: int
    params: int
    live_params: int
    macs: int
    flops: int
    size_mb: float
    activations: int
    peak_activation_bytes: int
    int8_peak_bytes: int
    int8_flash_bytes: int
    layers: tuple[LayerCost, ...]

    def totals(self) -> dict[str, int | float]:
        """The cost columns of the table, by name."""
        return {name: getattr(self, name) for name in COST_COLUMNS}


def cost(architecture: Architecture, input_size: int = 224) -> Cost:
    """The exact cost of `architecture` for one image of `input_size` pixels a side.

    Raises:
        FeatureMapVanishes: the input is too small for the stem or a pool.
        CostOverflow: a count reaches 2**53.

    Example:
        >>> cost(Architecture()).macs
        818924576
    """
    _check_input_size(input_size)
    architecture.check_input_size(input_size)
    columns = {name: values[0] for name, values in columns_of([architecture]).items()}
    stages = list(walk(columns, float(input_size)))
    totals, _ = _totals(stages)
    _check_exact(totals, columns, True)
    size_mb = float(totals.pop("size_mb"))
    return Cost(
        input_size=input_size,
        size_mb=size_mb,
        layers=tuple(_layer_cost(stage) for stage in stages if stage.present),
        **{name: int(value) for name, value in totals.items()},
    )


@runtime_checkable
class HasColumns(Protocol):
    """Many architectures that know themselves as columns: a Space."""

    @property
    def size(self) -> int:
        """How many."""
        ...

    def columns(self) -> Columns:
        """The architectures as columns."""
        ...


def cost_table(
    architectures: pd.DataFrame | HasColumns | Architecture | Iterable[Architecture],
    input_size: int = 224,
    per_stage: bool = False,
) -> pd.DataFrame:
    """The exact cost of many architectures, each for one image of `input_size` pixels a side.

    Args:
        architectures: a Space, Architectures, or a table with a column for each field that is
            not at its default (`pool_after` as text like "1,4,8", tuples or lists).
        input_size: side of the square input, pixels.
        per_stage: add `STAGE.params`, `STAGE.macs` and `STAGE.activations` for every stage
            (conv1, fire2, ..., classifier).

    Returns:
        `COST_COLUMNS` and the stages' columns, int64 (`size_mb` float64), one row an architecture,
        with the index of the table where one was given.

    Raises:
        UserError: a value that no Architecture takes, an input too small for one of them, or a
            space of more than 50 million.
        CostOverflow: a count reaches 2**53.
    """
    _check_input_size(input_size)
    index: pd.Index
    if isinstance(architectures, pd.DataFrame):
        columns, index = columns_of_frame(architectures), architectures.index
    elif isinstance(architectures, HasColumns):
        if architectures.size > MAX_ROWS:
            raise UserError(
                f"cost_table: found a space of {architectures.size} architectures, expected at "
                f"most {MAX_ROWS}; a census goes through it in blocks"
            )
        columns, index = dict(architectures.columns()), pd.RangeIndex(architectures.size)
    else:
        rows = [architectures] if isinstance(architectures, Architecture) else [*architectures]
        columns, index = columns_of(rows), pd.RangeIndex(len(rows))
    table, feasible = cost_columns(columns, len(index), input_size, per_stage)
    if not feasible.all():
        row = int(np.argmin(feasible))
        where = shown(index[row])
        try:
            architecture_at(columns, row).check_input_size(input_size)
        except ValidationError as error:
            raise UserError(f"row {where}: {field_problem(error.errors()[0])}") from None
        except UserError as error:
            raise error.at(f"row {where}") from None
    return pd.DataFrame(table, index=index, copy=False)


def cost_columns(
    columns: Columns, rows: int, input_size: int, per_stage: bool = False
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """The cost columns of `rows` architectures, and which of them are feasible.

    Infeasible is an architecture whose feature map vanishes at `input_size`, or that pools after
    a layer, or overrides a Fire, that it does not have; its costs mean nothing.

    Raises:
        CostOverflow: a count reaches 2**53.
    """
    table: dict[str, NDArray[Any]] = {}
    feasible = np.ones(rows, dtype=bool)
    for start in range(0, max(rows, 1), _BLOCK):
        part = slice(start, start + _BLOCK)
        block = take_rows(columns, part)
        met = walk(block, float(input_size))
        stages = [*met] if per_stage else []
        totals, last = _totals(stages or met)
        feasible[part] = is_feasible(block, last)
        _check_exact(totals, block, feasible[part])
        if per_stage:
            totals |= _by_stage(stages)
        for name, values in totals.items():
            if name not in table:
                table[name] = np.zeros(rows, np.float64 if name == "size_mb" else np.int64)
            table[name][part] = values
    return table, feasible


def sees_small_maps(columns: Columns, rows: int, input_size: int) -> NDArray[np.bool_]:
    """Which of `rows` feasible architectures have a Fire whose 3x3 filters see a map below 3x3."""
    found = np.zeros(rows, dtype=bool)
    size = stem_output_size(
        *(float(input_size), columns["stem_kernel"]),
        *(columns["stem_stride"], columns["stem_padding"]),
    )
    smallest = np.floor(size / 2.0 ** np.bitwise_count(columns["pool_after"]))
    some = np.flatnonzero(np.broadcast_to(smallest < FILTER_SIDE, rows))
    for start in range(0, len(some), _BLOCK):
        part = some[start : start + _BLOCK]
        block = take_rows(columns, part)
        for stage in walk(block, float(input_size)):
            if stage.name.startswith("fire"):
                found[part] |= (stage.size < FILTER_SIDE) & (stage.filters[2] > 0) & stage.present
    return found


@dataclass
class Stage:
    """One stage of the walk: arrays or scalars, for one image; `present` in which rows it is.

    `filters`: of conv1 and the classifier kernel, stride, filters; of a Fire squeeze, expand 1x1,
    expand 3x3; of a pool none.
    """

    name: str
    size: Any  # side of the output, pixels
    channels: Any  # of the output
    alive: Any  # most elements alive during one of its operations
    added: Any = 0.0  # elements of the sum that its addition writes
    params: Any = 0.0
    flash: Any = 0.0  # bytes in int8
    dead: Any = 0.0  # weights whose tap meets padding alone
    macs: Any = 0.0
    activations: Any = 0.0
    filters: tuple[Any, ...] = ()
    present: Any = True


def walk(c: Columns, input_size: float) -> Iterator[Stage]:
    """The stages of every architecture in `c`, in the order in which an image meets them."""
    affine = 1.0 + c["batch_norm"]  # parameters an output channel beside its weights
    fires = np.max(c["fires"], initial=0)
    varying_fires = np.ndim(c["fires"]) > 0
    size = stem_output_size(input_size, c["stem_kernel"], c["stem_stride"], c["stem_padding"])
    size = np.maximum(size, 0.0)  # where the kernel does not fit, there is nothing to count
    channels = scaled_width(c["stem_width"], c["width_multiplier"])
    area = size * size
    filters = channels * c["in_channels"]
    weights = filters * c["stem_kernel"] * c["stem_kernel"]
    yield Stage(
        name="conv1",
        size=size,
        channels=channels,
        params=weights + affine * channels,
        flash=weights + _CHANNEL_BYTES * channels,
        dead=filters * _dead_taps(c, input_size, size),
        macs=weights * area,
        activations=channels * area,
        alive=c["in_channels"] * (input_size * input_size) + channels * area,
        filters=(c["stem_kernel"], c["stem_stride"], channels),
    )
    single = size < 2
    for layer in range(1, int(fires) + 2):
        if layer > 1:
            active = c["fires"] > layer - 2 if varying_fires else True
            fire = _fire(c, layer, channels, size, area, affine, active)
            if np.any(single):  # of a padded 3x3 filter, the centre alone meets the one pixel
                squeeze, _, expand3x3 = fire.filters
                fire.dead = 8.0 * squeeze * expand3x3 * single * active
            yield fire
            channels = fire.channels
        pooled = c["pool_after"] >> layer & 1
        if np.any(pooled):
            smaller = np.where(pooled, pooled_size(size), size)
            alive = channels * (area + smaller * smaller) * pooled
            yield Stage(f"maxpool{layer}", smaller, channels, alive, present=pooled)
            size, area, single = smaller, smaller * smaller, smaller < 2
    classes = c["num_classes"]
    yield Stage(
        name=f"conv{int(fires) + 2}",
        size=size,
        channels=classes,
        params=channels * classes + classes,
        flash=channels * classes + _CHANNEL_BYTES * classes,
        macs=channels * classes * area,
        activations=classes * area,
        alive=(channels + classes) * area,
        filters=(1, 1, classes),
    )
    yield Stage(f"avgpool{int(fires) + 2}", np.minimum(size, 1.0), classes, classes * (area + 1))


def _dead_taps(c: Columns, input_size: float, output_size: Any) -> Any:
    """The stem's taps, of one filter and channel, that meet padding alone.

    Along one axis, tap t falls on the pixels t - padding + stride * o, for o from 0 to the output
    size; it is live if one of them is in the image.
    """
    kernel, stride, padding = c["stem_kernel"], c["stem_stride"], c["stem_padding"]
    reach = (output_size - 1) * stride - padding  # where the first tap falls at the end
    if np.all((reach >= 0) & (kernel <= padding + input_size) & (stride <= input_size)):
        return 0.0
    # Those before `first` never reach the image, those from `end` on are beyond it from the start.
    # Between them a tap is live if the pixel (t - padding) mod stride, the least that it can fall
    # on, is in the image: `per_stride` of every `stride` taps.
    first, end = np.maximum(0.0, -reach), np.minimum(kernel, padding + input_size)
    per_stride = np.minimum(input_size, stride)

    def live_before(tap: Any) -> Any:
        strides = np.floor((tap - padding) / stride)
        return strides * per_stride + np.minimum(tap - padding - strides * stride, per_stride)

    live = np.maximum(0.0, live_before(end) - live_before(first))
    return kernel * kernel - live * live


def _fire(
    c: Columns, layer: int, in_channels: Any, size: Any, area: Any, affine: Any, active: Any
) -> Stage:
    """Fire number `layer`; rows that are not `active` pass their input through at no cost."""
    squeeze, out_channels, expand3x3 = fire_filters(c, layer)
    bypass = of_fire(c, layer, "bypass")
    weights = squeeze * (in_channels + out_channels + 8.0 * expand3x3)
    outputs = squeeze + out_channels  # channels written by convolutions
    concatenated = (expand3x3 > 0) & (expand3x3 < out_channels)
    kept: Any = 0.0  # channels of the input that the bypass still reads
    added: Any = 0.0  # channels of its sum
    projected: Any = False
    if np.any(bypass):
        identity, projected = bypassed(bypass, in_channels, out_channels)
        either = identity | projected
        kept, added = in_channels * either, out_channels * either
        weights = weights + in_channels * out_channels * projected
        outputs = outputs + out_channels * projected
    alive = np.maximum(
        in_channels + squeeze,
        kept + out_channels + np.where(concatenated | projected, out_channels, squeeze),
    )
    if active is not True:
        weights, outputs = weights * active, outputs * active
        alive, added = alive * active, added * active
    return Stage(
        name=f"fire{layer}",
        size=size,
        channels=out_channels if active is True else np.where(active, out_channels, in_channels),
        params=weights + affine * outputs,
        flash=weights + _CHANNEL_BYTES * outputs,
        macs=weights * area,
        activations=outputs * area,
        alive=alive * area,
        added=added * area,
        filters=(squeeze, out_channels - expand3x3, expand3x3),
        present=active,
    )


def _totals(stages: Iterable[Stage]) -> tuple[dict[str, Any], Stage]:
    """The cost columns of the walk's rows, and the last stage.

    Summed as the walk goes, so that a block's working set is a stage, which stays in the cache.
    """
    params = flash = dead = macs = activations = alive = added = 0.0
    for stage in stages:
        params = params + stage.params
        flash = flash + stage.flash
        dead = dead + stage.dead
        macs = macs + stage.macs
        activations = activations + stage.activations
        alive = np.maximum(alive, stage.alive)
        added = np.maximum(added, stage.added)
    totals = {
        "params": params,
        "live_params": params - dead,
        "macs": macs,
        "flops": 2 * macs,
        "size_mb": params * 4 / 1e6,
        "activations": activations,
        "peak_activation_bytes": 4 * alive,
        "int8_peak_bytes": np.maximum(alive, 3 * added),  # both terms and their sum
        "int8_flash_bytes": flash,
    }
    return totals, stage


def _check_exact(totals: Mapping[str, Any], columns: Columns, feasible: Any) -> None:
    """Nothing in a total is negative, so that one below 2**53 proves that every term and partial
    sum of it was exact."""
    largest = (  # the others are smaller
        *("params", "flops", "activations", "peak_activation_bytes", "int8_flash_bytes"),
    )
    if max(np.max(totals[name], initial=0.0) for name in largest) < _EXACT:
        return
    for name in largest:
        total = totals[name]
        wrong = np.atleast_1d((total >= _EXACT) & feasible)
        if wrong.any():
            row = int(np.argmax(wrong))
            found = float(np.broadcast_to(total, wrong.shape)[row])
            default = Architecture().model_dump()
            fields = architecture_at(columns, row).model_dump()
            changed = {k: v for k, v in fields.items() if v != default[k]}
            raise CostOverflow(
                f"{name} of {found:.3g} is beyond 2**53 and would not be exact, for the "
                f"architecture with {', '.join(f'{k}={v}' for k, v in changed.items())}"
            )


def _by_stage(stages: list[Stage]) -> dict[str, Any]:
    """`STAGE.params`, `.macs`, `.activations` of the stages that have any."""
    named = {("classifier" if s is stages[-2] else s.name): s for s in stages if s.filters}
    return {
        f"{name}.{what}": getattr(stage, what)
        for name, stage in named.items()
        for what in ("params", "macs", "activations")
    }


def is_feasible(c: Columns, last: Stage) -> Any:
    """In which rows a walk that ended with `last` was that of a network that there is.

    Once a side is below 1 every later pool leaves it there, so the last stage tells."""
    beyond = c["pool_after"] >> (np.asarray(c["fires"]).astype(np.int64) + 2)
    feasible = (last.size >= 1) & (beyond == 0)
    for key in c.keys() & OVERRIDES.keys():
        feasible = feasible & (np.isnan(c[key]) | (OVERRIDES[key][0] <= c["fires"] + 1))
    return feasible


def _layer_cost(stage: Stage) -> LayerCost:
    if not stage.filters:
        filters = "3x3/2" if stage.name.startswith("max") else "global"
    else:
        a, b, n = (int(value) for value in stage.filters)
        fire = stage.name.startswith("fire")
        filters = f"s1x1 {a}, e1x1 {b}, e3x3 {n}" if fire else f"{a}x{a}/{b}, {n}"
    return LayerCost(
        name=stage.name,
        output_shape=(int(stage.channels), int(stage.size), int(stage.size)),
        filters=filters,
        params=int(stage.params),
        macs=int(stage.macs),
        activations=int(stage.activations),
    )


def _check_input_size(input_size: int) -> None:
    if type(input_size) is not int or not 1 <= input_size <= 65536:
        raise UserError(f"input size: found {shown(input_size)}, expected 1 to 65536 pixels")
