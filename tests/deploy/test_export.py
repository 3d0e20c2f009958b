"""Exported files against a second implementation and what the tables say; picks; whole or not."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import ROOT, independent
from helpers.once import once
from helpers.strategies import architectures
from helpers.sweeps import SMALL_BASE, UNTIMED, run
from sqzexplore.cli.app import app
from sqzexplore.cli.progress import Live
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.deploy.artifacts import Classifier, ExportMismatch, write_programs
from sqzexplore.deploy.export import train_picked
from sqzexplore.errors import FeatureMapVanishes, UserError
from sqzexplore.files import replacing_folder
from sqzexplore.results.selection import pick
from sqzexplore.spec.load import load_spec
from sqzexplore.train import checkpoint

SR = ROOT / "results" / "sr"
LABELS = {"name": "a network", "weights": "random ones"}
SMALLEST = sqz.Architecture(
    fires=1, pool_after=(1,), base_expand=4, stem_width=3, stem_kernel=3, num_classes=3
)


def run_onnx(folder: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    return session.run(["logits"], {"images": images})[0]


def shaken(architecture: sqz.Architecture) -> nn.Module:
    """A network in which every weight, bias and statistic matters."""
    net = sqz.build(architecture)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.add_(noise if name.endswith("running_var") else (noise - 0.4) / 4)
        net.classifier[1].bias.add_(1.0)  # no logit is cut off by the last ReLU in every image
    return net.eval()


def compare_with_independent(architecture: sqz.Architecture, size: int, folder: Path) -> None:
    """Both files, in batches that the export never saw, against the second implementation."""
    net = shaken(architecture)
    check = write_programs(Classifier(net).eval(), architecture.in_channels, size, LABELS, folder)
    assert check.largest_logit > 1e-2
    reference = independent.with_weights(architecture, net.state_dict())
    program = torch.export.load(folder / "model.pt2").module()
    for count in (1, 5):
        images = torch.randn(count, architecture.in_channels, size, size)
        with torch.no_grad():
            expected, of_program = reference(images), program(images)
        allowed = 1e-4 * expected.abs().max().item() + 1e-6
        of_onnx = torch.from_numpy(run_onnx(folder, images.numpy()))
        for found in (of_onnx, of_program):
            assert found.shape == (count, architecture.num_classes)
            assert (found - expected).abs().max().item() <= allowed


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 5),  # pooled from 2x2 to 1x1: narrower than the pool's kernel
        ({"pool_after": (1, 2), "batch_norm": True, "fraction_3x3": 0.0}, 19),
        ({"fraction_3x3": 1.0, "bypass": "complex", "batch_norm": True, "in_channels": 1}, 32),
        (
            {"fires": 3, "bypass": "simple", "fire3.expand_filters": 5, "fire4.bypass": "complex"},
            33,
        ),
        ({"stem_padding": 3, "stem_stride": 3, "stem_kernel": 7, "pool_after": ()}, 16),
    ],
)
def test_corners_of_the_space(changes: dict, size: int, tmp_path: Path) -> None:
    compare_with_independent(SMALLEST.replace(**changes), size, tmp_path)


@settings(max_examples=3, deadline=None, phases=[Phase.generate])
@given(architectures(max_fires=4))
def test_any_architecture(
    tmp_path_factory: pytest.TempPathFactory, architecture: sqz.Architecture
) -> None:
    size = 37
    try:
        architecture.check_input_size(size)
    except FeatureMapVanishes:
        assume(False)
    compare_with_independent(architecture, size, tmp_path_factory.mktemp("any"))


# --- which trial -------------------------------------------------------------------------------


def test_picks_are_what_the_tables_say() -> None:
    for folder in (SR, ROOT / "results" / "cifar10-joint"):
        spec, trials = load_spec(folder / "spec.yaml"), sqz.load_results(folder)
        said = CliRunner().invoke(app, ["results", str(folder)]).output
        knee = pick(spec, trials, "knee")
        assert f"knee of the front: trial {knee['trial']}," in said
        best = pick(spec, trials, "best")
        assert best["trial"] == max(zip(trials["val_top1"], trials["trial"], strict=True))[1]
        for number in (3, "3"):
            assert pick(spec, trials, number)["trial"] == 3


def test_the_best_of_equals_is_the_smallest_and_meets_the_constraints() -> None:
    spec, trials = load_spec(SR / "spec.yaml"), sqz.load_results(SR)
    trials["val_top1"] = [90.0, 95.0, 95.0, 99.0, 99.5]
    trials["feasible"] = [True, True, True, False, True]
    trials.loc[4, "state"] = "diverged"
    assert pick(spec, trials.sort_values("trial", ascending=False), "best")["trial"] == 1
    assert pick(spec, trials, 3)["trial"] == 3


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("5", "found 5, expected the number of a trial, 0 to 4; the nearest is 4"),
        ("kne", "found 'kne', expected knee, best or the number of a trial, 0 to 4; did you mean"),
        ("-1", "found '-1', expected knee, best or the number of a trial, 0 to 4$"),
    ],
)
def test_a_pick_that_names_nothing(choice: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pick(load_spec(SR / "spec.yaml"), sqz.load_results(SR), choice)


def test_picks_of_a_sweep_without_accuracy_or_knee(tmp_path: Path) -> None:
    text = "name: costs\nspace: {squeeze_ratio: [0.125, 0.5]}"
    run(text, tmp_path / "costs")
    folder = tmp_path / "costs"
    spec, trials = load_spec(folder / "spec.yaml"), sqz.load_results(folder)
    with pytest.raises(UserError, match=r"found no accuracy .*, expected knee or the number of a"):
        pick(spec, trials, "best")
    with pytest.raises(UserError, match=r"expected at least 3.*macs, params.*choose the number of"):
        pick(spec, trials, "knee")
    with pytest.raises(UserError, match="the sweep costs has no trial yet"):
        pick(spec, trials.head(0), 0)
    with pytest.raises(
        UserError, match=r"found 1, .* 0 to 2 \(there are 2 of these\); the nearest"
    ):
        pick(spec, trials.assign(trial=[0, 2]), 1)
    with pytest.raises(UserError, match="--train: the sweep costs measures no accuracy"):
        train_picked(
            folder, 0, tmp_path / "c", torch.device("cpu"), partial(Live, Console(quiet=True))
        )


# --- an untrained trial ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        to = folder / "new" / "sr"
        done = CliRunner().invoke(app, ["export", str(SR), "--pick", "1", "--to", str(to)])
        assert done.exit_code == 0, done.output
        assert "UNTRAINED" in done.output
        for name in ("model.onnx", "model.pt2", "MODEL_CARD.md"):
            assert f"written: {to / name}" in done.output
        assert sorted(path.name for path in to.parent.iterdir()) == ["sr"]

    return once(tmp_path_factory, "untrained", make) / "new" / "sr"


def test_an_untrained_trial_says_so_everywhere(untrained: Path) -> None:
    assert "\n> **UNTRAINED" in (untrained / "MODEL_CARD.md").read_text()
    graph = onnx.load(untrained / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    props = {prop.key: prop.value for prop in graph.metadata_props}
    extra = {"metadata.json": ""}
    torch.export.load(untrained / "model.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"]) == props
    assert props["weights"].startswith("UNTRAINED")
    assert graph.doc_string == props["weights"]
    assert props["name"] == graph.graph.name == "sr-trial1"
    assert props["arch_id"] == sqz.Architecture(squeeze_ratio=0.25).arch_id
    assert "classes" not in props
    (images,) = graph.graph.input
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == [
        *("batch", 3, 224, 224)
    ]


def test_the_files_hold_the_deployed_network_and_no_path_of_this_machine(untrained: Path) -> None:
    program = torch.export.load(untrained / "model.pt2")
    state = {name.removeprefix("net."): tensor for name, tensor in program.state_dict.items()}
    architecture = sqz.Architecture(squeeze_ratio=0.25)
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        expected = independent.with_weights(architecture, state)(images)
    found = torch.from_numpy(run_onnx(untrained, images.numpy()))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with ZipFile(untrained / "model.pt2") as archive:
        held = b"".join(archive.read(name) for name in archive.namelist())
    for content in (held, (untrained / "model.onnx").read_bytes()):
        assert str(ROOT).encode() not in content
        assert b"site-packages" not in content


def test_the_card_has_exact_numbers_and_the_sweeps_own(untrained: Path) -> None:
    card = (untrained / "MODEL_CARD.md").read_text()
    net = independent.network(sqz.Architecture(squeeze_ratio=0.25))
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 224, 224))
    assert f"**{sum(p.numel() for p in net.parameters()):,} parameters**" in card
    assert f" {counter.get_total_flops():,} FLOPs" in card
    assert f"**{counter.get_total_flops() // 2:,} MACs**" in card
    fire = sum(p.numel() for p in net.features[3].parameters())
    assert re.search(rf"\| fire2 \| 128x54x54 \| .* \| {fire:,} \|", card)
    assert '`sqz.preset("squeezenet1_0").replace(squeeze_ratio=0.25)`' in card
    row = sqz.load_results(SR).query("trial == 1").iloc[0]
    assert (
        f"top-1 {row['top1']:.2f}% (95% interval {row['top1_ci_low']:.2f} to "
        f"{row['top1_ci_high']:.2f} over 3 seeds "
        "and the test images): a proxy, not ImageNet: fashion at 32x32"
    ) in card
    speeds = sqz.load_results(SR, "throughput").query("trial == 1")
    assert len(speeds) == 2
    for _, speed in speeds.iterrows():
        assert re.search(
            rf"\| torch \| 224 \| cpu \| {speed['device_name']} \| {speed['batch']} \| float32 "
            rf"\| .*\| {speed['images_per_s']:,.1f} \|",
            card,
        )
    assert str(row["data_sha256"]) in card
    for name in ("model.onnx", "model.pt2"):
        assert hashlib.sha256((untrained / name).read_bytes()).hexdigest() in card


def test_what_the_card_says_loads_the_files_does(untrained: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (untrained / "MODEL_CARD.md").read_text(), re.S)
    assert len(snippets) == 2
    for snippet in snippets:
        code = f"{snippet}\nprint(tuple(logits.shape))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=untrained,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout == "(4, 1000)\n", done.stderr


def test_the_same_trial_gives_the_same_files_and_takes_the_place_of_the_former(
    tmp_path: Path,
) -> None:
    sweep, former, to = (tmp_path / name for name in ("costs", "former", "to"))
    text = "name: costs\nbase: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3]}\n"
    run(text + "space: {squeeze_ratio: [0.25, 0.5]}\ninput_size: 32\n", sweep)
    command = ["export", str(sweep), "--pick", "1", "--to", str(former)]
    assert CliRunner().invoke(app, command).exit_code == 0
    shutil.copytree(former, to)
    (to / "model.onnx").write_bytes(b"old")
    done = sqz.export(sweep, 1, to)
    assert sorted(done.files) == sorted(to.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["costs", "former", "to"]
    for name in ("model.onnx", "model.pt2"):
        assert (to / name).read_bytes() == (former / name).read_bytes()


def test_a_folder_of_something_else_is_refused(untrained: Path, tmp_path: Path) -> None:
    shutil.copytree(untrained, tmp_path / "more")
    (tmp_path / "more" / "notes.txt").write_text("mine")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.onnx").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, said in [
        ("more", "a folder that holds notes.txt, expected a new or empty one"),
        ("bare", "a folder that holds model.onnx, expected a new or empty one"),
        ("file", "found a file, expected a folder"),
    ]:
        with pytest.raises(UserError, match=f"--to .*{name}: .*{said}"):
            sqz.export(SR, 1, tmp_path / name)
    assert (tmp_path / "bare" / "model.onnx").read_text() == "mine"
    assert len(list((tmp_path / "more").iterdir())) == 4


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r'needs onnxscript: pip install "sqzexplore\[export\]"'):
        sqz.export(SR, 1, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- a trained one -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for long enough that its trial 1 has learned something."""
    text = UNTIMED.replace("epochs: 1", "epochs: 8")
    return once(tmp_path_factory, "small", partial(run, text))


@pytest.fixture(scope="module")
def trained(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of trial 1, beside the checkpoint that `--train` left."""

    def make(place: Path) -> None:
        to, net = place / "to", place / "checkpoint"
        command = ["export", str(small), "--pick", "1", "--to", str(to), "--checkpoint", str(net)]
        done = CliRunner().invoke(app, [*command, "--train", "--device", "cpu"])
        assert done.exit_code == 0, done.output
        assert "epoch 8/8" in done.output
        assert "UNTRAINED" not in done.output

    return once(tmp_path_factory, "trained", make) / "to"


def test_a_training_for_an_export_is_the_sweeps_first(small: Path, trained: Path) -> None:
    notes = checkpoint.notes(trained.parent / "checkpoint")
    seeds = sqz.load_results(small, "seeds").query("trial == 1 and seed == 0")
    assert notes["top1"] == seeds["top1"].item()


def test_plain_pixels_go_in_and_the_trained_accuracy_comes_out(trained: Path) -> None:
    """Bytes / 255, and nothing else: the files normalise."""
    data = load(open_data("digits"), 32)
    images = (data.test.images.float() / 255).permute(0, 3, 1, 2).contiguous()
    notes = checkpoint.notes(trained.parent / "checkpoint")
    program = torch.export.load(trained / "model.pt2").module()
    net = sqz.load(trained.parent / "checkpoint")
    mean, std = torch.tensor(notes["mean"]), torch.tensor(notes["std"])
    with torch.no_grad():
        expected = net(((data.test.images.float() - mean) / std).permute(0, 3, 1, 2))
        found = torch.from_numpy(run_onnx(trained, images.numpy())), program(images)
    rounding = 1e-4 * expected.abs().max().item()
    assert expected.std() > 100 * rounding
    for logits in found:
        assert (logits - expected).abs().max().item() <= rounding
        low, high = independent.accuracy_between(logits, data.test.labels, 2 * rounding)
        assert low - 1e-3 <= notes["top1"] <= high + 1e-3
        assert high - low < 5, "what rounding may change is little"
    assert notes["top1"] > 30, "far above chance, 10%"


def test_the_card_of_a_trained_network(small: Path, trained: Path) -> None:
    card = (trained / "MODEL_CARD.md").read_text()
    notes = checkpoint.notes(trained.parent / "checkpoint")
    net = sqz.load(trained.parent / "checkpoint")
    assert "UNTRAINED" not in card
    assert f"Of these weights: test top-1 **{notes['top1']:.2f}%**" in card
    assert "N x 1 x 32 x 32" in card
    assert "from 0 (black) to 1 (white)" in card
    assert f"(x - [{notes['mean'][0] / 255:.4f}]) / [{notes['std'][0] / 255:.4f}]" in card
    assert f"**{sum(p.numel() for p in net.parameters()):,} parameters**" in card
    own = independent.network(SMALL_BASE.replace(squeeze_ratio=1.0))
    assert f"at 64x64: {sum(p.numel() for p in own.parameters()):,} parameters" in card
    row = sqz.load_results(small).query("trial == 1").iloc[0]
    assert f"The sweep measured top-1 {row['top1']:.2f}% (95% interval" in card
    assert "trained with width_multiplier=0.1" in card
    props = {p.key: p.value for p in onnx.load(trained / "model.onnx").metadata_props}
    assert json.loads(props["classes"]) == list("0123456789")
    assert sqz.Architecture(**json.loads(props["architecture"])) == net.architecture
    assert props["weights"].startswith("trained: digits at 32x32, 8 epochs, seed 0")


def test_weights_of_another_network_are_refused(small: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"another network than trial 0 .*: squeeze_ratio 1.0 where it has 0.25$"
    ):
        sqz.export(small, 0, tmp_path / "new", trained.parent / "checkpoint")
    bare = tmp_path / "bare.safetensors"
    checkpoint.save(sqz.load(trained.parent / "checkpoint"), bare, {})
    with pytest.raises(UserError, match="has no mean, expected a file that `train` wrote"):
        sqz.export(small, 1, tmp_path / "new", bare)
    with pytest.raises(UserError, match=r"--train: .*squeeze_ratio 1.0 there, 0.25 here; choose"):
        train_picked(
            small,
            0,
            trained.parent / "checkpoint",
            torch.device("cpu"),
            partial(Live, Console(quiet=True)),
        )
    with pytest.raises(UserError, match="no such file"):
        sqz.export(small, 1, tmp_path / "new", tmp_path / "none")
    with pytest.raises(
        UserError, match="found 7, expected the number of a trial, 0 to 1; the nearest is 1"
    ):
        sqz.export(small, 7, tmp_path / "new", trained.parent / "checkpoint")
    done = CliRunner().invoke(
        app, ["export", str(small), "--pick", "1", "--to", str(tmp_path / "new"), "--train"]
    )
    assert "--train: expected --checkpoint DIR too" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["bare.safetensors"]


def test_the_trials_own_architecture_is_taken_too(
    small: Path, trained: Path, tmp_path: Path
) -> None:
    """Trained as it is deployed: only the images decide its channels and classes."""
    own = SMALL_BASE.replace(in_channels=1, num_classes=10, squeeze_ratio=1.0)
    notes = checkpoint.notes(trained.parent / "checkpoint")
    del notes["architecture"]
    checkpoint.save(shaken(own), tmp_path / "own", notes | {"data_sha256": "of others"})
    done = sqz.export(small, 1, tmp_path / "to", tmp_path / "own")
    assert done.name == "small-trial1"
    card = (tmp_path / "to" / "MODEL_CARD.md").read_text()
    assert own.arch_id in card
    assert "**Other images than the sweep's**" in card


# --- what is not the same is not written ---------------------------------------------------------


def test_a_checkpoint_whose_outputs_are_no_numbers_leaves_nothing(
    small: Path, trained: Path, tmp_path: Path
) -> None:
    net = sqz.load(trained.parent / "checkpoint")
    notes = checkpoint.notes(trained.parent / "checkpoint")
    del notes["architecture"]
    with torch.no_grad():
        net.features[0].weight.fill_(float("nan"))
    checkpoint.save(net, tmp_path / "broken", notes)
    to = tmp_path / "to"
    shutil.copytree(trained, to)
    before = {path.name: path.read_bytes() for path in to.iterdir()}
    options = ["--pick", "1", "--to", str(to), "--checkpoint", str(tmp_path / "broken")]
    done = CliRunner().invoke(app, ["export", str(small), *options])
    assert done.exit_code == 1
    assert done.stderr.startswith("sqzexplore: model.onnx: differs from PyTorch by nan")
    assert "nothing was written" in done.stderr
    assert {path.name: path.read_bytes() for path in to.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "to"]


def test_a_file_that_computes_something_else_is_found(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) + torch.rand_like(images[:, :, 0, 0])

    with pytest.raises(ExportMismatch, match=r"model.onnx: differs from PyTorch by 0.\d+, "):
        write_programs(Noisy(), 3, 8, LABELS, tmp_path)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with replacing_folder(place) as new:
        (new / "a").write_text("1")
        assert not place.exists()
    assert (place / "a").read_text() == "1"

    def interrupted() -> None:
        with replacing_folder(place) as new:
            (new / "a").write_text("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (place / "a").read_text() == "1"
    with replacing_folder(place) as new:
        (new / "b").write_text("3")
    assert [path.name for path in place.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert place.stat().st_mode & 0o777 == 0o755
