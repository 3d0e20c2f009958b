"""Data and training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import sqzexplore as sqz
from sqzexplore.data.augment import draw, shifted
from sqzexplore.data.images import ImageData, Split, load
from sqzexplore.data.open import open_data
from sqzexplore.errors import FeatureMapVanishes
from sqzexplore.train import accuracy, loop
from sqzexplore.train.loop import fit
from sqzexplore.train.recipe import Recipe, rate

TINY = sqz.Architecture(width_multiplier=0.1, in_channels=1, num_classes=10)


def digits(image_size: int) -> ImageData:
    return load(open_data("digits"), image_size)


def test_digits_are_split_by_class_without_overlap() -> None:
    data = digits(8)  # not upsampled: the pixels can be recognised
    pixels, labels = load_digits(return_X_y=True)
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1077, 270, 450]
    stacked = torch.cat([part.images.flatten(1) for part in parts])
    assert sorted(map(tuple, (stacked / 255 * 16).round().int().tolist())) == sorted(
        map(tuple, pixels.astype(int).tolist())
    )
    for part in parts:
        share = np.bincount(part.labels, minlength=10) / len(part)
        assert np.abs(share - np.bincount(labels) / len(labels)).max() < 0.005
    train = data.train.images.double()
    assert data.mean.item() == pytest.approx(train.mean().item(), abs=1e-3)
    assert data.std.item() == pytest.approx(train.std(correction=0).item(), abs=1e-3)


def test_digits_are_upsampled() -> None:
    assert digits(32).train.images.shape == (1077, 32, 32, 1)
    assert torch.equal(digits(32).test.labels, digits(8).test.labels)


def test_a_network_learns_the_digits() -> None:
    """Far above chance (10%), on images that it has not seen; not so from shuffled labels."""
    architecture, data, recipe = TINY.replace(squeeze_ratio=1.0), digits(32), Recipe(epochs=10)
    _, run = fit(architecture, data, recipe, seed=0)
    assert run.top1 > 60
    assert run.val_top1 > 60
    assert [epoch.epoch for epoch in run.history] == list(range(1, 11))
    assert run.history[-1].train_loss < run.history[0].train_loss / 2
    labels = data.train.labels[torch.randperm(1077, generator=torch.Generator().manual_seed(0))]
    shuffled = replace(data, train=Split(data.train.images, labels))
    assert fit(architecture, shuffled, recipe, seed=0)[1].top1 < 30


def test_a_run_depends_on_its_seed_alone() -> None:
    torch.manual_seed(5)
    a = fit(TINY, digits(32), Recipe(epochs=1), seed=3)[1]
    torch.rand(7)
    before = torch.get_rng_state()
    b = fit(TINY, digits(32), Recipe(epochs=1), seed=3)[1]
    c = fit(TINY, digits(32), Recipe(epochs=1), seed=4)[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert (a.history, a.top1) == (b.history, b.top1)
    assert a.history != c.history


def test_the_test_split_is_used_once() -> None:
    """After the last epoch."""
    data = digits(32)
    seen: list[int] = []
    real = accuracy.guesses_on_device

    def spy(net, data, split):
        seen.append(len(split))
        return real(net, data, split)

    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, accuracy):  # both look it up
            patch.setattr(module, "guesses_on_device", spy)
        fit(TINY, data, Recipe(epochs=3), seed=0)
    assert seen == [270, 270, 270, 450, 270]


def test_accuracy_is_the_share_of_right_answers() -> None:
    """A network that always ranks 3, 7, 1, 0, 2 first."""

    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros(10)
            scores[[3, 7, 1, 0, 2]] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
            return scores.expand(len(x), 10)

    data = digits(8)
    labels = data.test.labels
    found = accuracy.guesses(Constant(), data, data.test)
    top1, top5 = found.top1, found.top5
    assert found.right.tolist() == (labels == 3).tolist()
    assert top1 == pytest.approx(100 * (labels == 3).sum().item() / len(labels))
    among = sum((labels == guess).sum().item() for guess in (0, 1, 2, 3, 7))
    assert top5 == pytest.approx(100 * among / len(labels))
    few = replace(data, classes=data.classes[:5])
    assert math.isnan(accuracy.guesses(Constant(), few, data.test).top5)


def test_evaluations_neither_multiply_as_tf32_nor_choose_algorithms() -> None:
    cudnn, seen = torch.backends.cudnn, list[tuple[bool, ...]]()

    class Looks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32))
            return torch.zeros(len(x), 10)

    data = digits(8)
    with cudnn.flags(deterministic=False, benchmark=True, allow_tf32=True):
        accuracy.guesses(Looks(), data, data.test)
        assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (False, True, True)
    assert set(seen) == {(True, False, False)}


def test_the_learning_rate_warms_up_and_decays() -> None:
    rates = [rate(Recipe(), step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 20)
    assert max(rates) == rates[19] == rates[20] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.02
    assert rate(Recipe(), 0, 1) > 0
    paper = [rate(Recipe(recipe="paper"), step, 100) for step in range(100)]
    assert paper == pytest.approx([1 - max(0, step - 0.5) / 99 for step in range(100)], abs=0.02)


@pytest.mark.parametrize("augmentation", ["shift", "shift_flip"])
def test_augmented_images_keep_their_pixels(augmentation: str) -> None:
    """Each is one of the shifts of its original, mirrored or not; all of them occur."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 16, 16, 3), generator=generator, dtype=torch.uint8)
    reach = 2 if augmentation == "shift_flip" else 1
    inner = slice(2 * reach, 16 - 2 * reach)
    seen = set()
    for _ in range(12):
        shifts = draw(len(images), 16, augmentation, generator)
        changed = shifted(images, torch.arange(32), shifts)
        assert changed.shape == images.shape
        for original, result in zip(images, changed, strict=True):
            found = [
                (dy, dx, flip)
                for flip in (False, True)
                for dy in range(-reach, reach + 1)
                for dx in range(-reach, reach + 1)
                if torch.equal(
                    (result.flip(1) if flip else result)[inner, inner],
                    original[
                        inner.start + dy : inner.stop + dy, inner.start + dx : inner.stop + dx
                    ],
                )
            ]
            assert len(found) == 1
            seen |= set(found)
    flips = 2 if augmentation == "shift_flip" else 1
    assert len(seen) == flips * (2 * reach + 1) ** 2
    assert draw(32, 16, "none", generator) is None
    assert torch.equal(shifted(images, torch.arange(32), None), images)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(FeatureMapVanishes, match="maxpool8"):
        fit(TINY, digits(16), Recipe(epochs=1), seed=0)


@pytest.mark.gpu
def test_training_on_a_gpu() -> None:
    data = digits(32).to(torch.device("cuda:0"))
    _, run = fit(TINY, data, Recipe(epochs=1), seed=0)
    assert math.isfinite(run.top1)
