"""What a step reads: the images, changes and masks that the generators of an epoch decide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sqzexplore.data.feed import Feed
from sqzexplore.data.images import Split
from sqzexplore.network.module import Dropout


def moved(image: np.ndarray, dx: int, dy: int, flip: bool) -> np.ndarray:
    """One H x W x C image: its frame moved by (dx, dy) over the mirrored plane, then mirrored."""
    height, width, _ = image.shape
    reach = max(abs(dx), abs(dy), 1)
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    part = wide[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
    return part[:, ::-1] if flip else part


def expected(
    split: Split, order: torch.Tensor, batch: int, augmentation: str, generator: torch.Generator
) -> list[tuple[np.ndarray, list[int]]]:
    """The batches of an epoch, drawn batch by batch as they are wanted, image by image."""
    width = split.images.shape[2]
    reach = max(1, width // (8 if augmentation == "shift_flip" else 16))
    batches = []
    for index in order.split(batch):
        images = [split.images[i].numpy() for i in index]
        if augmentation != "none":
            dx, dy = torch.randint(-reach, reach + 1, (2, len(index), 1), generator=generator)
            flips = torch.zeros(len(index), 1)
            if augmentation == "shift_flip":
                flips = torch.rand(len(index), 1, generator=generator) < 0.5
            shifts = zip(images, dx[:, 0].tolist(), dy[:, 0].tolist(), flips[:, 0], strict=True)
            images = [moved(image, x, y, bool(flip)) for image, x, y, flip in shifts]
        batches.append((np.stack(images), split.labels[index].tolist()))
    return batches


@given(
    count=st.integers(1, 23),
    batch=st.integers(1, 9),
    size=st.integers(8, 20),
    channels=st.sampled_from([1, 3]),
    augmentation=st.sampled_from(["none", "shift", "shift_flip"]),
    seed=st.integers(0, 2**31),
)
def test_a_pass_gives_what_batch_by_batch_drawing_gives(
    count: int, batch: int, size: int, channels: int, augmentation: str, seed: int
) -> None:
    """Also in the second epoch, which is written in the place of the first."""
    mixed = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, size, size, channels), generator=mixed).byte()
    split = Split(images, torch.arange(count))
    feed = Feed(split, count, batch, augmentation)
    for epoch in range(2):
        order = torch.randperm(count, generator=mixed)
        ours, theirs = (torch.Generator().manual_seed(seed + epoch) for _ in range(2))
        feed.draw(order, ours)
        got = [feed.whole(torch.tensor([at])) for at in range(feed.steps)]
        got += [feed.last()] if feed.rest else []
        wanted = expected(split, order, batch, augmentation, theirs)
        assert len(got) == len(wanted)
        for (pictures, labels), (other, numbers) in zip(got, wanted, strict=True):
            assert labels.tolist() == numbers
            assert np.array_equal(pictures.numpy(), other)
        assert torch.equal(ours.get_state(), theirs.get_state())


def test_masks_come_from_their_own_generator() -> None:
    """Neither torch's global state nor another network's masks have a part in them."""
    images = torch.ones(64, 10, 3, 3)
    masks = []
    for disturbed in (False, True):
        dropout = Dropout(0.25).train()
        dropout.generator = torch.Generator().manual_seed(5)
        if disturbed:
            torch.rand(7)
            Dropout(0.5).train()(images)
        before = torch.get_rng_state()
        masks.append([dropout(images), dropout(images)])
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))
    first, second = masks[0]
    assert not torch.equal(first, second)
    assert first.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert torch.equal(dropout.eval()(images), images)
