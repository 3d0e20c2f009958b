"""`profile`: measured once each, gone on with after an interrupt, predicted from, refused."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import truth
from sqzexplore.cli.app import app
from sqzexplore.deploy.probe import write_probe
from sqzexplore.errors import UserError
from sqzexplore.measure import apart, reference
from sqzexplore.measure.settings import Settings
from sqzexplore.measure.throughput import Throughput, blank
from sqzexplore.network.presets import PRESETS
from sqzexplore.predict import fit as fit_
from sqzexplore.predict.models import MODELS
from sqzexplore.space.strata import stratified
from sqzexplore.spec.load import parse_spec

SPEC = """\
name: tiny
base: {width_multiplier: 0.1, num_classes: 10, stem_kernel: 3}
space:
  squeeze_ratio: [0.25, 0.5, 1.0]
  fraction_3x3: [0.25, 0.5, 0.75]
  fires: [3, 4, 5]
  pool_after: [[1], [1, 3]]
  bypass: [none, simple]
input_size: 32
"""
OPTIONS = ("--device", "cpu", "--seconds", "0.02", "--processes", "1", "--networks", "22")
NAMES = ["latency_ms_p50", "latency_ms_p50_low", "latency_ms_p50_high"]


@pytest.fixture(autouse=True)
def _one_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One to choose from, a tenth of the time; and no reference network is kept."""
    monkeypatch.setattr(fit_, "MODELS", {"gaussian process": MODELS["gaussian process"]})
    yield
    reference.references.clear()
    reference.history.clear()


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return path


def made_up(net: sqz.Architecture, size: int) -> float:
    """A latency in ms that the features know: nearly a law in MACs and Fires."""
    return 0.1 + sqz.cost(net, size).macs * 1e-6 * (1 + 0.1 * net.fires)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The `net_id` of what was measured, in order; the numbers are made up."""
    calls: list[str] = []

    def measure(
        net: sqz.Architecture, at: Settings, seconds: float, folder: Path | None
    ) -> Throughput:
        calls.append(net.net_id)
        latency = made_up(net, at.input_size)
        return Throughput(**(blank(at).__dict__ | {"latency_ms_p50": latency}))

    monkeypatch.setattr(apart, "measure", measure)
    return calls


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


def profile(spec: Path, to: Path, *options: object) -> Any:
    return invoke("profile", spec, "--to", to, *OPTIONS, *options)


def drawn(count: int, seed: int = 0) -> list[sqz.Architecture]:
    return list(itertools.islice(stratified(parse_spec(SPEC).design_space, "macs", seed), count))


def test_a_profile_is_measured_and_predicts_a_space(spec: Path, tmp_path: Path) -> None:
    """Really measured, by torch."""
    to, out = tmp_path / "devices" / "here.json", tmp_path / "rows.parquet"
    done = profile(spec, to)
    assert done.exit_code == 0, done.output
    content = json.loads(to.read_text())
    assert content["format"] == 1
    rows = sqz.load_profile(to)
    assert rows["net_id"].tolist() == [a.net_id for a in drawn(22)]
    assert rows["net_id"].nunique() == 22
    assert (rows["latency_ms_p50"] > 0).all()
    assert (rows["runtime"] == "torch").all()
    assert (rows["torch_version"] == torch.__version__).all()
    assert (rows["sampler"] == "random").all()
    assert rows["git_commit"].notna().all()
    assert rows["measured_at"].notna().all()
    expected = sqz.cost_table(rows[[*sqz.Architecture.model_fields.keys() & {*rows}]], 32)
    assert rows["macs"].tolist() == expected["macs"].tolist()
    assert any("of 22 held-out networks were in their 90%" in line for line in content["audit"])
    for line in content["audit"]:
        assert line in done.output
    command = ("census", spec, "--predict", to, "--sort", "latency_ms_p50", "--out", out)
    done = invoke(*command, "--where", "latency_ms_p50 > 0")
    assert done.exit_code == 0, done.output
    said = pd.read_parquet(out)
    assert len(said) == different_networks()
    assert (np.diff(said["latency_ms_p50"]) >= 0).all()
    model = sqz.fit(rows, target="latency_ms_p50")
    by_hand = model.predict(said.astype({"pool_after": object, "bypass": object}))
    for name in NAMES:
        assert said[name].to_numpy() == pytest.approx(by_hand[name].to_numpy(), rel=1e-3)
    assert "coverage 90%" in done.output
    assert f"predicted latency_ms_p50: from {to}\n" in done.output


def different_networks() -> int:
    """The space's different networks, by their names."""
    space = parse_spec(SPEC).design_space
    return len({space.architecture(i).net_id for i in space.indices()})


def test_an_interrupted_profile_goes_on(
    spec: Path, tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to, fine = tmp_path / "here.json", apart.measure

    def once(*given: Any) -> Throughput:
        if len(measured) == 7:
            raise KeyboardInterrupt
        return fine(*given)

    monkeypatch.setattr(apart, "measure", once)
    done = profile(spec, to)
    assert done.exit_code == 130
    assert "run the same command again to resume" in done.output
    first = json.loads(to.read_text())
    assert (len(first["rows"]), first["audit"]) == (7, [])
    done = invoke("census", spec, "--predict", to)
    assert "found 7 rows with latency_ms_p50, expected at least 20" in str(done.exception)
    monkeypatch.setattr(apart, "measure", fine)
    done = profile(spec, to)
    assert done.exit_code == 0, done.output
    assert "22 networks, 7 were there already" in done.output
    assert len(measured) == len(set(measured)) == 22
    whole = json.loads(to.read_text())
    assert whole["rows"][:7] == first["rows"]
    assert profile(spec, to, "--networks", "25").exit_code == 0  # more begin with the same
    assert len(measured) == len(set(measured)) == 25
    assert profile(spec, to).exit_code == 0
    assert (len(measured), len(json.loads(to.read_text())["rows"])) == (25, 25)


def test_predictions_follow_what_was_measured(
    spec: Path, tmp_path: Path, measured: list[str]
) -> None:
    to = tmp_path / "here.json"
    done = profile(spec, to, "--networks", "40")
    assert done.exit_code == 0, done.output
    model = sqz.fit(sqz.load_profile(to), target="latency_ms_p50")
    others = [a for a in drawn(60) if a.net_id not in measured]
    assert len(others) == 20
    frame = pd.DataFrame([a.model_dump(exclude={"overrides"}) for a in others])
    expected = [made_up(a, 32) for a in others]
    assert model.predict(frame)["latency_ms_p50"].to_numpy() == pytest.approx(expected, rel=0.25)
    assert model.coverage == "90%"


def test_another_setting_is_named(spec: Path, tmp_path: Path, measured: list[str]) -> None:
    to = tmp_path / "here.json"
    assert profile(spec, to).exit_code == 0
    before = to.read_bytes()
    for options, message in (
        (("--batch", "2"), "found a profile with batch 1, expected 2"),
        (("--seed", "1"), "found a profile with seed 0, expected 1"),
        (("--seconds", "0.03"), "found a profile with seconds 0.02, expected 0.03"),
        (("--dtype", "bfloat16"), "found a profile with dtype 'float32', expected 'bfloat16'"),
    ):
        done = profile(spec, to, *options)
        assert isinstance(done.exception, UserError)
        assert message in str(done.exception)
        assert (len(measured), to.read_bytes()) == (22, before)


def test_another_space_or_machine_is_named(
    spec: Path, tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "here.json"
    assert profile(spec, to).exit_code == 0
    spec.write_text(SPEC.replace("[0.25, 0.5, 1.0]", "[0.125, 0.5, 1.0]"))
    assert "found networks of another space" in str(profile(spec, to).exception)
    monkeypatch.setattr("sqzexplore.provenance.device_name", lambda device: "another")
    assert "expected 'another', as asked for" in str(profile(spec, to).exception)
    assert len(measured) == 22


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return apply


DAMAGES: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text[: len(text) // 2], "expected the profile of a device"),
    (lambda text: "[1]", "expected the profile of a device"),
    (damaged(lambda c: c.update(format=9)), "found format 9, expected 1"),
    (damaged(lambda c: c.pop("settings")), "is damaged"),
    (damaged(lambda c: c.update(rows=[])), "is damaged"),
    (damaged(lambda c: c["rows"][3].pop("latency_ms_p50")), "is damaged .*no latency_ms_p50"),
    (damaged(lambda c: c["rows"][3].update(macs="many")), "is damaged"),
    (damaged(lambda c: c["rows"][3].update(squeeze_ratio=7.0)), "is damaged .*squeeze_ratio"),
    (damaged(lambda c: c["rows"][3].update(weather="fine")), "is damaged .*weather"),
]


def test_a_damaged_file_is_refused(spec: Path, tmp_path: Path, measured: list[str]) -> None:
    to = tmp_path / "here.json"
    assert profile(spec, to).exit_code == 0
    whole = to.read_text()
    for change, message in DAMAGES:
        to.write_text(text := change(whole))
        for command in (("profile", spec, "--to", to, *OPTIONS), ("census", spec, "--predict", to)):
            done = invoke(*command)
            assert isinstance(done.exception, UserError), done.output
            assert re.search(f"here.json: {message}", str(done.exception)), done.exception
            assert (len(measured), to.read_text()) == (22, text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--networks", "19"), "--networks: found 19, expected at least 20"),
        (("--runtime", "onnx"), "--runtime: found 'onnx', expected torch, onnxruntime"),
        (("--dtype", "float32,int8"), "--dtype: found float32,int8, expected one"),
        (("--dtype", "int8"), "--dtype: found int8, expected one that torch has"),
        (("--import", "probe.json"), "one of them"),
        (("--seconds", "0"), "--seconds: found 0.0, expected"),
    ],
)
def test_an_option_is_refused(
    options: tuple[str, ...], message: str, spec: Path, tmp_path: Path, measured: list[str]
) -> None:
    done = profile(spec, tmp_path / "deep" / "here.json", *options)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert not measured
    assert not (tmp_path / "deep").exists()


def test_a_target_that_cannot_be_written(spec: Path, tmp_path: Path, measured: list[str]) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    for to, message in (
        (tmp_path / "here.csv", "a file whose name ends in .json"),
        (tmp_path / "folder.json", "a file whose name ends in .json"),
        (tmp_path / "file" / "here.json", "found a file, expected a folder"),
        (Path("/proc/here.json"), "cannot be written to"),
    ):
        assert message in str(profile(spec, to).exception)
    assert not measured


def test_a_space_with_too_few_networks(spec: Path, tmp_path: Path, measured: list[str]) -> None:
    spec.write_text("name: few\nspace: {squeeze_ratio: [0.25, 0.5]}\ninput_size: 32\n")
    done = profile(spec, tmp_path / "here.json")
    assert "found 2 different networks in the space of few, expected at least 22" in str(
        done.exception
    )
    assert not measured


def test_a_runtime_that_is_not_installed(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = profile(spec, tmp_path / "here.json", "--runtime", "onnxruntime")
    assert isinstance(done.exception, UserError)
    assert "pip install" in str(done.exception)
    assert not (tmp_path / "here.json").exists()


def test_networks_that_could_not_be_measured_are_said_and_too_few_are_left(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count()

    def measure(net: sqz.Architecture, at: Settings, *rest: object) -> Throughput:
        if next(numbers) % 5 == 0:
            gone = {"outcome": "out_of_memory", "reason": "no room"}
            return Throughput(**(blank(at).__dict__ | gone))
        known = {"latency_ms_p50": made_up(net, at.input_size)}
        return Throughput(**(blank(at).__dict__ | known))

    monkeypatch.setattr(apart, "measure", measure)
    to = tmp_path / "here.json"
    done = profile(spec, to)
    assert "out_of_memory: no room" in done.output
    assert "found 17 rows with latency_ms_p50, expected at least 20" in str(done.exception)
    assert profile(spec, to, "--networks", "30").exit_code == 0


# --- what a board measured ---------------------------------------------------------------------


def probe_file(path: Path, nets: list[sqz.Architecture], **models: object) -> Path:
    """A probe.json as deploy/board.py writes it, of two processes."""
    named = {"squeezenet1_1": PRESETS["squeezenet1_1"]} | {a.arch_id: a for a in nets}
    listed = [
        {
            "file": f"{name}-{dtype}.onnx",
            "name": name,
            "architecture": net.model_dump(mode="json"),
            "dtype": dtype,
            "shape": [2, 3, 32, 32],
        }
        for dtype in ("float32", "int8")
        for name, net in named.items()
    ]
    one = [
        {
            "file": model["file"],
            "latency_ms_p50": 2 * made_up(sqz.Architecture(**model["architecture"]), 32),
            "relative_to_reference": 2.0,
            "reference_latency_ms_p50": 4.0,
            "latency_ms_p99": 9.0,
            "latency_ms_sd": 0.1,
            "repetitions": 60,
            "rounds": 6,
            "buffers": 2,
            "largest_difference": 1e-6,
        }
        for model in listed
    ]
    content = {
        "format": 1,
        "device_name": "a board",
        "processor": "ARM",
        "machine": "aarch64",
        "platform": "Linux",
        "python": "3.11",
        "numpy": "2.0",
        "onnxruntime": "1.20",
        "threads": 4,
        "measured_at": "2026-01-01T00:00:00+00:00",
        "models": {"models": listed, "git_commit": "abc", **models},
        "processes": [one, one],
    }
    path.write_text(json.dumps(content))
    return path


def test_what_a_board_measured_is_a_profile(spec: Path, tmp_path: Path) -> None:
    to, probe = tmp_path / "board.json", tmp_path / "probe.json"
    probe_file(probe, drawn(24), sampler="random")
    command = ("profile", "--import", probe, "--to", to, "--batch", "2")
    for _ in range(2):  # again: in the place of what is there
        done = invoke(*command)
        assert done.exit_code == 0, done.output
    rows = sqz.load_profile(to)
    assert rows["net_id"].tolist() == [a.net_id for a in drawn(24)]
    assert rows["latency_ms_p50"].tolist() == pytest.approx([2 * made_up(a, 32) for a in drawn(24)])
    assert set(rows["device_name"]) == {"a board"}
    assert set(rows["runtime"]) == {"onnxruntime"}
    assert json.loads(to.read_text())["provenance"]["processor"] == "ARM"
    assert sqz.fit(rows, target="latency_ms_p50").coverage == "90%"
    done = invoke("profile", "--import", probe, "--to", to, "--batch", "2", "--dtype", "int8")
    assert "found a profile with dtype 'float32', expected 'int8'" in str(done.exception)
    probe_file(probe, drawn(24))  # of a version that did not say who chose them
    assert invoke(*command).exit_code == 0
    assert "not supported" in sqz.fit(sqz.load_profile(to), target="latency_ms_p50").coverage


def test_a_probe_that_is_no_profile(tmp_path: Path) -> None:
    to, probe = tmp_path / "board.json", probe_file(tmp_path / "probe.json", drawn(19))
    done = invoke("profile", "--import", probe, "--to", to, "--batch", "2")
    assert "found 19 networks, expected at least 20; sqzexplore probe SPEC --networks 60" in str(
        done.exception
    )
    done = invoke("profile", "--import", probe, "--to", to)
    assert "found no network at batch 1, float32, expected one of: --batch 2 --dtype f" in str(
        done.exception
    )
    probe.write_text("{}")
    done = invoke("profile", "--import", probe, "--to", to)
    assert "expected the probe.json that a probe wrote" in str(done.exception)
    assert not to.exists()


def test_a_probe_of_drawn_networks(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], str]] = []

    def write(nets: dict[str, sqz.Architecture], to: Path, *rest: Any) -> list[Path]:
        asked.append(([a.net_id for a in nets.values()], rest[-1]))
        return []

    monkeypatch.setattr("sqzexplore.deploy.probe.write_probe", write)
    command = ("probe", spec, "--to", tmp_path / "probe", "--networks", "23", "--seed", "3")
    assert invoke(*command).exit_code == 0
    assert asked == [([a.net_id for a in drawn(23, 3)], "random")]
    assert invoke("probe", spec, "--to", tmp_path / "probe").exit_code == 0
    assert (len(asked[1][0]), asked[1][1]) == (parse_spec(SPEC).design_space.count(), "grid")
    assert invoke("probe", "squeezenet1_1", "--to", tmp_path / "probe").exit_code == 0
    assert asked[2][1] == ""
    done = invoke("probe", "squeezenet1_1", "--to", tmp_path / "probe", "--networks", "3")
    assert "found the preset squeezenet1_1, expected a spec to draw from" in str(done.exception)


def test_a_probe_says_who_chose_its_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = drawn(1)[0]
    monkeypatch.setitem(PRESETS, "squeezenet1_1", small)  # v1.1 takes seconds to write
    write_probe({"a": small}, tmp_path / "probe", [1], ["float32"], 32, "random")
    content = json.loads((tmp_path / "probe" / "models.json").read_text())
    assert content["sampler"] == "random"


# --- several sources ---------------------------------------------------------------------------


def test_accuracy_from_a_folder_and_latency_from_the_last_profile(
    spec: Path, tmp_path: Path, measured: list[str]
) -> None:
    folder = truth.write_folder(tmp_path / "bench", truth.trained(30, 0))
    first, last, out = tmp_path / "one.json", tmp_path / "two.json", tmp_path / "rows.csv"
    assert profile(spec, first).exit_code == 0
    assert profile(spec, last, "--seed", "1").exit_code == 0
    sources = ("--predict", folder, "--predict", first, "--predict", last)
    done = invoke("census", spec, *sources, "--out", out, "--where", "top1_low > 0")
    assert done.exit_code == 0, done.output
    assert done.output.count("coverage 90%") == 2
    for source in (folder, last):
        assert f": from {source}\n" in done.output
    assert f"from {first}" not in done.output
    rows = pd.read_csv(out)
    assert {"top1", *NAMES} <= {*rows}
    model = sqz.fit(sqz.load_profile(last), target="latency_ms_p50")
    assert rows["latency_ms_p50"].to_numpy() == pytest.approx(
        model.predict(rows)["latency_ms_p50"].to_numpy(), rel=1e-3
    )
    done = invoke("census", spec, "--predict", folder, "--predict", tmp_path / "none.json")
    assert "none.json: cannot be read (No such file or directory)" in str(done.exception)
