"""The metaparameters: validation, forms of `pool_after`, identity."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

import sqzexplore as sqz
from helpers import ROOT
from helpers.strategies import spellings
from sqzexplore.errors import UserError
from sqzexplore.network.architecture import FIELDS
from sqzexplore.network.identity import network_keys
from sqzexplore.spec.load import load_spec


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("squeeze_ratio", v) for v in (0, 0.0, -0.1, 1.0001, float("nan"), "0.5", True, None)),
        *(("fraction_3x3", v) for v in (-0.01, 1.01, float("inf"), [])),
        *((f, v) for f in ("base_expand", "stem_width", "num_classes") for v in (0, -1, 2.0, True)),
        *(("expand_increment", v) for v in (-1, 0.5)),
        *(("increment_every", v) for v in (0, "2")),
        *(("fires", v) for v in (0, 61, 8.0, True)),
        *(("bypass", v) for v in ("Simple", "", None, True)),
        *(("width_multiplier", v) for v in (0, -1, float("inf"))),
        *(("batch_norm", v) for v in (0, 1, "true", None)),
        *(("dropout", v) for v in (-0.1, 1.0)),
        *(("stem_padding", v) for v in (-1, 0.5)),
        *(
            ("pool_after", v)
            for v in ([0], [10], [1, 1], [1.0], ["1"], [True], 4.5, None, "a", b"1")
        ),
        ("no_such_field", 1),
    ],
)
def test_bad_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        sqz.Architecture(**{field: value})
    # What is wrong between fields has no place: pools behind the last Fire.
    assert {error["loc"][:1] for error in refused.value.errors()} <= {(field,), ()}
    assert field in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [[8, 1, 4], (1, 4, 8), "1,4,8", "[1, 4, 8]", "8, 4,1", np.array([4, 1, 8]), {1, 4, 8}],
)
def test_pool_after_takes_any_form(value: object) -> None:
    assert sqz.Architecture(pool_after=value).pool_after == (1, 4, 8)


def test_no_pool_at_all() -> None:
    assert sqz.Architecture(pool_after="").pool_after == ()
    assert sqz.Architecture(pool_after=[]).pool_after == ()


def test_integers_are_valid_ratios_and_numpy_scalars_valid_values() -> None:
    a = sqz.Architecture(squeeze_ratio=1, fires=np.int64(4), pool_after=[1])
    assert a == sqz.Architecture(squeeze_ratio=1.0, fires=4, pool_after=(1,))
    assert type(a.squeeze_ratio) is float
    assert a.arch_id == sqz.Architecture(squeeze_ratio=1.0, fires=4, pool_after=(1,)).arch_id


def test_frozen_and_hashable() -> None:
    a = sqz.Architecture()
    with pytest.raises(ValidationError, match="frozen"):
        a.fires = 9
    assert {a: 1}[sqz.Architecture(pool_after=[8, 4, 1])] == 1
    assert a != sqz.Architecture(dropout=0.0)


def test_overrides_are_a_mapping_of_fires_that_nobody_can_change() -> None:
    keys = {"fire9.bypass": "simple", "fire5.squeeze_ratio": 0.5, "fire3.bypass": None}
    one = sqz.Architecture(**keys)
    assert [*one.overrides] == [5, 9]
    assert (one.fire(5).squeeze_ratio, one.fire(5).bypass) == (0.5, None)
    assert one.fire(9).bypass == "simple"
    assert one.fire(3) == one.fire(2) == sqz.Architecture().fire(5)
    same = sqz.Architecture(overrides={9: {"bypass": "simple"}, 5: one.fire(5)})
    assert (same, hash(same)) == (one, hash(one))
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.model_dump()["overrides"] == {"fire5.squeeze_ratio": 0.5, "fire9.bypass": "simple"}
    assert one.replace(**{"fire5.squeeze_ratio": None, "fire9.bypass": None}) == sqz.Architecture()
    with pytest.raises(TypeError, match="does not support item assignment"):
        one.overrides[5] = one.fire(9)  # type: ignore[index]
    with pytest.raises(ValidationError, match=r"fire12\.bypass: there is no fire12"):
        sqz.Architecture(overrides={12: {"bypass": "simple"}})
    with pytest.raises(ValidationError, match=r"(?s)fire5\.squeeze_ratio.*less than or equal to 1"):
        sqz.Architecture(overrides={5: {"squeeze_ratio": 7}})


def test_ids_are_the_same_in_every_process_and_release() -> None:
    names = ("squeezenet1_0", "squeezenet1_1", "squeezenet_cifar")
    ids = [(sqz.preset(name).arch_id, sqz.preset(name).net_id) for name in names]
    assert ids[:2] == [("529ab033422a", "29b986627158"), ("66b1cfbcb337", "e6055ee82cf5")]
    assert ids[2][1] == "ca54f3d87ec1"
    single = sqz.Architecture(**{"fire5.squeeze_ratio": 0.5, "fire9.bypass": "simple"})
    assert (single.arch_id, single.net_id) == ("63973833d698", "62578a6cd84b")
    code = "import sqzexplore as s; a = s.preset('squeezenet1_1'); print(a.arch_id, a.net_id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(ids[1])


def built(architecture: sqz.Architecture) -> str:
    """The network as torch sees it: every module with its settings, every tensor with its shape."""
    net = sqz.build(architecture)
    return f"{net}\n{[(name, tensor.shape) for name, tensor in net.state_dict().items()]}"


@settings(max_examples=100, deadline=None)
@given(spellings())
def test_net_id_names_the_network_that_is_built(rows: list[sqz.Architecture]) -> None:
    """Equal names, equal modules; other names, other modules."""
    networks = [built(architecture) for architecture in rows]
    for a, b in itertools.combinations(range(len(rows)), 2):
        assert (rows[a].net_id == rows[b].net_id) == (networks[a] == networks[b])


def test_ids_tell_every_field() -> None:
    """Where each of them changes the network."""
    changes = {
        "squeeze_ratio": 0.25,
        "fraction_3x3": 0.25,
        "pool_after": (1,),
        "bypass": "simple",
        "width_multiplier": 0.5,
        "batch_norm": True,
        "dropout": 0.0,
    }
    base = sqz.Architecture()
    rows = [base]
    for field in FIELDS:
        value = changes[field] if field in changes else getattr(base, field) + 1
        rows.append(base.replace(**{field: value}))
    for name in ("arch_id", "net_id"):
        assert len({getattr(row, name) for row in rows}) == len(FIELDS) + 1


@pytest.mark.parametrize(
    "same",
    [
        ({"expand_increment": 0, "increment_every": 1}, {"expand_increment": 0}),
        ({"bypass": "simple", "increment_every": 1}, {"increment_every": 1}),
        ({"width_multiplier": 0.5}, {"stem_width": 48, "base_expand": 64, "expand_increment": 64}),
        ({"fire5.squeeze_ratio": 0.125}, {}),
        ({"squeeze_ratio": 0.1251}, {}),
    ],
)
def test_one_network_spelt_in_two_ways(same: tuple[dict, dict]) -> None:
    one, other = (sqz.Architecture(**changes) for changes in same)
    assert one.arch_id != other.arch_id
    assert one.net_id == other.net_id


def test_a_quarter_of_the_census_are_copies() -> None:
    """Of its 2,851,200 feasible architectures: 2,170,080 are distinct. With one
    `pool_after`, of which six Fires have 56 and eight have 120, that is 12,330 of 16,200."""
    space = load_spec(ROOT / "sweeps" / "census.yaml").design_space
    distinct = 0
    for fires, pools in ((6, 56), (8, 120)):
        chosen = {"fires": (fires,), "pool_after": ((1, 4),)}
        axes = [replace(a, values=chosen.get(a.field, a.values)) for a in space.axes]
        part = replace(space, axes=tuple(axes))
        keys = np.unique(network_keys(part.columns(), part.size))
        assert (part.size, len(keys)) == (16_200, 12_330)
        distinct += pools * len(keys)
    assert distinct == 2_170_080


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'squeezenet1_1'"):
        sqz.preset("squeezenet11")


def test_presets_are_the_published_networks() -> None:
    assert sqz.preset("squeezenet1_0") == sqz.Architecture()
    v11 = sqz.preset("squeezenet1_1", num_classes=10)
    assert (v11.stem_width, v11.stem_kernel, v11.stem_stride) == (64, 3, 2)
    assert (v11.pool_after, v11.num_classes) == ((1, 3, 5), 10)


@pytest.mark.parametrize(
    ("fields", "squeeze", "expand1x1", "expand3x3"),
    [
        ({"base_expand": 5, "fraction_3x3": 0.5}, 1, 2, 3),  # 2.5 rounds up
        ({"base_expand": 4, "squeeze_ratio": 0.125}, 1, 2, 2),  # 0.5 rounds up
        ({"base_expand": 3, "squeeze_ratio": 0.125}, 1, 1, 2),  # 0.375 would be 0: at least 1
        ({"base_expand": 12, "squeeze_ratio": 0.125}, 2, 6, 6),  # 1.5 rounds up
        ({"base_expand": 5, "width_multiplier": 0.5}, 1, 1, 2),  # 2.5 -> 3 filters
        ({"base_expand": 1, "width_multiplier": 0.1}, 1, 0, 1),  # at least 1
    ],
)
def test_rounding(fields: dict, squeeze: int, expand1x1: int, expand3x3: int) -> None:
    stage = sqz.Architecture(**fields).fire_stages()[0]
    assert (stage.squeeze, stage.expand1x1, stage.expand3x3) == (squeeze, expand1x1, expand3x3)
