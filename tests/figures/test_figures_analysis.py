"""The pictures of the analyses: what they show, what is left out, and how two of them look."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images

from helpers import ROOT
from sqzexplore.errors import UserError
from sqzexplore.figures import analyses as figures
from sqzexplore.figures import smaller, writer
from sqzexplore.figures.style import STYLE, own_axes
from sqzexplore.figures.writer import write_figures
from sqzexplore.results.folder import ResultFolder
from sqzexplore.results.selection import choices
from sqzexplore.results.smaller import drops_of
from sqzexplore.spec.load import parse_spec
from sqzexplore.spec.models import Spec

mpl.use("agg")
BASELINE = Path(__file__).parent / "baseline"


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with plt.rc_context(STYLE):
        yield
    plt.close("all")


def sweep(seeds: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """24 architectures of two metaparameters, of which the first matters the more."""
    generator = np.random.default_rng(0)
    ratios = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
    rows = pd.DataFrame(
        list(itertools.product(ratios, ["none", "simple", "complex"])),
        columns=["squeeze_ratio", "bypass"],
    )
    rows.insert(0, "arch_id", [f"a{i}" for i in range(24)])
    rows.insert(0, "trial", range(24))
    rows.insert(0, "sweep", "s")
    truth = 60 + 30 * rows["squeeze_ratio"] ** 0.5 + 3 * (rows["bypass"] != "none")
    values = truth.to_numpy()[:, None] + generator.normal(0, 1, (24, seeds))
    rows["train_params"] = (rows["squeeze_ratio"] * 8e5).astype(int) + rows["trial"]
    rows["train_size_mb"] = rows["train_params"] * 4e-6
    rows["top1"] = values.mean(axis=1)
    rows["val_top1"] = rows["top1"] + 0.5
    rows["state"] = "complete"
    runs = rows.loc[np.repeat(rows.index, seeds), ["sweep", "trial", "arch_id"]]
    runs = runs.assign(seed=list(range(seeds)) * 24, top1=values.ravel())
    return rows, runs.assign(val_top1=runs["top1"] + 0.5)


SPEC = """\
name: s
space: {squeeze_ratio: {min: 0.125, max: 1.0, step: 0.125}, bypass: [none, simple, complex]}
measure: {accuracy: {data: digits, epochs: 1, seeds: 3}}
"""


def written(
    spec: Spec, trials: pd.DataFrame, seeds: pd.DataFrame | None, folder: Path
) -> tuple[list[Path], list[str]]:
    return write_figures(figures.analysis_figures(spec, trials, seeds, None), folder)


def test_every_picture_that_the_data_allows(tmp_path: Path) -> None:
    trials, seeds = sweep()
    searched = parse_spec(SPEC + "search: {sampler: random, trials: 40}\n")
    files, left_out = written(searched, trials, seeds, tmp_path)
    names = ["front", "hypervolume", "population", "importance", "effects"]
    expected = {f"{name}{suffix}" for name in names for suffix in (".pdf", ".png")}
    assert {file.name for file in files} == expected
    assert left_out == []
    for file in files:
        if file.suffix == ".pdf":
            content = file.read_bytes()
            assert b"/Type3" not in content  # fonts are embedded as TrueType, type 42
            assert b"/FontFile2" in content


def test_what_a_search_chose_is_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in the figures of populations, importances and effects, and in no other."""
    trials, seeds = sweep()
    titles: dict[str, dict[str, str]] = {}

    def keep(figure: Any, target: Path) -> list[Path]:
        titles[sampler][target.name] = figure.get_suptitle()
        return []

    monkeypatch.setattr(writer, "save", keep)
    for sampler in ("random", "tpe"):
        titles[sampler] = {}
        spec = parse_spec(SPEC + f"search: {{sampler: {sampler}, trials: 40}}\n")
        written(spec, trials, seeds, tmp_path)
    warned = {name for name, title in titles["tpe"].items() if "no random sample" in title}
    assert warned == {"population", "importance", "effects"}
    assert not any("no random sample" in title for title in titles["random"].values())
    assert set(titles["random"]) > warned


def test_what_is_left_out_and_why(tmp_path: Path) -> None:
    trials, _ = sweep()
    few = trials[trials["bypass"] == "none"]
    files, left_out = written(parse_spec(SPEC), few, None, tmp_path)
    assert files == []
    assert left_out == [
        "front: top1 has no trainings to draw from",
        "hypervolume: a grid is gone through in its own order",
        "population, importance: found 8 trials with top1, expected at least 10",
        "effects: one metaparameter varies; the trade-off shows it",
    ]


def test_the_front_says_how_surely() -> None:
    trials, seeds = sweep()
    one = trials[trials["bypass"] == "simple"]
    axes = figures.front(one, seeds, "train_params", "top1")
    (points,) = axes.collections
    found = figures.analysis.front_probability(one, seeds, ["train_params"], ["top1"])
    assert points.get_array().tolist() == found["front_probability"].tolist()
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert texts == [f"{share:.0%}" for share in found["front_probability"]]
    assert axes.get_ylabel() == "top-1 accuracy (%)"


def test_a_front_over_a_size_that_is_the_same_is_left_out(tmp_path: Path) -> None:
    trials, seeds = sweep()
    flat = trials.assign(train_size_mb=1.0, train_params=1)
    drawn = figures.analysis_figures(parse_spec(SPEC), flat, seeds, None)
    _, left_out = write_figures({"front": drawn["front"]}, tmp_path)
    assert left_out == ["front: train_size_mb does not vary"]


def test_a_front_is_of_what_can_be_chosen() -> None:
    """Of more that is better on both axes; not of what breaks a constraint or was ended early."""
    trials, seeds = sweep()
    trials = trials.assign(images_per_s=2e3 - trials["train_params"] / 1e3, epochs=9, feasible=True)
    trials.loc[1, "feasible"] = False
    trials.loc[2, ["state", "epochs", "top1"]] = ["pruned", 1, np.nan]
    trials.loc[[1, 2], "val_top1"] = 99.0
    spec = parse_spec(
        SPEC.replace("measure: {", "measure: {throughput: {batch: [1]}, ")
        + "figures: [{x: images_per_s, y: top1}]\nsearch: {sampler: random, trials: 40}\n"
    )
    drawn = figures.analysis_figures(spec, trials, seeds, None)
    axes = drawn["front"]().axes[0]
    (front,) = axes.lines
    whole = trials.drop([1, 2])
    best = figures.analysis.pareto_front(whole, maximize=["images_per_s", "val_top1"])
    assert sorted(front.get_xdata()) == sorted(best["images_per_s"])
    assert front.get_drawstyle() == "steps-pre"
    assert len(axes.collections[0].get_offsets()) == 22
    heights = drawn["hypervolume"]().axes[0].lines[0].get_ydata()
    assert len(heights) == 24
    assert heights[0] == heights[2]
    lines = choices(parse_spec(SPEC), trials, seeds)
    assert lines == choices(parse_spec(SPEC), whole, seeds)
    assert any(line.startswith("knee of the front: trial ") for line in lines)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_a_sweep_of_failures_draws_what_it_can(tmp_path: Path, keep: int) -> None:
    trials, seeds = sweep()
    trials.loc[keep:, ["top1", "val_top1"]] = np.nan
    searched = parse_spec(SPEC + "search: {sampler: random, trials: 40}\n")
    files, left_out = written(searched, trials, seeds, tmp_path)
    missing = [name for line in left_out for name in line.partition(":")[0].split(", ")]
    assert len(files) / 2 + len(missing) == 5
    said = choices(searched, trials, seeds)
    assert bool(said) == (keep > 0), said


def test_hypervolume_over_the_trials() -> None:
    trials, _ = sweep()
    axes = figures.hypervolume(trials, ["train_params"], ["top1"])
    heights = axes.lines[0].get_ydata()
    assert len(heights) == 24
    assert heights[-1] == 1
    assert (np.diff(heights) >= 0).all()


def test_importances_and_effects_of_the_same_table() -> None:
    trials, _ = sweep()
    axes = figures.importances(trials, "top1")
    lengths = dict(
        zip(
            [label.get_text() for label in axes.get_yticklabels()],
            [bar.get_width() for bar in axes.patches],
            strict=True,
        )
    )
    assert lengths["squeeze_ratio"] > 0.6
    left, right = figures.effects(trials, "top1")
    assert [left.get_xlabel(), right.get_xlabel()] == ["squeeze_ratio", "bypass"]
    means = right.containers[0].lines[0].get_ydata()
    names = [label.get_text() for label in right.get_xticklabels()]
    expected = trials.groupby("bypass")["top1"].mean()
    assert means.tolist() == pytest.approx([expected[name] for name in names])


def test_effects_say_which_metaparameters_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_MOST_AXES", 1)
    (axes,) = figures.effects(sweep()[0], "top1")
    (legend,) = axes.figure.legends
    assert legend.get_title().get_text().startswith("first 1 of 2 metaparameters; out of bag")


def test_too_many_populations() -> None:
    with pytest.raises(UserError, match="found 5, expected 1 to 4"):
        figures.populations({str(i): [1.0, 2.0] for i in range(5)}, "x")


def test_the_table_answers_what_is_asked_first() -> None:
    trials, seeds = sweep()
    lines = choices(parse_spec(SPEC), trials, seeds)
    assert lines[0].startswith("front (least train_params, most val_top1; probability over")
    assert any(line.startswith("knee of the front: trial ") for line in lines)
    assert "within 1% of the best" in lines[2]
    broken = trials.assign(feasible=pd.array([False] + [None] * 23, dtype="boolean"))
    assert not any("trial 0," in line for line in choices(parse_spec(SPEC), broken, seeds))
    assert any("trial 0," in line for line in lines)
    single, once = sweep(seeds=1)
    lines = choices(parse_spec(SPEC), single, once)
    assert lines[0].startswith("front (least train_params, most val_top1):")
    assert choices(parse_spec(SPEC), trials.assign(val_top1=np.nan), seeds) == []


def draw_populations() -> mpl.figure.Figure:
    values = np.linspace(0, 1, 20)
    axes = own_axes(None)
    figures.populations({"first": values + 0.3, "second": values**2}, "accuracy", axes)
    return axes.figure


def draw_effects() -> mpl.figure.Figure:
    return figures.effects(sweep()[0], "top1")[0].figure


@pytest.mark.parametrize("draw", [draw_populations, draw_effects])
def test_it_looks_as_it_did(draw: object, tmp_path: Path) -> None:
    """Without text, which every version of FreeType draws in its own way.

    To accept a new look: copy the file that the failure names over tests/figures/baseline.
    """
    figure = draw()  # type: ignore[operator]
    figure.set_layout_engine(None)  # a layout follows the text that is taken away
    figure.subplots_adjust(0.1, 0.1, 0.95, 0.9)
    for text in figure.findobj(mpl.text.Text):
        text.set_visible(False)
    name = f"{draw.__name__}.png"  # type: ignore[attr-defined]
    figure.savefig(tmp_path / name, dpi=60)
    difference = compare_images(str(BASELINE / name), str(tmp_path / name), tol=3)
    assert difference is None, difference


def test_smaller_networks_are_drawn_at_their_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the committed sweep: a series a setting, each architecture at its file's size."""
    folder = tmp_path / "compression"
    shutil.copytree(ROOT / "results" / "compression", folder)
    shutil.rmtree(folder / "figures")
    results = ResultFolder(folder)
    trials, drops = results.table("trials"), drops_of(results)
    axes = smaller.sizes(trials, drops, own_axes(None))
    series = dict(zip(axes.get_legend_handles_labels()[1], axes.containers, strict=True))
    assert [*series] == [
        *("float32", "density 1, 8 bits", "density 0.5, 6 bits", "density 0.33, 6 bits"),
        *("int8, per channel", "int8, per tensor"),
    ]
    rows = drops["compressed"].query("density == 0.5")
    drawn = series["density 0.5, 6 bits"].lines[0]
    assert drawn.get_xdata().tolist() == rows["compressed_mb"].tolist()
    assert drawn.get_ydata().tolist() == rows["compressed_top1"].tolist()
    figure = smaller.losses(trials, drops, ["squeeze_ratio", "fraction_3x3", "bypass"])
    left, right = figure.axes
    assert len(left.get_yticklabels()) == len(right.get_yticks()) == 12
    assert len(left.containers) == 3
    assert left.get_ylabel() == ""
    monkeypatch.setattr(smaller, "_MOST_LINES", 5)
    few = smaller.losses(trials, drops, ["squeeze_ratio"]).axes[0]
    assert (few.get_ylabel(), len(few.get_yticks())) == ("first 5 of 12 architectures", 5)
    monkeypatch.undo()
    files, _ = write_figures(smaller.smaller_figures(results.spec(), trials, folder), tmp_path)
    names = [file.name for file in files]
    assert names == [f"smaller{end}" for end in (".pdf", ".png", "-losses.pdf", "-losses.png")]
    assert smaller.smaller_figures(results.spec(), trials, tmp_path) == {}
