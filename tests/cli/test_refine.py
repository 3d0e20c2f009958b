"""A narrower space from what a sweep found: against a space whose best is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import sqzexplore as sqz
from sqzexplore import analysis
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.spec.load import load_spec, parse_spec
from sqzexplore.spec.narrowed import narrowed

SPEC = """\
name: wide
space:
  squeeze_ratio: {min: 0.125, max: 1.0, step: 0.125}
  base_expand: {min: 32, max: 256, step: 32}
  increment_every: [1, 2, 4, 8]
  bypass: [none, simple, complex]
  batch_norm: [false, true]
search: {sampler: random, trials: 200}
measure: {accuracy: {data: digits, epochs: 1, seeds: 1}}
"""


def tried(rows: int = 400) -> pd.DataFrame:
    """The best is near SR 0.5, with complex bypass; nothing else matters."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "squeeze_ratio": generator.choice(np.arange(1, 9) / 8, rows),
            "base_expand": generator.choice(np.arange(32, 257, 32), rows),
            "increment_every": generator.choice([1, 2, 4, 8], rows),
            "bypass": generator.choice(["none", "simple", "complex"], rows),
            "batch_norm": generator.choice([False, True], rows),
        }
    )
    table["val_top1"] = 80 - 60 * (table["squeeze_ratio"] - 0.5).abs()
    table["val_top1"] += 8.0 * (table["bypass"] == "complex") + generator.normal(0, 1, rows)
    return table


def test_the_range_holds_the_best_and_leaves_the_rest() -> None:
    found = analysis.best_ranges(tried(), "val_top1").set_index("axis")
    assert found.loc["squeeze_ratio", ["low", "high"]].tolist() == [0.5, 0.5]
    assert found.loc["bypass", "values"] == ("complex",)
    assert set(found.loc["batch_norm", "values"]) == {False, True}
    assert found.loc["base_expand", "high"] - found.loc["base_expand", "low"] > 100
    # The probability that the best of all is in a draw with replacement: 1 - (1 - 1/n)^(n/4).
    best = tried().sort_values("val_top1").iloc[-1]
    shares = dict(zip(*found.loc["increment_every", ["values", "share_of"]], strict=True))
    assert shares[best["increment_every"]] >= 1 - (1 - 1 / 400) ** 100 - 0.02
    other = analysis.best_ranges(tried(), "val_top1", maximize=False).set_index("axis")
    assert "complex" not in other.loc["bypass", "values"]


def test_the_text_is_a_spec_of_a_part_of_the_space() -> None:
    spec = parse_spec(SPEC)
    text = narrowed(spec, analysis.best_ranges(tried(), "val_top1"), ["from a test"])
    new = parse_spec(text)
    assert text.startswith("# from a test\nname: wide-refined\n")
    assert new.measure == spec.measure
    axes, before = ({a.field: a for a in s.design_space.axes} for s in (new, spec))
    assert axes["bypass"].values == ("complex",)
    assert "bypass: [complex]  # of 3 values; held the best: complex 100%" in text
    for name, axis in axes.items():
        assert set(axis.values) <= set(before[name].values)
    assert new.design_space.size < spec.design_space.size
    # SR: every best has one value, which is no range.
    assert "step: 0.125}  # as it was" in text


def test_a_list_of_numbers_keeps_what_lies_between() -> None:
    text = SPEC.replace("{min: 0.125, max: 1.0, step: 0.125}", "[0.25, 0.375, 0.5, 1.0]")
    row = {"axis": "squeeze_ratio", "low": 0.25, "high": 0.5, "values": (0.5, 0.25)}
    row |= {"share_of": (0.7, 0.3), "architectures": 50}
    new = narrowed(parse_spec(text), pd.DataFrame([row]), [])
    line = next(line for line in new.splitlines() if "squeeze_ratio" in line)
    assert line.startswith("  squeeze_ratio: [0.25, 0.375, 0.5]  # of 4 values; held the best: ")
    assert line.endswith("0.25 30%, 0.375 0%, 0.5 70%")


def test_numbers_as_yaml_1_2_has_them() -> None:
    """To PyYAML's own reader 1e-1 is text."""
    text = SPEC.replace("{min: 0.125, max: 1.0, step: 0.125}", "[1e-1, 0.25, 0.5]")
    text = text.replace("epochs: 1", "learning_rate: 1e-3, epochs: 1")
    row = {"axis": "squeeze_ratio", "low": 0.1, "high": 0.25, "values": (0.1, 0.25)}
    row |= {"share_of": (0.7, 0.3), "architectures": 50}
    new = parse_spec(narrowed(parse_spec(text), pd.DataFrame([row]), []))
    assert new.space["squeeze_ratio"] == [0.1, 0.25]
    assert new.measure.accuracy.learning_rate == 0.001


def test_what_another_axis_depends_on_stays() -> None:
    spec = parse_spec(
        "name: s\nspace:\n  squeeze_ratio: [0.125, 0.25, 0.5]\n  base_expand: [32, 64, 96]\n"
        "  fraction_3x3: {when: {squeeze_ratio: [0.5]}, values: [0.25, 0.5]}\n"
    )
    rows = [
        {"axis": axis, "low": low, "high": high, "values": (low, high), "share_of": (0.5, 0.5)}
        for axis, low, high in (("squeeze_ratio", 0.125, 0.25), ("base_expand", 32, 64))
    ]
    new = parse_spec(narrowed(spec, pd.DataFrame(rows), []))
    axes = {axis.field: axis for axis in new.design_space.axes}
    assert axes["squeeze_ratio"].values == (0.125, 0.25, 0.5)
    assert axes["base_expand"].values == (32, 64)
    assert axes["fraction_3x3"].when == (("squeeze_ratio", (0.5,)),)


def test_what_says_too_little_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found 9 trials with val_top1, expected at least 10"):
        analysis.best_ranges(tried(9), "val_top1")
    flat = tried().assign(val_top1=np.random.default_rng(1).normal(0, 1, 400))
    only = parse_spec(
        SPEC.replace("bypass: [none, simple, complex]", "batch_norm: [false, true]").replace(
            "  batch_norm: [false, true]\nsearch", "search"
        )
    )
    assert {axis.field for axis in only.design_space.axes} >= {"batch_norm"}
    ranges = analysis.best_ranges(flat[["batch_norm", "val_top1"]], "val_top1")
    with pytest.raises(UserError, match="no axis becomes narrower"):
        narrowed(only, ranges, [])
    there = tmp_path / "there.yaml"
    there.write_text("mine")
    done = CliRunner().invoke(app, ["refine", "results/cifar10-joint", "--to", str(there)])
    assert "there is such a file" in str(done.exception)
    assert there.read_text() == "mine"


def test_the_verb_on_a_committed_search(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    to = tmp_path / "next.yaml"
    done = CliRunner().invoke(app, ["refine", str(root / "results/cifar10-joint"), "--to", str(to)])
    assert done.exit_code == 0, done.output
    assert "tpe chose these architectures" in to.read_text()
    folder = root / "results/cifar10-joint"
    old, trials = load_spec(folder / "spec.yaml"), sqz.load_results(folder)
    best = analysis.best_ranges(trials, "val_top1")
    assert load_spec(to).space == parse_spec(narrowed(old, best, [])).space
    assert load_spec(to).design_space.size < old.design_space.size
