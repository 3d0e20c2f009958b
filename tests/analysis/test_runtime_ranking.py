"""Which runtime is fastest, and whether rankings agree: against tables with a known answer."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sqzexplore import analysis
from sqzexplore.errors import UserError
from sqzexplore.results.runtimes import runtime_lines

WAYS = [("torch", "float32"), ("onnxruntime", "float32"), ("onnxruntime", "int8")]


def table(latencies: dict[tuple[str, str], list[float]], half: float = 0.01) -> pd.DataFrame:
    rows = []
    for (runtime, dtype), values in latencies.items():
        for number, value in enumerate(values):
            row = {"sweep": "s", "arch_id": f"a{number}", "net_id": f"n{number}", "batch": 1}
            row |= {"device_name": "board", "threads": 2, "input_size": 64, "form": "module"}
            row |= {"mode": "eager", "runtime": runtime, "dtype": dtype, "latency_ms_p50": value}
            row |= {"latency_ms_p50_low": value * (1 - half)}
            rows.append(row | {"latency_ms_p50_high": value * (1 + half)})
    return pd.DataFrame(rows)


LATENCIES = dict(
    zip(WAYS, ([4.0, 5, 6, 7, 8], [3.0, 5.05, 7, 6, 9], [2.0, 6, 5, 9, 7]), strict=True)
)


def test_the_fastest_of_each_architecture() -> None:
    found = analysis.fastest_runtime(table(LATENCIES)).set_index("arch_id")
    ways = [f"{r} {d}" for r, d in zip(found["runtime"], found["dtype"], strict=True)]
    fastest = np.argmin([LATENCIES[way] for way in WAYS], axis=0)
    assert ways == [" ".join(WAYS[place]) for place in fastest]
    # 5.00 and 5.05 within 1% each: their intervals touch.
    assert found["told_apart"].tolist() == [True, False, True, True, True]
    assert found.loc["a1", "next_latency_ms_p50"] == 5.05


def test_the_fastest_is_told_from_every_other_not_from_the_next_alone() -> None:
    rows = table(LATENCIES)
    wide = (rows["arch_id"] == "a0") & (rows["dtype"] == "float32") & (rows["runtime"] == "torch")
    rows.loc[wide, "latency_ms_p50_low"] = 1.9  # the third of 2.0, 3.0, 4.0
    found = analysis.fastest_runtime(rows).set_index("arch_id")
    assert found.loc["a0", "next_latency_ms_p50"] == 3.0
    assert not found.loc["a0", "told_apart"]
    rows.loc[wide, "latency_ms_p50_low"] = np.nan
    assert analysis.fastest_runtime(rows).set_index("arch_id").loc["a0", "told_apart"] is None


def test_rankings_are_kendalls_tau_with_an_interval() -> None:
    found = analysis.runtime_ranking(table(LATENCIES))
    assert len(found) == 3
    for row, (a, b) in zip(found.itertuples(), itertools.combinations(WAYS, 2), strict=True):
        assert (row.first, row.second) == (" ".join(a), " ".join(b))
        assert row.kendall == pytest.approx(stats.kendalltau(LATENCIES[a], LATENCIES[b]).statistic)
        assert row.ci_low <= row.kendall <= row.ci_high
    same = analysis.runtime_ranking(table(dict.fromkeys(WAYS, LATENCIES[WAYS[0]])))
    assert (same["kendall"] == 1).all()
    assert same["ci_low"].isna().all()


def test_torchs_other_forms_do_not_compete() -> None:
    rows = table(LATENCIES)
    fast = rows[rows["runtime"] == "torch"].assign(form="inference", latency_ms_p50=0.1)
    found = analysis.fastest_runtime(pd.concat([rows, fast]))
    assert found["latency_ms_p50"].min() == 2.0


def test_memory_formats_are_no_runtimes() -> None:
    rows = table(LATENCIES)
    torch = rows["runtime"] == "torch"
    alone = rows[torch].assign(arch_id="alone")
    fast = rows[torch].assign(
        memory_format="contiguous", latency_ms_p50=0.1, latency_ms_p50_low=0.1
    )
    both = pd.concat([rows, alone, alone.assign(latency_ms_p50=0.1), fast])
    found = analysis.fastest_runtime(both)
    assert found["arch_id"].tolist() == [f"a{number}" for number in range(5)]
    assert set(found["runtime"]) == {"torch"}
    assert set(found["next_runtime"]) == {"onnxruntime"}
    faster = [1.0, 9, 2, 8, 0.5]
    other = rows[torch].assign(memory_format="contiguous", latency_ms_p50=faster)
    tau = analysis.runtime_ranking(pd.concat([rows, other]))["kendall"][0]
    best = np.minimum(faster, LATENCIES[WAYS[0]])
    assert tau == pytest.approx(stats.kendalltau(best, LATENCIES[WAYS[1]]).statistic)


def test_sizes_of_the_image_are_no_architectures() -> None:
    rows = table(LATENCIES)
    lines = runtime_lines(pd.concat([rows, rows.assign(input_size=32)]))
    assert [line.partition(":")[0] for line in lines[:2]] == [
        "fastest runtime at batch 1, 32x32",
        "fastest runtime at batch 1, 64x64",
    ]
    assert all(" of 5 architectures" in line for line in lines[:2])
    assert len(set(lines)) == 2 * (1 + 3)


def test_too_little_is_said() -> None:
    one = table({WAYS[0]: [1.0, 2, 3, 4]})
    for function in (analysis.fastest_runtime, analysis.runtime_ranking):
        with pytest.raises(UserError, match="found one runtime only"):
            function(one)
    few = table({way: values[:3] for way, values in LATENCIES.items()})
    with pytest.raises(UserError, match="3 architectures in two runtimes"):
        analysis.runtime_ranking(few)
    assert runtime_lines(None) == runtime_lines(one) == []
    assert len(runtime_lines(few)) == 1
    lines = runtime_lines(table(LATENCIES))
    assert "onnxruntime int8 of 3" in lines[0]
    assert len(lines) == 1 + 3
