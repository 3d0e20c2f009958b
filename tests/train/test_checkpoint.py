"""Trained networks on disk, and trainings that are killed and go on."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import independent
from helpers.command_line import Started
from sqzexplore import provenance
from sqzexplore.cli.app import app
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.errors import UserError
from sqzexplore.train import checkpoint
from sqzexplore.train.loop import Epoch, Training, fit, lead
from sqzexplore.train.recipe import Recipe

TINY = sqz.Architecture(width_multiplier=0.1, in_channels=1, num_classes=10, bypass="complex")
TRAIN = ["train", "--set", "width_multiplier=0.1", "--set", "batch_norm=true", "--epochs", "6"]


class Stop(Exception):
    pass


@pytest.mark.parametrize(("recipe", "batch_norm"), [("default", False), ("paper", True)])
def test_interrupted_after_any_epoch_and_resumed(
    recipe: str, batch_norm: bool, tmp_path: Path
) -> None:
    """Weights, BatchNorm's statistics and every number are those of an uninterrupted training."""
    architecture = TINY.replace(batch_norm=batch_norm)
    data, how = load(open_data("digits"), 32), Recipe(recipe=recipe, epochs=4)
    whole, expected = fit(architecture, data, how, 3)
    for stop_after in (1, 3):

        def stop(epoch: Epoch, at: int = stop_after) -> None:
            if epoch.epoch == at:
                raise Stop

        file = tmp_path / f"{stop_after}.safetensors"
        with pytest.raises(Stop):
            fit(architecture, data, how, 3, stop, file)
        epochs: list[int] = []
        net, run = fit(architecture, data, how, 3, lambda e: epochs.append(e.epoch), file)  # noqa: B023
        assert epochs == list(range(stop_after + 1, 5))
        assert (run.history, run.top1, run.top5) == (expected.history, expected.top1, expected.top5)
        for name, tensor in whole.state_dict().items():
            assert torch.equal(net.state_dict()[name], tensor), name


def test_a_killed_training_gives_the_network_of_an_undisturbed_one(tmp_path: Path, sqz) -> None:
    """SIGKILL twice, after one epoch and after three, in a real process."""
    folder = tmp_path / "killed"
    for epochs in (1, 3):
        process = Started(*TRAIN, "--device", "cpu", "--out", folder)
        deadline = time.monotonic() + 120
        while _epochs_kept(folder) < epochs and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (folder / checkpoint.MODEL_FILE).exists()
    assert _epochs_kept(folder) < 6
    resumed = sqz(*TRAIN, "--device", "cpu", "--out", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 1/6" not in resumed.stdout
    assert "epoch 6/6" in resumed.stdout
    done = CliRunner().invoke(
        app, [*TRAIN, "--device", "cpu", "--out", str(tmp_path / "undisturbed")]
    )
    assert done.exit_code == 0, done.output
    assert "epoch 1/6" in done.output
    ours, theirs = (
        load_file(tmp_path / n / checkpoint.MODEL_FILE) for n in ("killed", "undisturbed")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [file.name for file in folder.iterdir()] == [checkpoint.MODEL_FILE]
    again = CliRunner().invoke(app, [*TRAIN, "--device", "cpu", "--out", str(folder)])
    assert again.exit_code == 0
    assert "epoch" not in again.output.replace("6 epochs", "")


def _epochs_kept(folder: Path) -> int:
    try:
        with safe_open(folder / "unfinished.safetensors", "pt") as file:
            return len(json.loads(file.metadata()["notes"])["history"])
    except (FileNotFoundError, OSError):
        return 0


def test_a_loaded_network_answers_as_the_trained_one(tmp_path: Path) -> None:
    options = [*TRAIN[:-1], "2", "--out", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    net, notes = sqz.load(tmp_path), checkpoint.notes(tmp_path)
    assert not net.training
    assert net.architecture.batch_norm
    data = load(open_data("digits"), 32)
    mean, std = torch.tensor(notes["mean"]), torch.tensor(notes["std"])
    images = ((data.test.images.float() - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = net(images)
    rounding = 1e-5 * logits.abs().max().item()
    low, high = independent.accuracy_between(logits, data.test.labels, rounding)
    assert low - 1e-3 <= notes["top1"] <= high + 1e-3
    assert high - low < 5, "what rounding may change is little"
    assert f"{notes['top1']:.2f}%" in done.output
    assert notes["classes"] == list("0123456789")
    assert notes["data_sha256"] == data.sha256
    assert len(notes["history"]) == 2


def test_files_that_hold_no_network(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        sqz.load(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match="no readable checkpoint"):
        sqz.load(tmp_path / "text")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other")
    with pytest.raises(UserError, match="no network of sqzexplore"):
        sqz.load(tmp_path / "other")
    checkpoint.save(sqz.build(TINY), tmp_path / "good", {})
    whole = (tmp_path / "good").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no readable checkpoint"):
        sqz.load(tmp_path / "cut")
    assert sqz.load(tmp_path / "good").architecture == TINY


def test_another_training_in_the_folder_is_refused(tmp_path: Path) -> None:
    options = [*TRAIN[:-1], "1", "--out", str(tmp_path), "--device", "cpu"]
    assert CliRunner().invoke(app, options).exit_code == 0
    before = (tmp_path / checkpoint.MODEL_FILE).read_bytes()
    refused = CliRunner().invoke(app, [*options, "--seed", "1"])
    assert isinstance(refused.exception, UserError)
    assert "holds another training: seed 0 there, 1 here" in str(refused.exception)
    refused = CliRunner().invoke(app, [*options, "--set", "squeeze_ratio=0.5"])
    assert "another training: squeeze_ratio 0.125 there, 0.5 here" in str(refused.exception)
    assert (tmp_path / checkpoint.MODEL_FILE).read_bytes() == before
    recipe, data = Recipe(epochs=2), load(open_data("digits"), 32)

    def stop(epoch: Epoch) -> None:
        raise Stop

    with pytest.raises(Stop):
        fit(TINY, data, recipe, 0, stop, tmp_path / "state")
    with pytest.raises(UserError, match="another training: seed 0 there, 1 here"):
        fit(TINY, data, recipe, 1, unfinished=tmp_path / "state")
    # A sweep, which does a finished training anew too where it is another one, begins anew.
    assert len(lead(TINY, data, recipe, 0, unfinished=tmp_path / "state").history) == 1
    assert lead(TINY, data, recipe, 1, unfinished=tmp_path / "state").history == []


def test_a_training_goes_on_on_another_device_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the images in a folder of another name: they are known by their checksum."""
    recipe, data = Recipe(epochs=2), load(open_data("digits"), 32)
    whole, _ = fit(TINY, data, recipe, 0)

    def stop(epoch: Epoch) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "device_name", lambda device: "a rented GPU")
        with pytest.raises(Stop):
            fit(TINY, data, recipe, 0, stop, tmp_path / "state")
    training = Training(TINY, replace(data, name="moved"), recipe, 0, unfinished=tmp_path / "state")
    assert len(training.history) == 1
    while training.turn():
        pass
    here = provenance.device_name("cpu")
    assert training.device_name == f"a rented GPU + {here}"
    ours, theirs = training.net.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    again = Training(TINY, data, recipe, 0, unfinished=tmp_path / "state")
    assert again.device_name == f"a rented GPU + {here}", "each once"
