"""Warnings of 3x3 filters on maps below 3x3 pixels, against an independent network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import independent
from helpers.strategies import on_small_images
from sqzexplore.cli.app import app
from sqzexplore.network.columns import columns_of
from sqzexplore.network.cost import sees_small_maps
from sqzexplore.space.small_maps import described


def sides(architecture: sqz.Architecture, size: int) -> set[int]:
    """Of the maps that 3x3 filters of Fires see."""
    net = independent.network(architecture).eval()
    return independent.live_params(net, architecture.in_channels, size)[1]


@settings(max_examples=80, deadline=None)
@given(on_small_images())
def test_an_architecture_is_described_by_the_small_maps_that_it_has(
    on_small_image: tuple[sqz.Architecture, int],
) -> None:
    architecture, size = on_small_image
    text, small = described(architecture, size), {s for s in sides(architecture, size) if s < 3}
    assert (text is None) == (not small)
    for side in (1, 2):
        assert (f"{side}x{side} from fire" in (text or "")) == (side in small)
    counted = sqz.cost(architecture, size)
    assert not small or ("cannot learn" in text) == (counted.live_params < counted.params)


@settings(max_examples=20, deadline=None)
@given(st.lists(on_small_images(), min_size=1, max_size=8), st.integers(1, 40))
def test_columns_know_which_rows_have_small_maps(
    drawn: list[tuple[sqz.Architecture, int]], size: int
) -> None:
    size = max(size, *(own for _, own in drawn))
    rows = [architecture for architecture, _ in drawn]
    found = sees_small_maps(columns_of(rows), len(rows), size)
    assert found.tolist() == [min(sides(a, size), default=3) < 3 for a in rows]


def test_fires_without_3x3_filters_are_passed_over() -> None:
    """Maps of 2x2 from Fire 3 on, which has no 3x3 filters; Fire 4 has."""
    fields = {"pool_after": (2, 4), "stem_kernel": 1, "stem_stride": 1, "fires": 4}
    a = sqz.Architecture(**fields, **{"fire3.fraction_3x3": 0.0})
    assert described(a, 4).startswith("2x2 from fire4, 1x1 from fire5; ")
    plain = a.replace(fraction_3x3=0.0)
    assert described(plain, 4) is None
    assert not np.any(sees_small_maps(columns_of([plain]), 1, 4))


POOLS = """
name: pools
space: {{pool_after: [[1, 2, 3], [1, 4, 8], [1, 6, 9]], dropout: {dropout}}}
search: {search}
measure:
  accuracy: {{data: digits, epochs: 1, seeds: 1, image_size: {size}, proxy: {proxy}}}
"""
WIDTH = "{width_multiplier: 0.25}"


def validate(folder: Path, **changes: object) -> list[str]:
    """The warnings."""
    given = {"dropout": "[0.5]", "search": "{sampler: grid}", "size": 32, "proxy": WIDTH} | changes
    spec = folder / "pools.yaml"
    spec.write_text(POOLS.format(**given))
    done = CliRunner().invoke(app, ["validate", str(spec)])
    assert done.exit_code == 0, done.output
    assert "trainings" in done.stdout
    return [line for line in done.stderr.splitlines() if line.startswith("warning")]


def test_validate_warns_of_the_trained_networks(tmp_path: Path) -> None:
    assert validate(tmp_path) == [
        "warning: trained at 32x32 pixels: in 2 of 3 architectures 3x3 filters see a map below "
        "3x3; worst is pool_after 1,2,3, dropout 0.5: 1x1 from fire4; 61.7% of the weights cannot "
        "learn"
    ]
    assert validate(tmp_path, size=224) == []
    stem = "{stem_kernel: 3, stem_stride: 1, stem_padding: 1, width_multiplier: 0.25}"
    assert validate(tmp_path, proxy=stem) == []


def test_validate_warns_of_the_deployed_networks_too(tmp_path: Path) -> None:
    (warning,) = validate(tmp_path, search="{sampler: grid}\ninput_size: 26", size=64)
    pools = [(1, 2, 3), (1, 4, 8), (1, 6, 9)]
    small = sum(min(sides(sqz.Architecture(pool_after=p), 26)) < 3 for p in pools)
    assert warning.startswith(f"warning: deployed at 26x26 pixels: in {small} of 3 architectures")


def test_of_a_continuous_space_some_are_drawn(tmp_path: Path) -> None:
    random = "{sampler: random, trials: 3}"
    (warning,) = validate(tmp_path, dropout="{min: 0.1, max: 0.9}", search=random)
    start, _, rest = warning.partition(" of 100,000 architectures drawn at random ")
    share = int(start.split()[-1].replace(",", "")) / 100_000
    assert share == pytest.approx(2 / 3, abs=0.01)
    assert "worst is pool_after 1,2,3, dropout 0." in rest


def test_describe_warns_beside_its_table() -> None:
    changes = [
        "--set",
        "width_multiplier=0.25",
        "--set",
        "in_channels=1",
        "--set",
        "num_classes=10",
    ]
    arguments = ["describe", *changes, "--set", "pool_after=1,2,3", "--input-size"]
    done = CliRunner().invoke(app, [*arguments, "32"])
    assert done.exit_code == 0
    assert done.stderr == (
        "warning: 3x3 filters see a map below 3x3: 1x1 from fire4; "
        "61.7% of the weights cannot learn\n"
    )
    assert CliRunner().invoke(app, [*arguments, "224"]).stderr == ""
    assert CliRunner().invoke(app, [*arguments, "32", "--json"]).stderr == ""
