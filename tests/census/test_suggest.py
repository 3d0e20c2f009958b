"""Suggested trainings against brute force: integrals by sampling, and every candidate compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import truth
from sqzexplore.census.blocks import Block
from sqzexplore.census.suggest import Steps, Suggestions, suggested_spec
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.predict import fit as fit_
from sqzexplore.predict.fit import Model
from sqzexplore.predict.models import MODELS
from sqzexplore.predict.trained import trained_of
from sqzexplore.spec.load import load_spec, parse_spec

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
    return truth.write_folder(tmp_path / "measured", validated(truth.trained(60, 0)))


def validated(trials: pd.DataFrame) -> pd.DataFrame:
    """With a validation split that ranks them otherwise than the test split does."""
    return trials.assign(val_top1=trials["top1"] - 30 * trials["squeeze_ratio"])


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
    trials = validated(truth.trained(60, 0))
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
    ],
)
def test_what_cannot_be_suggested(
    options: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    to = tmp_path / "next.yaml"
    assert message in asked(folder, to, *options)
    assert not to.exists()


@pytest.mark.parametrize("where", ["base_expand == 64 and squeeze_ratio < 0.5", "params < 0"])
def test_fewer_than_asked_for_are_written_and_said(
    where: str, folder: Path, tmp_path: Path
) -> None:
    spec, to, out = (tmp_path / name for name in ("few.yaml", "next.yaml", "rows.csv"))
    spec.write_text(CENSUS)
    asked_for = ["--suggest", "900", "--to", str(to), "--where", where, "--out", str(out)]
    done = CliRunner().invoke(app, ["census", str(spec), "--predict", str(folder), *asked_for])
    assert done.exit_code == 1
    assert f"written: {out}" in done.stdout.replace("\n", "")
    found = len(load_spec(to).design_space.listed) if to.exists() else 0
    assert (found > 0) == (where != "params < 0")
    said = f"found {found} networks that are expected to gain anything, expected 900"
    assert said in done.stderr


def test_the_base_s_overrides_are_taken_back(folder: Path) -> None:
    own = "  fire5.squeeze_ratio: [null, 0.25]\n  fire3.bypass: [null, complex]\n"
    text = CENSUS.replace("num_classes: 10", "num_classes: 10, fire5.squeeze_ratio: 0.5")
    spec = parse_spec(text.replace("space:\n", f"space:\n{own}"))
    space = spec.design_space
    numbers = np.arange(0, space.size, 37)
    columns = space.columns_at(numbers)
    costs, keep = space.costs(columns, len(numbers))
    names = ("val_top1", "val_top1_low", "val_top1_high")
    made_up = dict.fromkeys(names, np.ones(len(numbers)))
    chosen = Block(numbers, columns | costs | made_up).take(keep)
    model = SimpleNamespace(target="val_top1", names=names)
    suggestions = cast(Suggestions, SimpleNamespace(model=model, cost="macs"))
    trained = load_spec(folder / "spec.yaml", ["measure.accuracy.learning_rate=1e-3"])
    trained = parse_spec(trained.source.replace("0.001", "1e-3"))  # to PyYAML's own reader text
    written = suggested_spec(spec, trained, chosen, suggestions, "made up")
    assert parse_spec(written).measure == trained.measure
    listed = parse_spec(written).design_space.listed
    expected = [space.architecture(number) for number in chosen.numbers.tolist()]
    assert [each.net_id for each in listed] == [each.net_id for each in expected]
    assert len({each.get("fire5.squeeze_ratio") for each in listed}) == 2


def test_the_front_is_of_whole_trainings() -> None:
    """What a search ended early is neither reached, nor suggested again."""
    trials = truth.trained(20, 0, dying=False).assign(val_top1=50.0)
    trials.loc[3, ["state", "val_top1"]] = ["pruned", 99.0]
    view = trained_of(pd.concat([trials] * 2), "val_top1").view
    model = SimpleNamespace(target="val_top1", view=view)
    suggestions = Suggestions(cast(Model, model), "macs", trials)
    assert suggestions._steps.values.max() == 50.0
    assert len(suggestions._trained) == 20


def test_a_file_that_is_there_stays(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "next.yaml"
    to.write_text("mine")
    assert "there is such a file" in asked(folder, to, "--suggest", "2")
    assert to.read_text() == "mine"
