"""Features against networks taken one by one: their stages, costs, and the roofline's floor."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqzexplore as sqz
from helpers.strategies import architectures, fits, input_sizes
from sqzexplore.measure.roofline import Roof, floor, operations
from sqzexplore.network.columns import columns_of
from sqzexplore.predict.features import NAMES, SPEED_NAMES, Machine, features

MACHINE = Machine(macs_per_s=3e9, bytes_per_s=7e8, batch=5, item_bytes=2)


def of(architecture: sqz.Architecture, size: int) -> dict[str, float]:
    """The features of a network, from `cost`'s layers and `fire_stages`, in plain Python."""
    cost = sqz.cost(architecture, size)
    sides = {layer.name: layer.output_shape[1] for layer in cost.layers}
    fires = architecture.fire_stages()
    side = [sides[f"fire{n}"] for n in range(2, len(fires) + 2)]
    weighted = [x for x in cost.layers if not x.name.startswith(("maxpool", "avgpool"))]
    reach, jump = architecture.stem_kernel, architecture.stem_stride
    for layer in range(1, architecture.fires + 2):
        reach += 2 * jump * (layer > 1 and fires[layer - 2].expand3x3 > 0)
        if layer in architecture.pool_after:
            reach, jump = reach + 2 * jump, 2 * jump
    return {
        "log_params": math.log2(cost.params),
        "log_macs": math.log2(cost.macs),
        "log_activations": math.log2(cost.activations),
        "log_stem_channels": math.log2(cost.layers[0].output_shape[0]),
        "log_stem_side": math.log2(sides["conv1"]),
        "fires": architecture.fires,
        "pools": len(architecture.pool_after),
        "log_last_side": math.log2(weighted[-1].output_shape[1]),
        "mean_log_side": np.mean(np.log2(side)),
        "macs_weighted_log_side": np.average(
            [math.log2(x.output_shape[1]) for x in weighted], weights=[x.macs for x in weighted]
        ),
        "params_weighted_log_side": np.average(
            [math.log2(x.output_shape[1]) for x in weighted], weights=[x.params for x in weighted]
        ),
        "log_reach": math.log2(reach / size),
        "log_narrowest_squeeze": math.log2(min(f.squeeze for f in fires)),
        "mean_log_squeeze_share": np.mean([math.log2(f.squeeze / f.out_channels) for f in fires]),
        "mean_share_3x3": np.mean([f.expand3x3 / f.out_channels for f in fires]),
        "log_first_channels": math.log2(fires[0].out_channels),
        "log_last_channels": math.log2(fires[-1].out_channels),
        "share_identity": np.mean([f.bypass == "identity" for f in fires]),
        "share_projection": np.mean([f.bypass == "conv1x1" for f in fires]),
        "batch_norm": float(architecture.batch_norm),
        "dropout": architecture.dropout,
    }


@settings(deadline=None)
@given(st.lists(architectures(), min_size=1, max_size=5), input_sizes)
def test_they_are_those_of_networks_taken_one_by_one(
    several: list[sqz.Architecture], size: int
) -> None:
    made = pd.DataFrame(features(columns_of(several), len(several), size), columns=[*NAMES])
    for architecture, row in zip(several, made.to_dict("records"), strict=True):
        if fits(architecture, size):
            assert row == pytest.approx(of(architecture, size), abs=1e-9)
        else:
            assert all(math.isnan(value) for value in row.values())


@settings(deadline=None)
@given(st.lists(architectures(), min_size=1, max_size=5), input_sizes)
def test_the_floor_is_that_of_the_roofline(several: list[sqz.Architecture], size: int) -> None:
    made = features(columns_of(several), len(several), size, MACHINE)
    roof = Roof("any", "float16", 1, "", MACHINE.macs_per_s, MACHINE.bytes_per_s)
    for architecture, row in zip(several, made, strict=True):
        if fits(architecture, size):
            least = floor(architecture, size, MACHINE.batch, roof)
            speed = dict(zip(SPEED_NAMES, row[len(NAMES) :], strict=True))
            assert speed["log_floor"] == pytest.approx(math.log2(least.seconds))
            assert speed["log_bytes"] == pytest.approx(math.log2(least.bytes))
            assert speed["operations"] == len(list(operations(architecture, size)))


def test_many_blocks_are_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    several = [
        sqz.Architecture(squeeze_ratio=n / 20, fires=1 + n % 8, pool_after=()) for n in range(1, 21)
    ]
    whole = features(columns_of(several), 20, 64)
    monkeypatch.setattr("sqzexplore.predict.features._BLOCK", 7)
    assert (features(columns_of(several), 20, 64) == whole).all()
