"""`evaluate`: trained weights, ours and torch's, on a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import independent
from sqzexplore.cli.app import app
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.errors import UserError
from sqzexplore.train import checkpoint
from sqzexplore.train.loop import fit
from sqzexplore.train.recipe import Recipe

SMALL = sqz.Architecture(
    width_multiplier=0.1, fires=3, pool_after=(1, 3), in_channels=1, num_classes=10
)


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    data = load(open_data("digits"), 32)
    net, run = fit(SMALL, data, Recipe(epochs=2, batch_size=32, learning_rate=0.01), 0)
    file = tmp_path_factory.mktemp("net") / "model.safetensors"
    notes = {"mean": data.mean.tolist(), "std": data.std.tolist(), "image_size": 32}
    checkpoint.save(net, file, notes)
    return file, run


def test_the_accuracy_is_that_of_the_training(trained: tuple[Path, object]) -> None:
    file, run = trained
    for split, top1, count in (("test", run.top1, 450), ("validation", run.val_top1, 270)):
        done = invoke(file, "--data", "digits", "--split", split, "--json")
        assert done.exit_code == 0, done.output
        found = json.loads(done.output)
        assert (found["top1"], found["images"]) == (pytest.approx(top1), count)
        right = round(top1 * count / 100)
        low, high = stats.binomtest(right, count).proportion_ci(method="wilson")
        assert (found["top1_low"], found["top1_high"]) == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize("nested", [None, "state_dict", "module"])
def test_weights_that_torch_wrote(
    nested: str | None, trained: tuple[Path, object], tmp_path: Path
) -> None:
    """As training scripts save them: alone, nested, or of a DataParallel network."""
    net = sqz.load(trained[0])
    weights = dict(net.state_dict())
    if nested == "module":
        weights = {f"module.{name}": value for name, value in weights.items()}
    file = tmp_path / "weights.pth"
    torch.save({nested: weights} if nested == "state_dict" else weights, file)
    again = sqz.load(file, SMALL)
    images = torch.randn(3, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(images), net(images))


def test_another_definitions_weights_give_its_answers(tmp_path: Path) -> None:
    """v1.1, with torchvision's names, as the tests write it by themselves."""
    theirs = independent.network(sqz.preset("squeezenet1_1")).eval()
    file = tmp_path / "squeezenet1_1.pth"
    torch.save(theirs.state_dict(), file)
    ours = sqz.load(file, sqz.preset("squeezenet1_1"))
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.pth", b"no pickle", "no readable file of weights"),
        ("b.pth", None, "no such file"),
        ("c.safetensors", b"no tensors", "no readable checkpoint"),
    ],
)
def test_files_that_hold_no_network(
    name: str, content: bytes | None, expected: str, tmp_path: Path
) -> None:
    if content:
        (tmp_path / name).write_bytes(content)
    done = invoke(tmp_path / name, "--data", "digits", "--preset", "squeezenet1_1")
    assert isinstance(done.exception, UserError)
    assert expected in str(done.exception)


def test_channels_of_weights_and_images(tmp_path: Path) -> None:
    """Grey weights without notes see grey images by the mean of ImageNet's constants."""
    torch.save(sqz.build(SMALL).state_dict(), tmp_path / "grey.pth")
    where = (tmp_path / "grey.pth", "--data", "digits", "--image-size", 32)
    base = ("width_multiplier=0.1", "fires=3", "pool_after=1,3", "in_channels=1", "num_classes=10")
    changed = [part for each in base for part in ("--set", each)]
    done = invoke(*where, "--preset", "squeezenet1_0", *changed)
    assert done.exit_code == 0, done.output or done.exception
    colour = SMALL.replace(in_channels=3)
    notes = {"mean": [120.0] * 3, "std": [60.0] * 3, "image_size": 32}
    checkpoint.save(sqz.build(colour), tmp_path / "colour", notes)
    torch.save(sqz.build(colour).state_dict(), tmp_path / "colour.pth")
    changed[changed.index("in_channels=1")] = "in_channels=3"
    other = (tmp_path / "colour.pth", *where[1:], "--preset", "squeezenet1_0", *changed)
    for arguments in ((tmp_path / "colour", *where[1:]), other):
        refused = invoke(*arguments)
        assert isinstance(refused.exception, UserError), refused.exception
        assert "digits: found images of 1 channels, expected the network's 3" in str(
            refused.exception
        )


def test_what_would_be_evaluated_wrongly_is_refused(
    trained: tuple[Path, object], tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    torch.save(sqz.build(SMALL).state_dict(), file)
    for arguments, expected in (
        ((file, "--data", "digits"), "expected an architecture with them"),
        ((file, "--data", "digits", "--preset", "squeezenet1_0"), "does not fit the architecture"),
        ((trained[0], "--data", "digits", "--preset", "squeezenet1_0"), "found network"),
        ((trained[0], "--data", "digits", "--split", "dev"), "--split: found 'dev'"),
        ((trained[0], "--data", "digits", "--set", "fires=2"), "--set: expected --preset"),
        ((trained[0], "--data", "fashoin"), "--data: "),
    ):
        done = invoke(*arguments)
        assert isinstance(done.exception, UserError), arguments
        assert expected in str(done.exception)
    evil = tmp_path / "evil.pth"
    torch.save({"a": np.float64}, evil)  # a pickle of more than tensors
    with pytest.raises(UserError, match="no readable file of weights"):
        sqz.load(evil, SMALL)
