"""The Pareto front against brute force, the published numbers, and what figures show."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import sqzexplore as sqz
from helpers import ROOT
from sqzexplore.errors import UserError
from sqzexplore.figures import smaller, tradeoff
from sqzexplore.figures.labels import caption
from sqzexplore.published import published
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import load_spec
from sqzexplore.spec.models import FigureSpec

mpl.use("agg")


@settings(max_examples=200, deadline=None)
@given(
    arrays(
        float,
        st.tuples(st.integers(0, 40), st.just(3)),
        elements=st.integers(0, 6).map(float) | st.just(np.nan),
    )
)
def test_the_pareto_front_against_brute_force(values: np.ndarray) -> None:
    frame = pd.DataFrame(values, columns=["a", "b", "c"], index=np.arange(len(values)) + 100)
    front = sqz.pareto_front(frame, minimize=["a", "b"], maximize=["c"])
    signed = values * np.array([1, 1, -1])

    def dominated(row: np.ndarray) -> bool:
        return any((other <= row).all() and (other < row).any() for other in signed)

    expected = [
        100 + i for i, row in enumerate(signed) if not np.isnan(row).any() and not dominated(row)
    ]
    assert front.index.tolist() == expected


def test_the_pareto_front_of_a_table_with_missing_values() -> None:
    frame = pd.DataFrame(
        {
            "params": pd.array([1, 2, 3], dtype="Int64"),
            "top1": pd.array([50.0, None, 60.0], dtype="Float64"),
        }
    )
    front = sqz.pareto_front(frame, minimize=["params"], maximize=["top1"])
    assert front["params"].tolist() == [1, 3]
    with pytest.raises(UserError, match="did you mean 'params'"):
        sqz.pareto_front(frame, minimize=["parms"])
    with pytest.raises(UserError, match="found no column"):
        sqz.pareto_front(frame)


def test_published_numbers() -> None:
    rows = published()
    assert set(rows["reading"]) == {"printed", "read off"}
    assert rows["source"].notna().all()
    figure = published("figure 3a").set_index("squeeze_ratio")
    assert figure.loc[0.125, ["size_mb", "top5"]].tolist() == [4.8, 80.3]
    assert figure.loc[0.75, ["size_mb", "top5"]].tolist() == [19, 86.0]
    table = published("table 3").set_index("bypass")
    assert table.loc["simple", ["top1", "top5", "size_mb"]].tolist() == [60.4, 82.5, 4.8]
    weights = published("weights").set_index("network")
    for name in ("squeezenet1_0", "squeezenet1_1"):
        assert weights.loc[name, "params"] == sqz.cost(sqz.preset(name)).params
    # AlexNet, layer by layer: five convolutions and three fully connected layers.
    convolutions = [(3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3)]
    linears = [(9216, 4096), (4096, 4096), (4096, 1000)]
    alexnet = sum(i * o * k * k + o for i, o, k in convolutions)
    alexnet += sum(i * o + o for i, o in linears)
    assert weights.loc["AlexNet", "params"] == alexnet == 61_100_840


def table(n: int = 5) -> pd.DataFrame:
    ratio = np.array([0.125, 0.25, 0.5, 0.75, 1.0])[:n]
    top1 = np.array([77.0, 96.0, 97.0, 95.0, 98.0])[:n]
    return pd.DataFrame(
        {
            "squeeze_ratio": ratio,
            "top1": top1,
            "val_top1": top1 + np.array([0, 0, 1.5, 0, 0])[:n],
            "top1_ci_low": top1 - 2,
            "top1_ci_high": top1 + 1,
            "train_size_mb": ratio * 1.5,
            "train_input_size": 32,
            "input_size": 224,
        }
    )


def test_a_trade_off_shows_every_point_its_interval_and_the_front() -> None:
    axes = tradeoff.tradeoff(table(), "train_size_mb", "top1", "squeeze_ratio")
    (front,) = [line for line in axes.lines if line.get_label().startswith("Pareto front")]
    assert front.get_label() == "Pareto front, chosen on validation"
    assert front.get_ydata().tolist() == [77.0, 96.0, 97.0]  # 98.0 has less on validation
    (container,) = axes.containers
    assert container.lines[0].get_ydata().tolist() == table()["top1"].tolist()
    segments = [segment[:, 1].tolist() for segment in container.lines[2][0].get_segments()]
    assert segments == [[t - 2, t + 1] for t in table()["top1"]]
    assert axes.get_xlabel() == "size of the trained network (MB)"
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert texts == ["SR 0.125", "SR 0.25", "SR 0.5", "SR 0.75", "SR 1"]


@pytest.mark.parametrize(
    ("x", "y", "style"),
    [
        ("images_per_s", "relative_to_reference", "steps-pre"),
        ("macs", "images_per_s", "steps-post"),
        ("macs", "params", "steps-post"),
        ("images_per_s", "macs", "steps-pre"),
        ("macs", "top1", "default"),
    ],
)
def test_the_line_of_a_front_ends_what_it_dominates(x: str, y: str, style: str) -> None:
    numbers = table().assign(top1_ci_low=np.nan, top1_ci_high=np.nan)
    numbers = numbers.assign(**{x: [1.0, 2, 3, 4, 5], y: [5.0, 4, 3, 2, 1]})
    lines = tradeoff.tradeoff(numbers, x, y).lines
    (front,) = [line for line in lines if line.get_label().startswith("Pareto front")]
    assert front.get_drawstyle() == style


def test_an_interval_that_rounding_ended_below_its_mean_is_drawn() -> None:
    perfect = table().assign(top1=100.0, top1_ci_low=98.0, top1_ci_high=99.99999999999999)
    (container,) = tradeoff.tradeoff(perfect, "train_size_mb", "top1").containers
    assert container.lines[2][0].get_segments()[0][:, 1].tolist() == [98.0, 100.0]
    drops = perfect.rename(columns=lambda name: name.replace("top1", "int8_top1"))
    drops = drops.assign(int8_mb=drops["train_size_mb"], scheme="per_channel")
    series = smaller.sizes(perfect, {"int8": drops}, tradeoff.own_axes(None)).containers
    for container in series:
        assert container.lines[2][0].get_segments()[0][:, 1].tolist() == [98.0, 100.0]


def test_labels_do_not_collide() -> None:
    crowded = table()
    crowded["train_size_mb"] = [1.0, 1.01, 1.02, 1.03, 2.0]
    crowded["top1"] = crowded["val_top1"] = [95.0, 95.1, 95.2, 95.1, 96.0]
    crowded["top1_ci_low"] = crowded["top1"] - 2
    crowded["top1_ci_high"] = crowded["top1"] + 1
    axes = tradeoff.tradeoff(crowded, "train_size_mb", "top1", "squeeze_ratio")
    axes.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(crowded)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("sweep", ["sr", "cifar10-bypass", "cifar10-pooling", "cifar10-sr"])
def test_no_label_of_the_committed_figures_lies_on_another(sweep: str) -> None:
    folder = ROOT / "results" / sweep
    spec = load_spec(folder / "spec.yaml")
    axis = next(iter(spec.space))
    axes = tradeoff.tradeoff(load_results(folder), "train_macs", "top1", axis)
    axes.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(load_results(folder))
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_no_axis_mixes_the_papers_accuracy_with_ours() -> None:
    axes = tradeoff.paper_panel("figure 3a")
    assert axes.get_ylabel() == "ImageNet top-5 accuracy (%)"
    assert axes.lines[0].get_ydata().tolist() == [80.3, 85.3, 86.0]
    folder = ROOT / "results" / "sr"
    beside = FigureSpec(x="train_size_mb", y="top1", reference="figure 3a")
    drawn = tradeoff.draw(load_spec(folder / "spec.yaml"), load_results(folder), beside)
    ours, papers = drawn.axes
    assert papers.lines[0].get_ydata().tolist() == [80.3, 85.3, 86.0]
    assert papers.get_ylabel() == "ImageNet top-5 accuracy (%)"
    assert ours.get_ylabel() == "top-1 accuracy (%)"
    assert "published" not in [line.get_label() for line in ours.lines]
    assert not ours.get_shared_y_axes().joined(ours, papers)


def test_a_table_without_values_still_gives_a_figure() -> None:
    empty = table().assign(top1=np.nan)
    axes = tradeoff.tradeoff(empty, "train_size_mb", "top1", "squeeze_ratio")
    assert "no trial" in axes.texts[0].get_text()


def test_a_caption_speaks_of_the_networks_whose_speed_is_known() -> None:
    folder = ROOT / "results" / "sr"
    spec, trials = load_spec(folder / "spec.yaml"), load_results(folder)
    here = "AMD EPYC, batch 16, float32, 1 thread"
    for column in ("images_per_s", "latency_ms_p50", "latency_ms_p99", "relative_to_reference"):
        assert caption(spec, trials, "macs", column) == here
    settings = ["images_per_s", "throughput_device_name", "batch", "dtype", "threads"]
    trials.loc[0, settings] = pd.NA  # as of a trial that failed
    assert caption(spec, trials, "images_per_s") == here
    trials.loc[1:, "threads"] = 2
    assert caption(spec, trials, "images_per_s") == f"{here[:-8]}2 threads"
