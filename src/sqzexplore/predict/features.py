"""Features of architectures in closed form over columns: what a prediction goes by.

One walk over the stages, as for costs, so that a million rows take a few seconds. Sides, channels
and costs enter as logarithms: halving a map, or doubling a width, is one step wherever it happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.columns import Columns, bypassed, of_fire, take_rows
from ..network.cost import Stage, is_feasible, walk

#: What accuracy is predicted from. "Mean" is over the Fires, "weighted" by what each costs.
NAMES = (
    "log_params",
    "log_macs",
    "log_activations",
    "log_stem_channels",
    "log_stem_side",
    "fires",
    "pools",
    "log_last_side",
    "mean_log_side",
    "macs_weighted_log_side",
    "params_weighted_log_side",
    "log_reach",  # receptive field of the last Fire / side of the image
    "log_narrowest_squeeze",
    "mean_log_squeeze_share",  # squeeze / expand filters
    "mean_share_3x3",
    "log_first_channels",
    "log_last_channels",
    "share_identity",  # of Fires, bypassed as they are
    "share_projection",  # of Fires, bypassed by a 1x1 convolution
    "batch_norm",
    "dropout",
)
#: What speed is predicted from besides.
FLOOR = "log_floor"  # the roofline's least time
SPEED_NAMES = (FLOOR, "log_bytes", "operations")

_BLOCK = 8192  # rows at a time: the working set stays in the processor's cache


@dataclass(frozen=True)
class Machine:
    """What a roofline floor is of: the machine's two rates, and how a pass is made.

    Args:
        macs_per_s: multiply-accumulates of its best product.
        bytes_per_s: of its best copy, read and written.
        batch: images of one pass.
        item_bytes: of an element.
    """

    macs_per_s: float
    bytes_per_s: float
    batch: int
    item_bytes: int


def names_of(machine: Machine | None) -> tuple[str, ...]:
    """The names of the columns that `features` gives."""
    return NAMES if machine is None else (*NAMES, *SPEED_NAMES)


def features(
    columns: Columns, rows: int, input_size: int, machine: Machine | None = None
) -> NDArray[np.float64]:
    """The features of architectures, rows x names (`names_of`).

    Args:
        columns: architectures (`network.columns`); those that are not feasible at this input give
            NaN.
        rows: how many.
        input_size: side of the square input, pixels.
        machine: with it the features of speed too.
    """
    made = np.empty((rows, len(names_of(machine))))
    for start in range(0, rows, _BLOCK):
        part = slice(start, min(start + _BLOCK, rows))
        block = take_rows(columns, part)
        sums, feasible = _summed(block, float(input_size), machine)
        for i, name in enumerate(names_of(machine)):
            made[part, i] = np.where(feasible, sums[name], np.nan)
    return made


def _summed(c: Columns, input_size: float, machine: Machine | None) -> tuple[dict[str, Any], Any]:
    """Each feature as a column, and which rows are feasible."""
    sums = _Sums(c, input_size)
    speed = _Speed(c, input_size, machine) if machine else None
    with np.errstate(divide="ignore", invalid="ignore"):  # where a map has vanished
        for stage in walk(c, input_size):
            sums.add(stage)
            if speed:
                speed.add(stage)
        found = sums.found() | (speed.found() if speed else {})
    return found, is_feasible(c, stage)


class _Sums:
    """Sums over the stages of a network as an image meets them."""

    def __init__(self, c: Columns, input_size: float) -> None:
        self._c, self._input = c, input_size
        self._params = self._macs = self._activations = 0.0
        self._weighted: dict[str, Any] = {"macs": 0.0, "params": 0.0}
        self._narrowest: Any = np.inf
        self._means: dict[str, Any] = {}
        self._reach, self._jump = c["stem_kernel"], c["stem_stride"]
        self._pools: Any = 0

    def add(self, stage: Stage) -> None:
        """Take the next stage."""
        self._params = self._params + stage.params
        self._macs = self._macs + stage.macs
        self._activations = self._activations + stage.activations
        log_side = np.log2(np.maximum(stage.size, 1.0))
        if stage.name == "conv1":
            self._stem, self._in = (np.log2(stage.channels), log_side), stage.channels
        elif stage.name.startswith("fire"):
            self._fire(stage, log_side)
        elif stage.name.startswith("maxpool"):
            self._pools = self._pools + stage.present
            self._reach = self._reach + 2 * self._jump * stage.present
            self._jump = self._jump * (1 + np.asarray(stage.present))
        if not stage.name.startswith("avgpool"):
            self._weighted["macs"] = self._weighted["macs"] + log_side * stage.macs
            self._weighted["params"] = self._weighted["params"] + log_side * stage.params
            self._last_side = log_side

    def _fire(self, stage: Stage, log_side: Any) -> None:
        squeeze, expand1x1, expand3x3 = stage.filters
        expand, here = expand1x1 + expand3x3, np.asarray(stage.present)
        if stage.name == "fire2":
            self._first = np.log2(expand)
        identity, projection = _bypassed(self._c, stage, self._in)
        self._narrowest = np.minimum(self._narrowest, np.where(here, squeeze, np.inf))
        self._reach = self._reach + 2 * self._jump * (here & (expand3x3 > 0))
        for name, value in (
            ("mean_log_side", log_side),
            ("mean_log_squeeze_share", np.log2(squeeze / expand)),
            ("mean_share_3x3", expand3x3 / expand),
            ("share_identity", identity),
            ("share_projection", projection),
        ):
            self._means[name] = self._means.get(name, 0.0) + value * here
        self._in = stage.channels

    def found(self) -> dict[str, Any]:
        """The features."""
        c = self._c
        means = {name: value / c["fires"] for name, value in self._means.items()}
        return means | {
            "log_params": np.log2(self._params),
            "log_macs": np.log2(self._macs),
            "log_activations": np.log2(self._activations),
            "log_stem_channels": self._stem[0],
            "log_stem_side": self._stem[1],
            "fires": c["fires"],
            "pools": self._pools,
            "log_last_side": self._last_side,
            "macs_weighted_log_side": self._weighted["macs"] / self._macs,
            "params_weighted_log_side": self._weighted["params"] / self._params,
            "log_reach": np.log2(self._reach / self._input),
            "log_narrowest_squeeze": np.log2(self._narrowest),
            "log_first_channels": self._first,
            "log_last_channels": np.log2(self._in),
            "batch_norm": c["batch_norm"],
            "dropout": c["dropout"],
        }


def _bypassed(c: Columns, stage: Stage, in_channels: Any) -> tuple[Any, Any]:
    """In which rows the Fire of a stage is bypassed as it is, and by a 1x1 convolution."""
    bypass = of_fire(c, int(stage.name.removeprefix("fire")), "bypass")
    return bypassed(bypass, in_channels, stage.channels)


class _Speed:
    """The roofline floor, as `measure.roofline` defines it for one architecture."""

    def __init__(self, c: Columns, input_size: float, machine: Machine) -> None:
        self._c, self._machine = c, machine
        self._channels, self._size = c["in_channels"], input_size
        self._seconds = self._bytes = self._operations = 0.0

    def add(self, stage: Stage) -> None:
        """Take the next stage."""
        for macs, weights, elements in self._operations_of(stage):
            there = np.asarray(elements > 0)
            moved = self._machine.item_bytes * (weights + self._machine.batch * elements)
            computing = self._machine.batch * macs / self._machine.macs_per_s
            here = there & stage.present
            self._seconds = self._seconds + here * np.maximum(
                computing, moved / self._machine.bytes_per_s
            )
            self._bytes = self._bytes + here * moved
            self._operations = self._operations + here
        self._channels, self._size = stage.channels, stage.size

    def _operations_of(self, stage: Stage) -> Iterator[tuple[Any, Any, Any]]:
        """MACs and elements of one image, and weights with biases, of each operation; no elements
        where there is no such operation."""
        read, area = self._channels * self._size**2, stage.size**2
        out = stage.channels * area
        if stage.name.startswith("maxpool") or stage.name.startswith("avgpool"):
            yield 0.0, 0.0, read + out
        elif not stage.name.startswith("fire"):
            yield stage.macs, _weights(self._channels, stage), read + out
        else:
            squeeze = stage.filters[0]
            identity, projection = _bypassed(self._c, stage, self._channels)
            for c_in, c_out, taps, there in (
                (self._channels, squeeze, 1, True),
                (squeeze, stage.filters[1], 1, stage.filters[1] > 0),
                (squeeze, stage.filters[2], 9, stage.filters[2] > 0),
                (self._channels, stage.channels, 1, projection),
            ):
                weights = c_in * c_out * taps
                yield weights * area, weights + c_out, (c_in + c_out) * area * there
            yield 0.0, 0.0, 3 * out * (identity | projection)

    def found(self) -> dict[str, Any]:
        """The features."""
        return {
            FLOOR: np.log2(self._seconds),
            "log_bytes": np.log2(self._bytes),
            "operations": self._operations,
        }


def _weights(in_channels: Any, stage: Stage) -> Any:
    """Weights and biases of conv1 or the classifier: kernel, stride and filters are known."""
    kernel, _, filters = stage.filters
    return kernel * kernel * in_channels * filters + filters
