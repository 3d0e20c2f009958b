"""Data and training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import sqzexplore as sqz
from sqzexplore import training
from sqzexplore.data import ImageData, Split, digits
from sqzexplore.errors import FeatureMapVanishes

TINY = sqz.Architecture(width_multiplier=0.1, in_channels=1, num_classes=10)


def test_digits_are_split_by_class_without_overlap() -> None:
    data = digits(8)  # not upsampled: the pixels can be recognised
    pixels, labels = load_digits(return_X_y=True)
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1077, 270, 450]
    stacked = torch.cat([part.images.flatten(1) for part in parts])
    scaled = (stacked - data.background) / (stacked - data.background).max() * 16
    assert sorted(map(tuple, scaled.round().int().tolist())) == sorted(
        map(tuple, pixels.astype(int).tolist())
    )
    for part in parts:
        share = np.bincount(part.labels, minlength=10) / len(part)
        assert np.abs(share - np.bincount(labels) / len(labels)).max() < 0.005
    assert data.train.images.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.train.images.std().item() == pytest.approx(1, abs=1e-5)


def test_digits_are_upsampled() -> None:
    assert digits(32).train.images.shape == (1077, 1, 32, 32)
    assert torch.equal(digits(32).test.labels, digits(8).test.labels)


def test_a_network_learns_the_digits() -> None:
    """Far above chance (10%), on images that it has not seen."""
    architecture = sqz.Architecture(
        squeeze_ratio=0.5, width_multiplier=0.25, in_channels=1, num_classes=10
    )
    run = training.train(architecture, digits(32), training.Recipe(epochs=10), seed=0)
    assert run.top1 > 80
    assert run.val_top1 > 80
    assert [epoch.epoch for epoch in run.history] == list(range(1, 11))
    assert run.history[-1].train_loss < run.history[0].train_loss / 2


def test_a_run_depends_on_its_seed_alone() -> None:
    torch.manual_seed(5)
    a = training.train(TINY, digits(32), training.Recipe(1), seed=3)
    torch.rand(7)
    before = torch.get_rng_state()
    b = training.train(TINY, digits(32), training.Recipe(1), seed=3)
    c = training.train(TINY, digits(32), training.Recipe(1), seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert (a.history, a.top1) == (b.history, b.top1)
    assert a.history != c.history


def test_the_test_split_is_used_once_and_labels_matter() -> None:
    """Test images are looked at after the last epoch only; shuffled labels leave chance."""
    data = digits(32)
    seen: list[int] = []
    real = training._top1

    def spy(net, split):
        seen.append(len(split))
        return real(net, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_top1", spy)
        training.train(TINY, data, training.Recipe(3), seed=0)
    assert seen == [270, 270, 270, 450]
    labels = data.train.labels[torch.randperm(1077, generator=torch.Generator().manual_seed(0))]
    shuffled = ImageData(
        "x", "x", Split(data.train.images, labels), data.validation, data.test, data.background
    )
    assert training.train(TINY, shuffled, training.Recipe(3), seed=0).top1 < 30


def test_accuracy_is_the_share_of_right_answers() -> None:
    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    test = digits(8).test
    expected = 100 * (test.labels == 3).sum().item() / len(test)
    assert training._top1(Constant(), test) == pytest.approx(expected)


def test_the_learning_rate_warms_up_and_decays() -> None:
    rates = [training._rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 20)
    assert max(rates) == rates[19] == rates[20] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.02
    assert training._rate(0, 1) > 0


def test_shifted_images_keep_their_pixels() -> None:
    data = digits(32)
    index = torch.arange(8)
    generator = torch.Generator().manual_seed(0)
    shifts = set()
    for _ in range(60):
        images, labels = training._batch(data, index, generator)
        assert torch.equal(labels, data.train.labels[:8])
        matches = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(
                images[:, :, 2:-2, 2:-2],
                data.train.images[:8, :, 2 + dy : 30 + dy, 2 + dx : 30 + dx],
            )
        ]
        assert len(matches) == 1
        shifts |= set(matches)
    assert {dy for dy, _ in shifts} == {dx for _, dx in shifts} == {-2, -1, 0, 1, 2}


def test_too_small_images_are_refused() -> None:
    with pytest.raises(FeatureMapVanishes, match="maxpool8"):
        training.train(TINY, digits(16), training.Recipe(1), seed=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu() -> None:
    data = digits(32).to(torch.device("cuda:0"))
    run = training.train(TINY, data, training.Recipe(1), seed=0)
    assert math.isfinite(run.top1)
