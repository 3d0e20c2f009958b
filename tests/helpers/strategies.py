"""Architectures of the whole design space, narrow enough to build by the hundred."""

from __future__ import annotations

from hypothesis import strategies as st

import sqzexplore as sqz
from sqzexplore.errors import FeatureMapVanishes
from sqzexplore.network.architecture import Architecture


def overrides(fires: int) -> st.SearchStrategy[dict[str, object]]:
    """What up to three single Fires have instead."""
    values = {
        "squeeze_ratio": st.floats(0.01, 1.0),
        "fraction_3x3": st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0.0, 1.0),
        "expand_filters": st.integers(1, 48),
        "bypass": st.sampled_from(["none", "simple", "complex"]),
    }
    one = st.tuples(st.integers(2, fires + 1), st.sampled_from(sorted(values))).flatmap(
        lambda key: st.tuples(st.just(f"fire{key[0]}.{key[1]}"), values[key[1]])
    )
    return st.lists(one, max_size=3).map(dict)


@st.composite
def architectures(draw: st.DrawFn, max_fires: int = 10) -> Architecture:
    fires = draw(st.integers(1, max_fires))
    return Architecture(
        squeeze_ratio=draw(st.sampled_from([0.01, 0.125, 0.5, 1.0]) | st.floats(0.001, 1.0)),
        fraction_3x3=draw(st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]) | st.floats(0.0, 1.0)),
        base_expand=draw(st.integers(1, 48)),
        expand_increment=draw(st.sampled_from([0, 1, 16]) | st.integers(0, 32)),
        increment_every=draw(st.integers(1, 4)),
        fires=fires,
        pool_after=draw(st.sets(st.integers(1, fires + 1), max_size=4).map(sorted)),
        bypass=draw(st.sampled_from(["none", "simple", "complex"])),
        stem_width=draw(st.integers(1, 48)),
        stem_kernel=draw(st.integers(1, 7)),
        stem_stride=draw(st.integers(1, 3)),
        stem_padding=draw(st.integers(0, 3)),
        width_multiplier=draw(st.sampled_from([0.25, 0.5, 1.0, 1.5]) | st.floats(0.05, 2.0)),
        batch_norm=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.5])),
        in_channels=draw(st.integers(1, 4)),
        num_classes=draw(st.integers(1, 20)),
        **draw(overrides(fires)),
    )


input_sizes = st.integers(32, 256)


@st.composite
def spellings(draw: st.DrawFn) -> list[Architecture]:
    """An architecture and some with other metaparameters, many of which are the same network."""
    first = draw(architectures(max_fires=3))
    change = st.sampled_from(
        [
            {"increment_every": first.increment_every % 4 + 1},
            {"bypass": "none"},
            {"bypass": "simple"},
            {"bypass": "complex"},
            {"squeeze_ratio": first.squeeze_ratio * 0.99},
            {"fraction_3x3": first.fraction_3x3 * 0.99},
            {"width_multiplier": first.width_multiplier * 0.99},
            {"expand_increment": 0},
            {"fire2.squeeze_ratio": first.squeeze_ratio},
            {"fire2.expand_filters": first.base_expand},
            {"fire2.bypass": first.bypass},
            {"pool_after": first.pool_after[:1]},
            {"dropout": 0.5},
        ]
    )
    changes = draw(st.lists(st.tuples(change, change), min_size=1, max_size=5))
    return [first, *(first.replace(**one).replace(**other) for one, other in changes)]


@st.composite
def on_small_images(draw: st.DrawFn, max_fires: int = 6) -> tuple[Architecture, int]:
    """An architecture with any stem and an image that it fits, of few pixels: maps down to 1x1."""
    architecture = draw(architectures(max_fires)).replace(
        stem_kernel=draw(st.integers(1, 9)),
        stem_stride=draw(st.integers(1, 9)),
        stem_padding=draw(st.integers(0, 9)),
    )
    size = draw(st.integers(1, 40))
    size = max(size, architecture.stem_kernel - 2 * architecture.stem_padding)
    while True:
        try:
            architecture.check_input_size(size)
        except FeatureMapVanishes:
            architecture = architecture.replace(pool_after=architecture.pool_after[:-1])
        else:
            return architecture, size


def fits(architecture: sqz.Architecture, size: int) -> bool:
    try:
        architecture.check_input_size(size)
    except FeatureMapVanishes:
        return False
    return True
