"""A last batch of one image, of which BatchNorm knows no variance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sqzexplore as sqz
from sqzexplore.data.images import ImageData, Split, load
from sqzexplore.data.open import open_data
from sqzexplore.errors import UserError
from sqzexplore.spec.load import parse_spec
from sqzexplore.train.loop import fit
from sqzexplore.train.recipe import Recipe

NET = sqz.Architecture(
    width_multiplier=0.1, fires=3, pool_after=(1, 3), in_channels=1, num_classes=10
)


@pytest.fixture(scope="module")
def data() -> ImageData:
    data = load(open_data("digits"), 32)
    few = Split(data.train.images[:65], data.train.labels[:65])
    return replace(data, train=few)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_last_batch_of_one(batch_norm: bool, data: ImageData) -> None:
    sizes: list[int] = []
    net = NET.replace(batch_norm=batch_norm)
    fit(net, data, Recipe(epochs=2, batch_size=32), 0, on_batch=sizes.append)
    assert sizes == ([32, 32] if batch_norm else [32, 32, 1]) * 2


def test_a_set_of_one_batch_is_taken_whole(data: ImageData) -> None:
    sizes: list[int] = []
    fit(
        NET.replace(batch_norm=True),
        data,
        Recipe(epochs=1, batch_size=65),
        0,
        on_batch=sizes.append,
    )
    assert sizes == [65]


@pytest.mark.parametrize(
    ("base", "space", "proxy", "refused"),
    [
        ("{batch_norm: true}", "{fires: [8]}", "{}", True),
        ("squeezenet1_0", "{batch_norm: [false, true]}", "{}", True),
        ("squeezenet1_0", "{fires: [8]}", "{batch_norm: true}", True),
        ("squeezenet1_0", "{fires: [8]}", "{}", False),
        ("{batch_norm: true}", "{fires: [8]}", "{batch_norm: false}", False),
    ],
)
def test_batches_of_one_are_refused(base: str, space: str, proxy: str, refused: bool) -> None:
    text = (
        f"name: a\nbase: {base}\nspace: {space}\nmeasure: {{accuracy: {{data: digits, epochs: 1, "
        f"batch_size: 1, proxy: {proxy}}}}}\n"
    )
    if not refused:
        assert parse_spec(text).measure.accuracy is not None
        return
    with pytest.raises(UserError, match=r"measure.accuracy.batch_size: found 1 with batch_norm"):
        parse_spec(text)


def test_weights_stay_finite(data: ImageData) -> None:
    net, _ = fit(NET.replace(batch_norm=True), data, Recipe(epochs=1, batch_size=32), 0)
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
