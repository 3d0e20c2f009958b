"""The metaparameters: validation, forms of `pool_after`, identity."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

import sqzexplore as sqz
from sqzexplore.architecture import FIELDS
from sqzexplore.errors import UserError


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
        *(("pool_after", v) for v in ([0], [10], [1, 1], [1.0], ["1"], [True], 4, None, "a", b"1")),
        ("no_such_field", 1),
    ],
)
def test_bad_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        sqz.Architecture(**{field: value})


@pytest.mark.parametrize(
    "value",
    [[8, 1, 4], (1, 4, 8), "1,4,8", "[1, 4, 8]", "8, 4,1", np.array([4, 1, 8]), {1, 4, 8}],
)
def test_pool_after_takes_any_form(value: object) -> None:
    assert sqz.Architecture(pool_after=value).pool_after == (1, 4, 8)


def test_no_pool_at_all() -> None:
    assert sqz.Architecture(pool_after="").pool_after == sqz.Architecture(pool_after=[]).pool_after


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


def test_arch_id_is_the_same_in_every_process_and_release() -> None:
    ids = [sqz.preset(name).arch_id for name in ("squeezenet1_0", "squeezenet1_1")]
    assert ids == ["529ab033422a", "66b1cfbcb337"]
    code = "import sqzexplore as s; print(s.preset('squeezenet1_1').arch_id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ids[1]


def test_arch_id_tells_every_field() -> None:
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
    ids = {base.arch_id}
    for field in FIELDS:
        value = changes[field] if field in changes else getattr(base, field) + 1
        changed = base.replace(**{field: value})
        ids.add(changed.arch_id)
    assert len(ids) == len(FIELDS) + 1


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
