"""The pictures of throughput: what they show of tables with known numbers."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from helpers import ROOT
from sqzexplore.analysis.ranking import rank_correlation
from sqzexplore.figures import throughput as figures
from sqzexplore.figures.writer import write_figures
from sqzexplore.network.cost import cost_table
from sqzexplore.results.folder import load_results
from sqzexplore.results.tables import THROUGHPUT, to_frame

mpl.use("agg")


def table(**changes: object) -> pd.DataFrame:
    """Three architectures at two batches; latency is 1 ms an MMAC and image."""
    rows = [
        {
            "arch_id": f"a{macs}",
            "device_name": "a processor",
            "threads": 2,
            "input_size": 224,
            "dtype": "float32",
            "memory_format": "channels_last",
            "form": "module",
            "mode": "eager",
            "outcome": "measured",
            "batch": batch,
            "macs": macs * 10**6,
            "bytes": batch * 10**6,
            "latency_ms_p50": float(macs * batch),
            "latency_ms_p50_low": macs * batch * 0.9,
            "latency_ms_p50_high": macs * batch * 1.2,
            "images_per_s": 1e3 / macs,
            "matrix_macs_per_s": 2e9,
            "copy_bytes_per_s": 1e9,
        }
        | changes
        for macs in (100, 200, 400, 800)
        for batch in (1, 16)
    ]
    return to_frame(rows, THROUGHPUT)


def test_speed_against_macs_is_of_the_largest_batch() -> None:
    axes = figures.speed_against_macs(table())
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [1e8, 2e8, 4e8, 8e8]
    assert line.get_ydata().tolist() == [10.0, 5.0, 2.5, 1.25]
    assert line.get_label() == "rank corr. -1.00 (p = 0.083), n = 4"
    assert "batch 16" in axes.get_ylabel()
    again = figures.speed_against_macs(pd.concat([table(), table()]))  # the same networks twice
    assert again.lines[0].get_label().endswith("n = 4")
    assert "a processor, 2 threads" in axes.get_title()


def test_a_line_an_architecture_and_a_colour_a_mode() -> None:
    rows = pd.concat([table(), table(form="inference")], ignore_index=True)
    axes = figures.latency_against_batch(rows)
    assert len(axes.containers) == 8
    assert axes.containers[0].lines[0].get_ydata().tolist() == [100.0, 1600.0]
    segments = [segment[:, 1].tolist() for segment in axes.containers[0].lines[2][0].get_segments()]
    assert segments[0] == pytest.approx([90.0, 120.0])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["module", "inference"]
    assert len({c.lines[0].get_color() for c in axes.containers}) == 2


def test_the_roofline_picture() -> None:
    axes = figures.roofline_picture(table())
    points, roof = axes.lines
    assert points.get_xdata().tolist() == [100.0, 100.0, 200.0, 200.0, 400.0, 400.0, 800.0, 800.0]
    assert np.allclose(points.get_ydata(), 1e9)
    assert roof.get_ydata().max() == 2e9
    assert roof.get_ydata()[0] == pytest.approx(roof.get_xdata()[0] * 1e9)
    assert roof.get_xdata()[0] < 2 < roof.get_xdata()[-1]  # the ridge is in the picture


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    rows = table()
    out = table(outcome="out_of_memory", images_per_s=None, latency_ms_p50=None, batch=512)
    every = pd.concat([rows, out], ignore_index=True)
    files, _ = write_figures(figures.throughput_figures(every), tmp_path)
    assert sorted(file.stem for file in files) == sorted(
        ["latency-batch"] * 2 + ["roofline"] * 2 + ["throughput-macs"] * 2
    )
    one = rows[(rows["arch_id"] == "a100") & (rows["batch"] == 1)]
    assert [*figures.throughput_figures(one)] == ["roofline"]
    assert figures.throughput_figures(out) == {}


def test_tables_of_an_older_version_load_and_draw(tmp_path: Path) -> None:
    """The columns that a version did not have are missing values; such a file stands beside this
    test, as it was written."""
    old = Path(__file__).with_name("throughput-0.1.parquet")
    shutil.copy(old, tmp_path / "throughput.parquet")
    rows = load_results(tmp_path, "throughput")
    assert list(rows) == list(THROUGHPUT)
    assert rows["images_per_s"].notna().all()
    assert rows[["form", "mode", "outcome", "macs", "warm"]].isna().all().all()
    assert figures.throughput_figures(rows) == {}


def test_a_metaparameter_of_a_newer_version_is_at_its_default(tmp_path: Path) -> None:
    """An older table has no column for it; its networks were what the default now stands for."""
    now = load_results(ROOT / "results" / "sr")
    now.drop(columns=["dropout", "pool_after", "top5"]).to_parquet(tmp_path / "trials.parquet")
    older = load_results(tmp_path)
    assert list(older) == list(now)
    assert (older["dropout"] == 0.5).all()
    assert (older["pool_after"] == "1,4,8").all()
    assert older["top5"].isna().all()
    assert cost_table(older)["params"].tolist() == now["params"].tolist()


def test_rank_correlations() -> None:
    x = np.arange(30.0)
    perfect = rank_correlation(x, x**3)
    assert perfect is not None
    assert perfect.spearman == 1
    assert perfect.p_value == pytest.approx(2 / math.factorial(30), rel=1e-9, abs=0)
    assert np.isnan([perfect.low, perfect.high]).all()
    noisy = x + np.random.default_rng(0).normal(0, 10, 30)
    found = rank_correlation(x, noisy)
    assert found is not None
    ranks = noisy.argsort().argsort()
    by_hand = 1 - 6 * ((x - ranks) ** 2).sum() / (30 * (30**2 - 1))  # Spearman's formula, no ties
    assert found.spearman == pytest.approx(by_hand)
    assert found.low < found.spearman < found.high < 1
    assert rank_correlation(x[:3], x[:3]) is None
    assert rank_correlation(x, np.ones(30)) is None
