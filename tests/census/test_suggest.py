"""Suggested trainings against brute force: integrals by sampling, and every candidate compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import truth
from sqzexplore.census import suggest
from sqzexplore.census.suggest import Steps
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.predict import fit as fit_
from sqzexplore.predict.models import MODELS
from sqzexplore.spec.load import load_spec

CENSUS = """\
name: few
base: {stem_kernel: 3, stem_width: 64, num_classes: 10}
space:
  squeeze_ratio: [0.125, 0.25, 0.5, 1.0]
  pool_after: {subsets_of: [1, 2, 4], size: [1, 2]}
  base_expand: [64, 128]
  bypass: [none, simple]
  batch_norm: [true, false]
input_size: 32
"""


def area(costs: np.ndarray, values: np.ndarray, least: float, last: float) -> float:
    """The dominated area, cell by cell of all coordinates."""
    xs = np.unique(np.r_[np.log(costs), last])
    reached = [
        max([v for c, v in zip(np.log(costs), values, strict=True) if c <= x], default=least)
        for x in xs[:-1]
    ]
    return float(sum(max(r - least, 0) * w for r, w in zip(reached, np.diff(xs), strict=True)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(10, 10**6), st.floats(1, 99)), min_size=1, max_size=8, unique=True
    ),
    st.integers(10, 10**6),
    st.floats(1, 99),
    st.floats(0.5, 20),
)
def test_the_expected_gain_is_the_mean_of_gains(
    measured: list[tuple[int, float]], cost: int, mean: float, spread: float
) -> None:
    costs, values = (np.array(column, dtype=float) for column in zip(*measured, strict=True))
    steps = Steps.of(costs, values)
    (got,) = steps.expected_gain(np.array([cost]), np.array([mean]), np.array([spread]))
    least, last = values.min(), np.log(costs).max()
    before = area(costs, values, least, last)
    # Quantiles in the middle of 400 equal shares: an integral, not a draw.
    from scipy.stats import norm

    drawn = norm.ppf((np.arange(400) + 0.5) / 400, mean, spread)
    if np.log(cost) > last:
        assert got == pytest.approx(0.0, abs=1e-9)
        return
    gains = [area(np.r_[costs, cost], np.r_[values, one], least, last) - before for one in drawn]
    assert got == pytest.approx(np.mean(gains), abs=0.02 * spread * 12)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fit_, "MODELS", {"gaussian process": MODELS["gaussian process"]})
    trials = truth.trained(60, 0)
    return truth.write_folder(tmp_path / "measured", trials.assign(val_top1=trials["top1"] - 1))


def asked(folder: Path, to: Path, *more: str) -> str:
    spec = to.parent / "few.yaml"
    spec.write_text(CENSUS)
    done = CliRunner().invoke(
        app, ["census", str(spec), "--predict", str(folder), "--to", str(to), *more]
    )
    if isinstance(done.exception, UserError):
        return str(done.exception)
    assert done.exit_code == 0, done.exception
    return done.output


def test_the_suggested_sweep(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "next.yaml"
    said = asked(folder, to, "--suggest", "6")
    assert "next.yaml" in said.replace("\n", "")
    spec = load_spec(to)
    listed = spec.design_space.listed
    assert len({each.net_id for each in listed}) == 6
    assert spec.measure == load_spec(folder / "spec.yaml").measure
    assert spec.input_size == 32
    census = load_spec(tmp_path / "few.yaml").design_space
    names = [axis.field for axis in census.axes]
    for each in listed:
        assert all(each.get(axis.field) in axis.values for axis in census.axes)
        assert each.replace(**{n: census.base.get(n) for n in names}) == census.base


def test_the_first_suggestion_is_the_best_of_all(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "next.yaml"
    asked(folder, to, "--suggest", "1", "--minimize", "macs", "--maximize", "top1")
    (chosen,) = load_spec(to).design_space.listed
    measured = sqz.load_results(folder)
    model = sqz.fit(measured, "val_top1")
    space = load_spec(tmp_path / "few.yaml").design_space
    rows = [space.architecture(number) for number in space.indices()]
    table = pd.DataFrame([each.model_dump(exclude={"overrides"}) for each in rows])
    said = model.predict(table.assign(pool_after=[",".join(map(str, a.pool_after)) for a in rows]))
    known = measured.dropna(subset=["val_top1"])
    steps = Steps.of(known["macs"].to_numpy(float), known["val_top1"].to_numpy(float))
    spread = (said["val_top1_high"] - said["val_top1_low"]) / (2 * 1.6448536)
    macs = np.array([sqz.cost(each, 32).macs for each in rows], dtype=float)
    gain = steps.expected_gain(macs, said["val_top1"].to_numpy(), spread.to_numpy())
    gain *= (1 - said["dead_probability"]).to_numpy()
    gain[said["extrapolated"].to_numpy(bool)] = 0
    assert chosen.net_id == rows[int(gain.argmax())].net_id


@pytest.mark.parametrize("state", ["complete", "dead"])
def test_what_is_trained_is_not_suggested_again(state: str, folder: Path, tmp_path: Path) -> None:
    """The best candidate, put among the trained ones: with a value of no consequence, or dead."""
    first = tmp_path / "first.yaml"
    asked(folder, first, "--suggest", "1")
    (chosen,) = load_spec(first).design_space.listed
    trials = truth.trained(60, 0)
    trials = trials.assign(val_top1=trials["top1"] - 1)
    own = chosen.model_dump(exclude={"overrides"})
    own["pool_after"] = ",".join(map(str, chosen.pool_after))
    costs = sqz.cost(chosen, 32)
    row = trials.iloc[[0]].assign(**own, params=costs.params, macs=costs.macs, trial=60)
    if state == "complete":
        row = row.assign(state=state, top1=5.0, val_top1=4.0, dead_seeds=0)
    else:
        row = row.assign(state=state, top1=np.nan, val_top1=np.nan, dead_seeds=1)
    shutil.rmtree(folder)
    truth.write_folder(folder, pd.concat([trials, row], ignore_index=True))
    asked(folder, tmp_path / "second.yaml", "--suggest", "3")
    second = load_spec(tmp_path / "second.yaml").design_space.listed
    assert chosen.net_id not in {each.net_id for each in second}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--suggest N and --to FILE.yaml: found one"),
        (["--suggest", "4", "--minimize", "top1"], "expected a cost to minimize"),
        (["--suggest", "900"], "networks that are expected to gain anything, expected 900"),
    ],
)
def test_what_cannot_be_suggested(
    options: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    to = tmp_path / "next.yaml"
    assert message in asked(folder, to, *options)
    assert not to.exists()


def test_a_file_that_is_there_stays(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "next.yaml"
    to.write_text("mine")
    assert "there is such a file" in asked(folder, to, "--suggest", "2")
    assert to.read_text() == "mine"


def test_the_target_is_the_validation_split() -> None:
    assert suggest.TARGET == "val_top1"
