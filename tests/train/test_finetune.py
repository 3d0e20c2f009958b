"""Networks pruned, shared and trained on: against autograd, their own files, and a whole sweep."""

from __future__ import annotations

import base64
import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers.sweeps import run
from sqzexplore.cli.app import app
from sqzexplore.compress.network import Compressed, kernels_of, layers_of
from sqzexplore.compress.settings import Compression
from sqzexplore.data.images import ImageData, load
from sqzexplore.data.open import open_data
from sqzexplore.errors import UserError
from sqzexplore.evaluation.checkpoints import evaluate
from sqzexplore.network.module import SqueezeNet
from sqzexplore.published import alexnet_params
from sqzexplore.results.folder import load_results
from sqzexplore.results.tables import TABLES
from sqzexplore.spec.load import parse_spec
from sqzexplore.train.accuracy import guesses
from sqzexplore.train.checkpoint import notes
from sqzexplore.train.finetune import CompressedRun, Pruned, Shared, deep_compression, finished
from sqzexplore.train.loop import Training, fit
from sqzexplore.train.recipe import Recipe

ARCHITECTURE = sqz.Architecture(
    width_multiplier=0.125, fires=3, pool_after=(1, 3), stem_kernel=3, dropout=0.0,
    in_channels=1, num_classes=10, batch_norm=True,
)  # fmt: skip
RECIPE = Recipe(epochs=12, batch_size=32)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load(open_data("digits"), 16)


@pytest.fixture(scope="module")
def trained(data: ImageData) -> SqueezeNet:
    net, found = fit(ARCHITECTURE, data, RECIPE, 0)
    assert found.top1 > 50
    return net


def compressed(
    net: SqueezeNet, data: ImageData, *setting: float, seed: int = 0
) -> tuple[Compressed, CompressedRun]:
    density, bits, epochs = setting
    asked = Compression(density, int(bits), int(epochs))
    done = finished(deep_compression(net, data, RECIPE, seed, asked))
    return done.compressed, done.run


def test_what_is_pruned_stays_zero_and_the_rest_is_trained(trained, data):
    net = copy.deepcopy(trained)
    limits = Pruned(net, 0.3)
    before = {name: kernel.detach().clone() for name, kernel in kernels_of(net).items()}
    training = Training(net.architecture, data, Recipe(epochs=2), 0, net=net, limits=limits)
    while training.turn():
        pass
    for name, kernel in kernels_of(net).items():
        survives = before[name] != 0
        assert survives.sum() == max(1, round(0.3 * kernel.numel()))
        assert (kernel[~survives] == 0).all()
        assert (kernel[survives] != before[name][survives]).float().mean() > 0.9


def test_a_centroid_moves_by_the_sum_of_its_weights_gradients(trained, data):
    """By autograd, through a network whose kernels are made of the codebooks."""
    net = copy.deepcopy(trained).train()
    layers = layers_of(net, Compression(0.5, 3))
    shared = Shared(net, layers)
    images, labels = (
        data.train.images[:16].float().permute(0, 3, 1, 2) / 255,
        data.train.labels[:16],
    )
    F.cross_entropy(net(images), labels.long()).backward()
    shared.take_gradients()

    twin = copy.deepcopy(trained).train()
    books = {
        n: nn.Parameter(torch.from_numpy(layer.centroids.copy())) for n, layer in layers.items()
    }
    weights = dict(twin.named_parameters())
    for name, layer in layers.items():
        mask = torch.from_numpy(layer.mask)
        index = torch.zeros(mask.shape, dtype=torch.int64)
        index[mask] = torch.from_numpy(layer.index)
        weights[name] = books[name][index] * mask
    logits = torch.func.functional_call(twin, weights, (images,))
    F.cross_entropy(logits, labels).backward()
    for mine, book in zip(shared.weights, books.values(), strict=False):
        assert book.grad is not None
        torch.testing.assert_close(mine.grad, book.grad, rtol=1e-4, atol=1e-6)
    others = [w for n, w in twin.named_parameters() if n not in layers]
    for mine, its in zip(shared.weights[len(books) :], others, strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-6)


def test_the_file_holds_what_was_evaluated(trained, data, tmp_path):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    done, found = compressed(trained, data, 0.4, 4, 2)
    assert all(torch.equal(before[n], t) for n, t in trained.state_dict().items())
    (tmp_path / "file").write_bytes(done.content)
    loaded = sqz.load(tmp_path / "file")
    assert evaluate(loaded, data, "test").top1 == found.compressed_top1
    right = np.unpackbits(np.frombuffer(base64.b64decode(found.right), np.uint8))
    assert (right[: len(data.test)] == guesses(loaded, data, data.test).right).all()
    assert evaluate(loaded, data, "validation").top1 == found.compressed_val_top1
    for kernel in kernels_of(loaded).values():
        assert len(kernel[kernel != 0].unique()) <= 2**4
        assert (kernel != 0).sum() <= round(0.4 * kernel.numel())
    assert found.compressed_mb == len(done.content) / 1e6
    assert found.float32_mb == 4 * sqz.cost(ARCHITECTURE, 16).params / 1e6
    assert notes(tmp_path / "file")["finetune_epochs"] == 2
    assert compressed(trained, data, 0.4, 4, 2)[0].content == done.content
    assert compressed(trained, data, 0.4, 4, 2, seed=1)[0].content != done.content


def test_retraining_saves_what_pruning_costs(trained, data):
    without = compressed(trained, data, 0.5, 5, 0)[1].compressed_top1
    assert without + 15 < compressed(trained, data, 0.5, 5, 3)[1].compressed_top1


SWEEP = """\
name: small
base: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3], stem_kernel: 3, batch_norm: true}
space: {squeeze_ratio: [0.25, 1.0]}
input_size: 32
measure:
  accuracy: {data: digits, image_size: 16, epochs: [1, 2], batch_size: 128, seeds: 2}
"""
ASKED = "  compression: {density: [1.0, 0.4], bits: [6, 4], finetune_epochs: 1}\n"


def test_a_sweep_compresses_every_network_of_its_largest_budget(tmp_path: Path) -> None:
    _, progress = run(SWEEP + ASKED, tmp_path / "one")
    assert progress.units == pytest.approx(progress.total)
    rows = load_results(tmp_path / "one", "compression")
    assert list(pd.read_csv(tmp_path / "one" / "compression.csv")) == list(TABLES["compression"])
    assert len(rows) == 2 * 2 * 2
    assert set(rows["epochs"]) == {2}
    seeds = load_results(tmp_path / "one", "seeds").query("epochs == 2")
    merged = rows.merge(seeds[["trial", "seed", "top1"]], on=["trial", "seed"], validate="m:1")
    drop = merged["top1"] - merged["compressed_top1"]
    assert (merged["compressed_drop"] - drop).abs().max() < 1e-9
    # Of 450 test images: what was lost less what was gained is the drop.
    assert ((rows["lost"] - rows["gained"]) / 4.5 - rows["compressed_drop"]).abs().max() < 1e-9
    ratio = 4 * alexnet_params() / 1e6 / rows["compressed_mb"]
    assert (rows["alexnet_ratio"] - ratio).abs().max() < 1e-9
    trials = load_results(tmp_path / "one").set_index("trial")
    last = rows[rows["density"] == 0.4].groupby("trial")
    for name in ("compressed_mb", "compressed_top1", "compressed_drop"):
        pd.testing.assert_series_equal(trials[name], last[name].mean(), check_dtype=False)
    assert (trials["compressed_drop_ci_low"] < trials["compressed_drop"]).all()
    assert (trials["compressed_drop"] < trials["compressed_drop_ci_high"]).all()

    # The same for a sweep that asks for it only later.
    run(SWEEP, tmp_path / "later")
    run(SWEEP + ASKED, tmp_path / "later")
    for table in ("compression", "seeds", "images"):
        one, later = (load_results(tmp_path / name, table) for name in ("one", "later"))
        keys = [k for k in ("trial", "seed", "epochs", "density", "split") if k in one]
        one, later = (
            each.drop(columns=["duration_s"], errors="ignore").sort_values(keys, ignore_index=True)
            for each in (one, later)
        )
        pd.testing.assert_frame_equal(one, later)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SWEEP + ASKED.replace("[6, 4]", "[6]"), "found 1 values, expected 2, one for each"),
        (SWEEP + ASKED.replace("[1.0, 0.4]", "[0.4, 0.4]").replace("[6, 4]", "[6, 6]"), "twice"),
        (SWEEP + ASKED.replace("0.4", "0"), "expected a number > 0"),
        (SWEEP + ASKED.replace("6, 4", "9, 4"), "expected a whole number, at most 8|<= 8"),
        (SWEEP.split("  accuracy")[0] + ASKED, "expected measure.accuracy beside it"),
    ],
)
def test_settings_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_spec(text)


def test_the_verb_retrains(trained, data, tmp_path):
    command = ["train", "squeezenet1_1", "--data", "digits", "--epochs", "1"]
    for change in ("width_multiplier=0.1", "fires=3", "pool_after=[1,3]", "batch_norm=true"):
        command += ["--set", change]
    folder = tmp_path / "net"
    done = CliRunner().invoke(app, [*command, "--image-size", "16", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    to = tmp_path / "small"
    asked = ["compress", str(folder), "--density", "0.5", "--bits", "5", "--to", str(to)]
    done = CliRunner().invoke(app, [*asked, "--data", "digits", "--finetune-epochs", "1"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    top1 = evaluate(sqz.load(to), data, "test").top1
    assert f"digits, test top-1 {top1:.2f}%" in said
    assert notes(to)["finetune_epochs"] == 1
    to.unlink()
    for wrong, message in (
        (["--finetune-epochs", "1"], "expected --data DATA beside it"),
        (["--data", str(tmp_path / "nowhere")], "--data"),
    ):
        refused = CliRunner().invoke(app, [*asked, *wrong])
        assert refused.exit_code != 0
        assert message in str(refused.exception)
        assert not to.exists()
