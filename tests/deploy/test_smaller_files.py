"""The compressed and the quantised file of an export: run by others, and what the card says."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers.once import once
from helpers.sweeps import run
from sqzexplore.cli.app import app
from sqzexplore.compress.settings import Compression
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.deploy import smaller
from sqzexplore.deploy.smaller import setting_of
from sqzexplore.errors import UserError
from sqzexplore.evaluation.checkpoints import evaluate
from sqzexplore.spec.load import parse_spec
from sqzexplore.train import checkpoint

SWEEP = """\
name: small
base: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3], stem_kernel: 3, batch_norm: true}
space: {squeeze_ratio: [0.25]}
input_size: 32
measure:
  accuracy: {data: digits, image_size: 32, epochs: 4, batch_size: 64, seeds: 1}
"""
COMPRESSION = "  compression: {density: [0.5, 0.7], bits: [6, 6], finetune_epochs: 1}\n"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "exported", export)


def export(place: Path) -> None:
    run(SWEEP, place / "sweep")
    options = ["--pick", "0", "--to", str(place / "to"), "--checkpoint", str(place / "net")]
    options += ["--train", "--compress", "6", "--quantize", "int8"]
    done = CliRunner().invoke(app, ["export", str(place / "sweep"), *options])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "model.sqz: 0.00" in said
    assert "model.int8.onnx: 0.0" in said


def test_both_files_do_what_the_card_says(exported: Path) -> None:
    to, data = exported / "to", load(open_data("digits"), 32)
    card = (to / "MODEL_CARD.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line for line in card.splitlines()}
    float32 = evaluate(sqz.load(exported / "net"), data, "test").top1

    small = to / "model.sqz"
    top1 = evaluate(sqz.load(small), data, "test").top1
    assert f"{small.stat().st_size:,} | {top1:.2f}% | {float32 - top1:.2f}" in rows["model.sqz"]
    assert "density 0.33, 6 bits, fine-tuned for 8 epochs" in rows["model.sqz"]

    # By another program, on bytes / 255.
    file = to / "model.int8.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = data.test.images.permute(0, 3, 1, 2).float().numpy() / 255
    (logits,) = session.run(["logits"], {"images": images})
    top1 = 100 * float((logits.argmax(1) == data.test.labels.numpy()).mean())
    assert (
        f"{file.stat().st_size:,} | {top1:.2f}% | {float32 - top1:.2f}" in rows["model.int8.onnx"]
    )
    whole = onnxruntime.InferenceSession(str(to / "model.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = whole.run(["logits"], {"images": images})
    same = 100 * float((logits.argmax(1) == expected.argmax(1)).mean())
    said = float(rows["model.int8.onnx"].split("|")[-2].strip(" %"))
    assert said == pytest.approx(same, abs=1.0)  # sums of integers in other batches may saturate
    assert same > 90


def test_litert_is_named_where_it_is_missing(exported: Path) -> None:
    if importlib.util.find_spec("litert_torch"):
        pytest.skip("LiteRT's converter is installed")
    to = exported / "nowhere"
    with pytest.raises(UserError, match="--litert needs litert_torch: pip install litert-torch"):
        sqz.export(exported / "sweep", 0, to, exported / "net", litert=True)
    with pytest.raises(UserError, match="--litert: expected --checkpoint too"):
        sqz.export(exported / "sweep", 0, to, litert=True)
    assert not to.exists()


def test_litert_takes_and_gives_the_same(exported: Path) -> None:
    pytest.importorskip("litert_torch", reason="needs pip install litert-torch")
    to = exported / "litert"
    done = sqz.export(exported / "sweep", 0, to, exported / "net", litert=True)
    names = {"model.tflite": 99.0, "model.int8.tflite": 85.0}
    assert [small.name for small in done.smaller] == [*names]
    for small in done.smaller:
        assert small.bytes == (to / small.name).stat().st_size
        assert small.agreement > names[small.name]


def test_how_far_is_what_the_sweep_measured_with_as_many_bits() -> None:
    spec = parse_spec(SWEEP + COMPRESSION)
    assert setting_of(spec, 6) == Compression(0.7, 6, 1)
    assert setting_of(spec, 5) == Compression(0.33, 5, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compress", "9"], "--compress: found 9, expected 1 to 8 bits"),
        (["--quantize", "int4"], "--quantize: found 'int4', expected int8"),
    ],
)
def test_what_cannot_be_asked_for(options: list[str], message: str, exported: Path) -> None:
    to = exported / "nowhere"
    for given in ([*options, "--checkpoint", str(exported / "net")], options):
        command = ["export", str(exported / "sweep"), "--pick", "0", "--to", str(to), *given]
        refused = CliRunner().invoke(app, command)
        assert message in str(refused.exception)
    assert not to.exists()
    with pytest.raises(UserError, match="--quantize: expected --checkpoint too"):
        sqz.export(exported / "sweep", 0, to, quantize="int8")


def test_other_images_and_other_integers_leave_nothing(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"
    net, notes = sqz.load(exported / "net"), checkpoint.notes(exported / "net")
    checkpoint.save(net, tmp_path / "other.safetensors", notes | {"data_sha256": "of others"})
    with pytest.raises(UserError, match="with checksum of others, found digits"):
        sqz.export(exported / "sweep", 0, to, tmp_path / "other.safetensors", compress=6)
    shutil.copytree(exported / "net", tmp_path / "net")

    class Wrong(smaller.InRuntime):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return logits if self.integers else logits + 1

        def __init__(self, content: bytes, integers: bool = True) -> None:
            super().__init__(content, integers)
            self.integers = integers

    monkeypatch.setattr(smaller, "InRuntime", Wrong)
    monkeypatch.setattr(smaller, "_TOLERANCE", 1e-3)
    with pytest.raises(smaller.ExportMismatch, match=r"model\.int8\.onnx: integers differ by"):
        sqz.export(exported / "sweep", 0, to, tmp_path / "net", quantize="int8")
    assert not to.exists()
