"""How a sweep stands, of real sweeps: whole, failing, and killed half-way."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from helpers.sweeps import Quiet
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.evaluation.bench import Bench
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep
from sqzexplore.sweep.status import _rate, status

SPEC = """
name: standing
base: {width_multiplier: 0.1, num_classes: 10}
space: {squeeze_ratio: [0.25, 0.5, 1.0]}
input_size: 48
measure: {throughput: {processes: 1, batch: [1], seconds: 0.01}}
search: {objectives: {params: minimize, images_per_s: maximize}}
"""


def swept(folder: Path, monkeypatch: pytest.MonkeyPatch, at: float, error: BaseException) -> None:
    """A sweep in which the evaluation of one squeeze ratio ends with an error."""
    real = Bench.perform

    def perform(bench, task, *rest):
        if task.architecture.squeeze_ratio == at:
            raise error
        yield from real(bench, task, *rest)

    monkeypatch.setattr(Bench, "perform", perform)
    run_sweep(parse_spec(SPEC), folder, torch.device("cpu"), Quiet())


def test_a_whole_sweep_with_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path, monkeypatch, 0.5, ValueError("no such thing"))
    now = status(tmp_path)
    assert (now.complete.done, now.complete.planned) == (3, 3)
    assert now.failures == {1: "ValueError: no such thing"}
    assert now.unfinished == []
    assert now.left_s in (0.0, None)
    assert now.best["params"][0] == 0
    shown = CliRunner().invoke(app, ["status", str(tmp_path), "--json"])
    assert json.loads(shown.stdout)["failures"] == {"1": "ValueError: no such thing"}
    text = CliRunner().invoke(app, ["status", str(tmp_path)]).stdout
    assert "3 trials (1 failed) are in" in text
    assert "best params" in text


def test_an_interrupted_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, monkeypatch, 1.0, KeyboardInterrupt())
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    now = status(tmp_path)
    assert (now.complete.done, now.complete.planned) == (2, 3)
    assert [one.params for one in now.unfinished] == [{"squeeze_ratio": 1.0}]
    assert now.rate is not None
    assert now.left_s == pytest.approx(3600 / now.rate)
    assert [one.running for one in now.unfinished] == [False]
    assert (
        "interrupted: trial 2 (squeeze" in CliRunner().invoke(app, ["status", str(tmp_path)]).stdout
    )
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_the_rate_is_of_late() -> None:
    begin = datetime(2026, 1, 1)
    slow = [begin + timedelta(hours=i) for i in range(100)]
    fast = [slow[-1] + timedelta(minutes=i) for i in range(1, 51)]
    assert _rate(slow) == pytest.approx(1.0)
    assert _rate([*slow, *fast]) == pytest.approx(60.0)
    assert _rate(slow[:1]) is None
    assert _rate([slow[0], slow[0] + timedelta(microseconds=24)]) is None  # a grid of costs


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no spec.yaml"):
        status(tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC)
    with pytest.raises(UserError, match=r"found no study.journal"):
        status(tmp_path)
