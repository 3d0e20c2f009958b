"""The other verbs, as a user types them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sqzexplore as sqz
from sqzexplore.cli.app import _interrupt, _stop, app
from sqzexplore.errors import UserError
from sqzexplore.network.presets import PRESETS


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("preset", PRESETS)
def test_describe_as_json(preset: str) -> None:
    done = invoke("describe", preset, "--json")
    described = json.loads(done.output)
    cost = sqz.cost(sqz.preset(preset))
    for key in ("params", "macs", "flops", "size_mb", "activations"):
        assert described[key] == getattr(cost, key)
    assert sqz.Architecture(**described["architecture"]) == sqz.preset(preset)
    assert sum(layer["params"] for layer in described["layers"]) == cost.params
    assert described["layers"][0]["name"] == "conv1"
    assert described["layers"][-1]["output_shape"] == [sqz.preset(preset).num_classes, 1, 1]


def test_describe_prints_a_table_like_the_papers() -> None:
    done = invoke("describe")
    assert done.exit_code == 0
    for text in ("conv1", "maxpool8", "fire9", "conv10", "1,248,424", "818,924,576"):
        assert text in done.output
    assert f"network {sqz.Architecture().net_id}" in done.output


def test_set_changes_a_metaparameter() -> None:
    changes = ["--set", "squeeze_ratio=0.5", "--set", "pool_after=1,3", "--set", "bypass=simple"]
    done = invoke("describe", "squeezenet1_1", *changes, "--input-size", "64", "--json")
    expected = sqz.preset("squeezenet1_1", squeeze_ratio=0.5, pool_after=(1, 3), bypass="simple")
    described = json.loads(done.output)
    assert described["arch_id"] == expected.arch_id
    assert described["net_id"] == expected.net_id
    assert described["live_params"] == described["params"]
    assert described["macs"] == sqz.cost(expected, 64).macs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["describe", "squeezenet"], "did you mean 'squeezenet1_"),
        (["describe", "--set", "squeeze_ratio"], "expected KEY=VALUE"),
        (["describe", "--set", "squeeze_rati=1"], "did you mean 'squeeze_ratio'"),
        (["describe", "--set", "squeeze_ratio=2"], "found 2, expected a number <= 1"),
        (["describe", "--set", "squeeze_ratio=[1"], "expected a value"),
        (["describe", "--set", "pool_after=[1, 99]"], "no layer 99"),
        (["describe", "--input-size", "20"], "vanishes at maxpool8"),
        (["describe", "--input-size", "0"], "expected 1 to 65536"),
        (["bench", "--batch", "0"], "--batch: found '0'"),
        (["bench", "--dtype", "float8"], "--dtype: found 'float8'"),
        (["bench", "--device", "cpu", "--dtype", "tf32"], "--dtype: found 'tf32', which needs"),
        (["bench", "--device", "cpu", "--mode", "cuda_graph"], "--mode: found 'cuda_graph', which"),
        (["bench", "--form", "modul"], "did you mean 'module'"),
        (["bench", "--batch", "1,"], "--batch: found ''"),
        (["bench", "--batch", "auto,4"], "--batch: found 'auto'"),
        (["bench", "--input-size", "16"], "vanishes"),
        (["bench", "--layers", "--form", "inference"], "--form: found inference, expected module"),
        (["bench", "--layers", "--mode", "compile"], "--mode: found compile, expected eager or"),
        (["bench", "--layers", "--batch", "auto"], "--batch: found auto"),
        (
            ["bench", "--layers", "--device", "cpu", "--batch", "65536", "--input-size", "1024"],
            "found too little memory (a pass needs about",
        ),
        (["bench", "--layers", "--out", "x"], "--out: expected no such option with --layers"),
        (["bench", "--layers", "--runtime", "onnxruntime"], "--runtime: found onnxruntime"),
        (["bench", "--layers", "--import", "probe.json"], "--import: expected no --layers"),
        (["bench", "--mode", "eager,eager"], "--mode: expected each value once, 'eager' stands"),
        (["bench", "--batch", "4,4"], "--batch: expected each value once, 4 stands twice"),
        (["bench", "--seconds", "0"], "--seconds: found 0"),
        (["bench", "--device", "tpu"], "--device: found 'tpu'"),
        (["bench", "nosuch.yaml"], "no such file"),
        (["bench", "squeezenet"], "did you mean"),
        (["train", "--data", "digit"], "did you mean 'digits'"),
        (["train", "--set", "pool_after=[1,2,3,4,5]"], "vanishes"),
        (["train", "--set", "num_classes=7"], "found 7, expected 10"),
        (["train", "--set", "in_channels=3"], "found 3, expected 1: digits has grey images"),
        (["train", "--set", "batch_norm=true", "--batch-size", "1"], "found 1 with batch_norm"),
        (["train", "--out", __file__], "found a file, expected a folder"),
        (["train", "--recipe", "papr"], "--recipe: found 'papr'"),
        (["train", "--precision", "float8"], "--precision: found 'float8'"),
        (["train", "--learning-rate", "-1"], "--learning-rate: found -1"),
        (["train", "--data", "${NOWHERE}"], "variable NOWHERE is not set"),
        (["results", "/nonexistent"], "expected the folder of a sweep"),
        (["figures", "/nonexistent"], "expected the folder of a sweep"),
    ],
)
def test_bad_input_is_a_user_error(arguments: list[str], expected: str) -> None:
    done = invoke(*arguments)
    assert isinstance(done.exception, UserError)
    assert expected in str(done.exception)


@pytest.mark.parametrize(
    "arguments", [["describe", "squeezenet"], ["nosuchverb"], ["describe", "--nosuch"], ["sweep"]]
)
def test_exit_code_2_without_a_traceback(arguments: list[str], sqz) -> None:
    done = sqz(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_bench_as_json() -> None:
    done = invoke(
        *("bench", "squeezenet1_1", "--device", "cpu", "--batch", "1,2", "--json"),
        *("--seconds", "0.05", "--input-size", "64", "--dtype", "float32,bfloat16"),
        *("--processes", "1"),
    )
    rows = json.loads(done.output)
    assert [(row["dtype"], row["batch"]) for row in rows] == [
        *(("float32", 1), ("float32", 2)),
        *(("bfloat16", 1), ("bfloat16", 2)),
    ]
    assert all(row["device"] == "cpu" and row["images_per_s"] > 0 for row in rows)


def test_bench_writes_its_table_with_provenance(tmp_path: Path, small_reference: None) -> None:
    folder = tmp_path / "out"
    options = ("--seconds", "0.02", "--input-size", "64", "--form", "module,inference")
    options = (*options, "--processes", "1")
    done = invoke(
        "bench",
        "squeezenet1_1",
        "--device",
        "cpu",
        "--batch",
        "1,2",
        *options,
        "--out",
        str(folder),
    )
    assert done.exit_code == 0
    rows = sqz.load_results(folder, "throughput")
    assert rows["form"].tolist() == ["module", "module", "inference", "inference"]
    assert set(rows["arch_id"]) == {sqz.preset("squeezenet1_1").arch_id}
    assert set(rows["net_id"]) == {sqz.preset("squeezenet1_1").net_id}
    assert set(rows["sweep"]) == {"squeezenet1_1"}
    assert "threads" in json.loads((folder / "provenance.json").read_text())
    assert json.loads((folder / "roofline.json").read_text())[0]["dtype"] == "float32"
    assert (folder / "figures" / "roofline.pdf").exists()
    assert invoke("figures", str(folder)).exit_code == 0


def test_bench_layer_by_layer() -> None:
    options = ("--device", "cpu", "--batch", "1", "--input-size", "64", "--seconds", "0.05")
    done = invoke("bench", "squeezenet1_1", *options, "--layers")
    assert done.exit_code == 0
    for text in ("conv1", "fire9", "avgpool10", "bound by"):
        assert text in done.output
    rows = json.loads(invoke("bench", "squeezenet1_1", *options, "--layers", "--json").output)
    assert sum(row["macs"] for row in rows) == sqz.cost(sqz.preset("squeezenet1_1"), 64).macs


def test_bench_of_a_spec(tmp_path) -> None:
    spec = tmp_path / "two.yaml"
    spec.write_text(
        "name: two\nbase: {width_multiplier: 0.1}\nspace: {squeeze_ratio: [0.5, 1.0]}\n"
    )
    options = ("--batch", "1", "--seconds", "0.05", "--input-size", "64", "--device", "cpu")
    done = invoke("bench", str(spec), *options, "--processes", "1")
    assert done.exit_code == 0
    for ratio in (0.5, 1.0):
        arch_id = sqz.Architecture(width_multiplier=0.1, squeeze_ratio=ratio).arch_id
        assert arch_id in done.output


def test_train_prints_the_accuracy(tmp_path) -> None:
    options = ("--set", "width_multiplier=0.1", "--epochs", "1", "--device", "cpu")
    done = invoke("train", *options, "--out", str(tmp_path / "net"))
    assert done.exit_code == 0
    trained = sqz.Architecture(width_multiplier=0.1, in_channels=1, num_classes=10)
    assert f"{sqz.cost(trained, 32).params:,} parameters" in done.output
    assert "test top-1" in done.output
    assert sqz.load(tmp_path / "net").architecture == trained


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("fires=2001-13-45", "--set fires: found '2001-13-45'"),
        ("fires=0x_", "--set fires: found '0x_'"),
        ("fires=" + "[" * 2000, "--set fires"),
        ("fires=1" + "0" * 400, "--set fires"),
        ("fires=", "--set fires: found '', expected an integer"),
        ("=5", "--set : unknown key"),
    ],
)
def test_set_takes_no_nonsense(change: str, expected: str) -> None:
    done = invoke("describe", "--set", change)
    assert isinstance(done.exception, UserError)
    assert expected in str(done.exception)


def test_no_pool_at_all_can_be_set() -> None:
    done = invoke("describe", "--set", "pool_after=", "--json")
    assert json.loads(done.output)["architecture"]["pool_after"] == []


def test_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    spec = tmp_path / "brackets.yaml"
    spec.write_text('name: x\nquestion: "what [/foo] is [red]this"\nspace: {fires: [8]}\n')
    done = invoke("sweep", str(spec), "--out", str(tmp_path / "[b]out"))
    assert done.exit_code == 0, done.output
    assert "what [/foo] is [red]this" in done.output
    assert "[b]out/trials.csv" in done.output


@pytest.mark.parametrize("arguments", [["describe"], ["describe", "--json"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "sqzexplore", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_a_spec_with_too_many_architectures_to_measure(tmp_path: Path) -> None:
    spec = tmp_path / "many.yaml"
    spec.write_text("name: x\nspace: {base_expand: {min: 1, max: 1001}}\n")
    done = invoke("bench", str(spec))
    assert "expected at most 1,000" in str(done.exception)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_at_once_of_whatever_kind(
    first: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would interrupt what the first one has to clean up."""
    handlers: dict[int, object] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    with pytest.raises(KeyboardInterrupt):
        _interrupt(first, None)
    assert handlers == {signal.SIGINT: _stop, signal.SIGTERM: _stop}
