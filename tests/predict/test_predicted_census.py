"""A census with predictions against the model asked for each row by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers import truth
from sqzexplore.census import accumulators, blocks
from sqzexplore.census.census import take_census
from sqzexplore.census.query import Query
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.figures.census import census_figures, predicted_density
from sqzexplore.figures.writer import write_figures
from sqzexplore.predict.fit import Model, fit
from sqzexplore.space.constraints import Expression
from sqzexplore.spec.load import parse_spec

SPEC = """\
name: few
base: {stem_kernel: 3, stem_width: 64, num_classes: 10}
space:
  squeeze_ratio: [0.125, 0.5, 1.0]
  pool_after: {subsets_of: [1, 2, 4], size: [1, 2, 3]}
  base_expand: [64, 128]
  batch_norm: [true, false]
input_size: 32
"""
pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
def model() -> Model:
    return fit(truth.trained(40, 0))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", 7)


def asked(model: Model, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a census without predictions, each asked for by itself."""
    plain = frame.astype({"pool_after": object, "bypass": object})
    said = pd.concat([model.predict(plain.iloc[[i]]) for i in range(len(plain))])
    return pd.concat([plain, said], axis=1)


def everything() -> pd.DataFrame:
    return take_census(parse_spec(SPEC).design_space, Query(sort=("macs",), top=1000)).top


def test_each_row_has_what_the_model_says(model: Model) -> None:
    query = Query(sort=("macs",), top=1000, predictions=(model,))
    got = take_census(parse_spec(SPEC).design_space, query).top
    expected = asked(model, everything())
    for name in model.names:
        assert got[name].to_numpy(float) == pytest.approx(expected[name].to_numpy(float), rel=1e-4)


def test_predictions_filter_sort_and_make_the_front(model: Model) -> None:
    rows = asked(model, everything())
    bound = float(rows["top1_low"].median()) + 1e-3
    text = f"top1_low > {bound} and not extrapolated and params < 1e6"
    query = Query(
        where=Expression(text, predicted=model.names),
        sort=("-top1",),
        top=1000,
        minimize=("params",),
        maximize=("top1_low",),
        predictions=(model,),
    )
    taken = take_census(parse_spec(SPEC).design_space, query)
    kept = rows[(rows["top1_low"] > bound) & ~rows["extrapolated"] & (rows["params"] < 1e6)]
    assert 0 < taken.kept == len(kept) < len(rows)
    assert sorted(taken.top["params"]) == sorted(kept["params"])
    assert (np.diff(taken.top["top1"]) <= 0).all()
    best = [
        row
        for _, row in kept.iterrows()
        if not (
            (kept["params"] <= row["params"])
            & (kept["top1_low"] >= row["top1_low"])
            & ((kept["params"] < row["params"]) | (kept["top1_low"] > row["top1_low"]))
        ).any()
    ]
    assert sorted(taken.front["params"]) == sorted(row["params"] for row in best)


@pytest.mark.parametrize("objectives", [("params",), ("params", "macs")])
def test_what_may_be_on_the_front(objectives: tuple[str, ...], tmp_path: Path) -> None:
    model = fit(truth.trained(40, 0), level=0.3)  # narrow enough to rule some out
    query = Query(minimize=objectives, maximize=("top1",), sort=("macs",), predictions=(model,))
    file = tmp_path / "rows.csv"
    taken = take_census(parse_spec(SPEC).design_space, query, file)
    rows = pd.read_csv(file, keep_default_na=False)

    def surely_better(other: pd.Series, row: pd.Series) -> bool:
        if other["extrapolated"]:
            return False
        apart = [row[name] - other[name] for name in objectives]
        apart.append(other["top1_low"] - row["top1_high"])
        return min(apart) >= 0 and max(apart) > 0

    each = [row for _, row in rows.iterrows()]
    expected = [not any(surely_better(other, row) for other in each) for row in each]
    assert rows["may_be_front"].tolist() == expected
    assert 0 < sum(expected) < len(rows)
    assert taken.front["may_be_front"].all()
    assert taken.possible is not None
    assert len(taken.possible) == sum(expected)


def test_the_density_of_what_is_predicted(model: Model, tmp_path: Path) -> None:
    query = Query(None, ("macs",), 1000, predictions=(model,))
    taken = take_census(parse_spec(SPEC).design_space, query)
    assert taken.predicted_density is not None
    assert taken.predicted_density.sum() == pytest.approx(taken.top["top1"].sum(), rel=1e-5)
    assert ((taken.predicted_density > 0) == (taken.density > 0)).all()
    means = taken.top["top1"]
    (mesh,) = [c for c in predicted_density(taken).collections if hasattr(c, "get_coordinates")]
    shown = mesh.get_array().compressed()
    assert means.min() - 1e-3 <= shown.min() <= shown.max() <= means.max() + 1e-3
    files, _ = write_figures(census_figures(taken, "few"), tmp_path)
    assert {file.stem for file in files} == {"density", "density_predicted", "late_downsampling"}


def test_too_many_to_hold_are_not_listed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    query = Query(None, ("macs",), 1000, ("params",), ("top1",), predictions=(model,))
    space = parse_spec(SPEC).design_space
    whole = take_census(space, query)
    monkeypatch.setattr(accumulators, "MAX_FRONT", 20)
    taken = take_census(space, query)
    assert taken.possible is None
    pd.testing.assert_frame_equal(taken.top, whole.top)


def test_what_cannot_be_built_as_measured_is_not_feasible(model: Model) -> None:
    """At 224 pixels four pools leave a map; at the trained 32 some do not."""
    spec = parse_spec(
        "name: deep\nspace: {pool_after: [[1, 4], [1, 2, 3, 4, 5, 6, 7]]}\n"
        "base: {stem_kernel: 3}\ninput_size: 1024\n"
    )
    assert take_census(spec.design_space, Query()).feasible == 2
    taken = take_census(spec.design_space, Query(top=5, sort=("top1",), predictions=(model,)))
    assert (taken.feasible, taken.top["pool_after"].tolist()) == (1, ["1,4"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top1_low > 70", "found the name 'top1_low', expected .*: nothing is predicted"),
        ("top1 > 70", "found the name 'top1', expected .*: nothing is measured yet"),
    ],
)
def test_a_condition_on_what_nothing_predicts(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Expression(text)


def test_a_condition_on_what_something_else_predicts(model: Model) -> None:
    with pytest.raises(UserError, match=r"or one of top1, top1_low.*: nothing else is predicted"):
        Expression("top5_low > 70", predicted=model.names)
    with pytest.raises(UserError, match=r"--sort: found 'top5', expected a cost column"):
        Query(sort=("top5",), predictions=(model,))


def test_the_verb(tmp_path: Path) -> None:
    folder = truth.write_folder(tmp_path / "bench", truth.trained(40, 0))
    (tmp_path / "few.yaml").write_text(SPEC)
    out, kept = tmp_path / "rows.parquet", tmp_path / "kept"
    command = [
        "census",
        str(tmp_path / "few.yaml"),
        "--predict",
        str(folder),
        "--sort",
        "-top1_low",
    ]
    command += ["--where", "top1_low > 1", "--out", str(out), "--folder", str(kept)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rows = pd.read_parquet(out)
    model = fit(truth.trained(40, 0))
    assert {*model.names} <= {*rows}
    assert (np.diff(rows["top1_low"]) <= 0).all()
    # The folder's spec names the images' classes; features of accuracy do not depend on them.
    said = model.predict(rows.astype({"pool_after": object, "bypass": object}))
    assert rows["top1"].to_numpy() == pytest.approx(said["top1"].to_numpy(), rel=1e-3)
    of_it, of_winners = json.loads((kept / "census.json").read_text())["predictions"]
    assert "coverage 90%" in of_it
    assert "worse than predicted" in of_winners  # the order is by what is predicted
    for line in (of_it, of_winners):
        assert line in done.output


def test_the_verb_with_too_few_networks(tmp_path: Path) -> None:
    folder = truth.write_folder(tmp_path / "bench", truth.trained(10, 0, dying=False))
    (tmp_path / "few.yaml").write_text(SPEC)
    done = CliRunner().invoke(app, ["census", str(tmp_path / "few.yaml"), "--predict", str(folder)])
    assert done.exit_code != 0
    assert "found 10 rows with top1, expected at least 20" in str(done.exception)
    assert "found 0 rows with latency_ms_p50" in str(done.exception)
