"""Random networks by strata, against counts and costs of one architecture at a time."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

import sqzexplore as sqz
from helpers.sweeps import run
from sqzexplore.errors import UserError
from sqzexplore.space.axis import Axis
from sqzexplore.space.constraints import Expression
from sqzexplore.space.space import Space, Variant
from sqzexplore.space.strata import STRATA, stratified
from sqzexplore.spec.load import parse_spec

BASE = sqz.Architecture(num_classes=10, stem_kernel=3, stem_stride=2, stem_padding=1)
AXES = (
    Axis("squeeze_ratio", (0.0625, 0.125, 0.25, 0.5, 0.75, 1.0)),
    Axis("fraction_3x3", (0.01, 0.25, 0.5, 0.75, 0.99)),
    Axis("base_expand", (32, 64, 96, 128, 160)),
    Axis("expand_increment", (0, 32, 64)),
    Axis("increment_every", (1, 2, 4)),
    Axis("width_multiplier", (0.25, 0.5, 1.0)),
)
LIMITED = Space(BASE, AXES, (Expression("macs <= 4_000_000"),), (Variant(32),))
SPEC = """\
name: strata
base: {stem_kernel: 3, stem_stride: 2, stem_padding: 1}
input_size: 32
space: {squeeze_ratio: [0.125, 0.25, 0.5, 0.75, 1.0], base_expand: [32, 64, 128], fires: [7, 8]}
search: {sampler: random, stratify: macs, trials: 6, seed: 4}
"""


def _macs(architecture: sqz.Architecture) -> int:
    return sqz.cost(architecture, input_size=32).macs


def test_each_stratum_gives_as_many_and_no_network_comes_twice():
    drawn = list(itertools.islice(stratified(LIMITED, "macs", 0), 200))
    assert len({architecture.net_id for architecture in drawn}) == 200
    sizes = [_macs(architecture) for architecture in drawn]
    assert max(sizes) <= 4_000_000
    low, high = math.log(min(sizes)), math.log(max(sizes))
    strata = Counter(
        min(STRATA - 1, int((math.log(size) - low) / (high - low) * STRATA)) for size in sizes
    )
    assert len(strata) == STRATA
    # The ends of the drawn are not quite the ends of the strata: a few fall on the other side.
    assert all(12 <= number <= 28 for number in strata.values()), strata


def test_a_longer_sequence_begins_with_a_shorter_one():
    short = [a.arch_id for a in itertools.islice(stratified(LIMITED, "macs", 5), 15)]
    long = [a.arch_id for a in itertools.islice(stratified(LIMITED, "macs", 5), 40)]
    assert long[:15] == short
    assert short != [a.arch_id for a in itertools.islice(stratified(LIMITED, "macs", 6), 15)]


def test_a_small_space_is_given_whole_and_once():
    """Where expands do not grow, how often they would is no other network."""
    axes = (Axis("expand_increment", (0, 64)), Axis("increment_every", (1, 2, 4)))
    drawn = list(stratified(Space(BASE, axes, (), (Variant(32),)), "params", 0))
    networks = {
        BASE.replace(expand_increment=more, increment_every=every).net_id
        for more in (0, 64)
        for every in (1, 2, 4)
    }
    assert len(networks) == 4
    assert sorted(a.net_id for a in drawn) == sorted(networks)


def test_one_size_alone():
    drawn = list(stratified(Space(BASE, (Axis("bypass", ("none", "simple")),)), "params", 0))
    assert {a.bypass for a in drawn} == {"none", "simple"}


def test_nothing_feasible_is_said():
    space = Space(BASE, AXES, (Expression("params < 10"),), (Variant(32),))
    with pytest.raises(UserError, match="no feasible architecture among 65,536"):
        next(stratified(space, "macs", 0))


def test_a_sweep_evaluates_the_sequence_and_more_trials_go_on(tmp_path):
    run(SPEC, tmp_path)
    space = parse_spec(SPEC).design_space
    expected = [a.arch_id for a in itertools.islice(stratified(space, "macs", 4), 10)]
    assert list(sqz.load_results(tmp_path)["arch_id"]) == expected[:6]
    run(SPEC.replace("trials: 6", "trials: 10"), tmp_path)
    assert list(sqz.load_results(tmp_path)["arch_id"]) == expected


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("sampler: grid, stratify: macs", "search.stratify: found it with the sampler grid"),
        ("sampler: random, trials: 3, stratify: mac", "macs"),
        ("sampler: random, trials: 3, stratify: top1", "search.stratify: found top1, expected one"),
    ],
)
def test_what_cannot_be_stratified_is_refused(search, message):
    text = "\n".join(SPEC.splitlines()[:-1]) + f"\nsearch: {{{search}}}\n"
    with pytest.raises(UserError, match=message):
        parse_spec(text)
